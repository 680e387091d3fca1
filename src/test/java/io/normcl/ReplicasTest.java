package io.normcl;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.plan.Family;
import io.normcl.plan.Tuning;
import io.normcl.reference.BatchNormReference;
import io.normcl.reference.BatchNormReference.Statistics;
import io.normcl.tensor.Layout;
import io.normcl.tensor.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Synchronized over several devices is batch norm over all shards together. */
class ReplicasTest {
    private static List<Device> devices;

    @BeforeAll
    static void open() {
        devices = Device.open(Rig.SELECTOR + ":4");
    }

    @AfterAll
    static void close() {
        devices.forEach(Device::close);
        assertEquals(0, Device.liveHandles());
    }

    /** The layers of a group and a step's tensors, one of each for every device. */
    private static final class Group implements AutoCloseable {
        final List<BatchNorm> layers = new ArrayList<>();
        final List<Rig> rigs = new ArrayList<>();
        final List<Input> xs = new ArrayList<>();
        final List<Tensor> ys = new ArrayList<>();
        final List<Tensor> dys = new ArrayList<>();
        final List<Gradients> outs = new ArrayList<>();
        final Replicas replicas;

        Group(BatchNormSpec spec, Tuning tuning, int count) {
            for (Device device : devices.subList(0, count)) {
                layers.add(BatchNorm.open(device, spec, tuning));
                rigs.add(new Rig(device));
            }
            replicas = Replicas.of(layers);
        }

        void shards(List<float[]> x, List<float[]> dy, int c, int s, Layout layout) {
            xs.clear();
            ys.clear();
            dys.clear();
            outs.clear();
            for (int i = 0; i < layers.size(); i++) {
                Rig rig = rigs.get(i);
                int length = x.get(i).length;
                long[] shape = Rig.shape(layout, length / (c * s), c, s);
                xs.add(Input.of(rig.tensor(x.get(i), layout, shape)));
                ys.add(rig.tensor(new float[length], layout, shape));
                dys.add(rig.tensor(dy.get(i), layout, shape));
                Tensor dx = rig.tensor(new float[length], layout, shape);
                outs.add(Gradients.of(dx, rig.floats(c), rig.floats(c)));
            }
        }

        @Override
        public void close() {
            layers.forEach(BatchNorm::close);
            rigs.forEach(Rig::close);
        }
    }

    @ParameterizedTest
    @CsvSource({"WIDE,CHANNELS_FIRST", "WIDE,CHANNELS_LAST", "COOPERATIVE,CHANNELS_FIRST", "COOPERATIVE,CHANNELS_LAST"})
    void equalsTheUnshardedReference(Family family, Layout layout) {
        int[][] splits = {{4}, {1, 3}, {5, 0}, {0, 2}, {2, 2, 2}, {7, 0, 1}, {1, 1, 1, 1}, {3, 0, 33, 2}};
        Random random = new Random(1);
        for (int[] sizes : splits) {
            for (int[] cs : new int[][] {{3, 49}, {17, 7}, {64, 1}, {5, 400}}) {
                check(random, Tuning.of(family), layout, sizes, cs[0], cs[1]);
            }
        }
    }

    private static void check(Random random, Tuning tuning, Layout layout, int[] sizes, int c, int s) {
        int n = IntStream.of(sizes).sum();
        String what = tuning.family() + " " + layout + " "
                + List.of(IntStream.of(sizes).boxed().toArray()) + " C=" + c + " S=" + s;
        float[] x = Rig.perChannel(random, n, c, s, layout);
        float[] dy = Rig.normal(random, x.length);
        float[] gamma = Rig.normal(random, c);
        List<float[]> shards = split(x, sizes, c * s);
        List<float[]> dyShards = split(dy, sizes, c * s);
        BatchNormReference reference = new BatchNormReference(c, s, layout == Layout.CHANNELS_LAST);
        Statistics stats = reference.statistics(List.of(Rig.doubles(x)));
        double[] wideGamma = Rig.doubles(gamma);
        double[] y = reference.forward(stats, 1e-5, wideGamma, new double[c], Rig.doubles(x));
        List<BatchNormReference.Gradients> expected =
                reference.backward(stats, true, 1e-5, wideGamma, wide(shards), wide(dyShards));
        try (Group group = new Group(BatchNormSpec.of(c), tuning, sizes.length)) {
            group.shards(shards, dyShards, c, s, layout);
            group.layers.forEach(layer -> layer.gamma().write(gamma));
            List<Saved> saved = group.replicas.forward(group.xs, group.ys);
            group.replicas.backward(saved, group.xs, group.dys, group.outs);
            for (int i = 0; i < sizes.length; i++) {
                group.layers.get(i).commit(saved.get(i));
            }
            int at = 0;
            for (int i = 0; i < sizes.length; i++) {
                float[] got = Rig.read(group.ys.get(i));
                for (int j = 0; j < got.length; j++) {
                    assertEquals(y[at + j], got[j], 2e-6 * 5, what + " y");
                }
                at += got.length;
                close(expected.get(i).dx(), Rig.read(group.outs.get(i).dx()), 4e-5, what + " dx");
                close(expected.get(i).dGamma(), Rig.read(group.outs.get(i).dGamma()), 4e-5, what + " dGamma");
                close(expected.get(i).dBeta(), Rig.read(group.outs.get(i).dBeta()), 4e-5, what + " dBeta");
                assertEquals((long) n * s, saved.get(i).count());
            }
            sameBits(group, saved);
        }
    }

    private static void sameBits(Group group, List<Saved> saved) {
        for (int i = 1; i < saved.size(); i++) {
            assertArrayEquals(saved.get(0).mean(), saved.get(i).mean());
            assertArrayEquals(saved.get(0).invStd(), saved.get(i).invStd());
            assertArrayEquals(saved.get(0).variance(), saved.get(i).variance());
            assertArrayEquals(
                    Rig.read(group.layers.get(0).runningMean()),
                    Rig.read(group.layers.get(i).runningMean()));
            assertArrayEquals(
                    Rig.read(group.layers.get(0).runningVar()),
                    Rig.read(group.layers.get(i).runningVar()));
        }
    }

    private static void close(double[] expected, float[] got, double tolerance, String what) {
        assertArrayEquals(expected, Rig.doubles(got), tolerance, what);
    }

    private static List<float[]> split(float[] all, int[] sizes, int each) {
        List<float[]> parts = new ArrayList<>();
        int at = 0;
        for (int size : sizes) {
            parts.add(java.util.Arrays.copyOfRange(all, at, at + size * each));
            at += size * each;
        }
        return parts;
    }

    private static List<double[]> wide(List<float[]> shards) {
        return shards.stream().map(Rig::doubles).toList();
    }

    @Test
    void oneReplicaHasTheBitsOfALayerAlone() {
        Random random = new Random(4);
        float[] x = Rig.perChannel(random, 6, 5, 30, Layout.CHANNELS_FIRST);
        float[] dy = Rig.normal(random, x.length);
        Tuning tuning = Tuning.NONE.withFused(false);
        try (Group group = new Group(BatchNormSpec.of(5), tuning, 1);
                BatchNorm alone = BatchNorm.open(devices.get(0), BatchNormSpec.of(5), tuning)) {
            group.shards(List.of(x), List.of(dy), 5, 30, Layout.CHANNELS_FIRST);
            List<Saved> saved = group.replicas.forward(group.xs, group.ys);
            group.replicas.backward(saved, group.xs, group.dys, group.outs);
            float[] y = Rig.read(group.ys.get(0));
            float[] dx = Rig.read(group.outs.get(0).dx());
            try (Saved own = alone.forward(Mode.TRAINING, group.xs.get(0), group.ys.get(0))) {
                alone.backward(own, group.xs.get(0), group.dys.get(0), group.outs.get(0));
            }
            assertArrayEquals(Rig.read(group.ys.get(0)), y);
            assertArrayEquals(Rig.read(group.outs.get(0).dx()), dx);
        }
    }

    @Test
    void tenStepsKeepTheReplicasAlike() {
        Random random = new Random(6);
        double[] mean = new double[4];
        try (Group group = new Group(BatchNormSpec.of(4), Tuning.NONE, 3)) {
            for (int step = 0; step < 10; step++) {
                float[] x = Rig.perChannel(random, 6, 4, 9, Layout.CHANNELS_LAST);
                int[] sizes = {step % 3, 3 - step % 3, 3};
                List<float[]> shards = split(x, sizes, 36);
                group.shards(shards, shards, 4, 9, Layout.CHANNELS_LAST);
                List<Saved> saved = group.replicas.forward(group.xs, group.ys);
                for (int i = 0; i < 3; i++) {
                    group.layers.get(i).commit(saved.get(i));
                }
                Statistics stats = new BatchNormReference(4, 9, true).statistics(List.of(Rig.doubles(x)));
                for (int c = 0; c < 4; c++) {
                    mean[c] = 0.9 * mean[c] + 0.1 * stats.mean()[c];
                }
                sameBits(group, saved);
                saved.forEach(Saved::close);
                assertArrayEquals(mean, Rig.doubles(Rig.read(group.layers.get(0).runningMean())), 1e-5);
            }
        }
    }

    @Test
    void oneValueAReplicaIsFineAndOneInAllIsNot() {
        try (Group group = new Group(BatchNormSpec.of(2), Tuning.NONE, 2)) {
            group.shards(
                    List.of(new float[] {1, 2}, new float[] {3, 6}),
                    List.of(new float[2], new float[2]),
                    2,
                    1,
                    Layout.CHANNELS_FIRST);
            List<Saved> saved = group.replicas.forward(group.xs, group.ys);
            assertArrayEquals(new double[] {2, 4}, saved.get(1).mean());
            IllegalArgumentException cut = assertThrows(
                    IllegalArgumentException.class,
                    () -> group.layers
                            .get(0)
                            .backward(saved.get(0), group.xs.get(0), group.dys.get(0), group.outs.get(0)));
            assertTrue(cut.getMessage().contains("needs the merged sums"), cut.getMessage());
            group.shards(
                    List.of(new float[] {1, 2}, new float[0]),
                    List.of(new float[2], new float[0]),
                    2,
                    1,
                    Layout.CHANNELS_FIRST);
            assertThrows(IllegalArgumentException.class, () -> group.replicas.forward(group.xs, group.ys));
        }
    }

    @Test
    void namesTheReplicaThatDiffers() {
        try (BatchNorm a = BatchNorm.open(devices.get(0), BatchNormSpec.of(2));
                BatchNorm b = BatchNorm.open(devices.get(1), BatchNormSpec.of(2).withEps(1e-3));
                BatchNorm c = BatchNorm.open(devices.get(2), BatchNormSpec.of(2))) {
            refused("replica 1=", () -> Replicas.of(List.of(a, b)));
            refused("replica=1", () -> Replicas.of(List.of(a, a)));
            refused("at least one", () -> Replicas.of(List.of()));
            Replicas group = Replicas.of(List.of(a, c));
            c.batchesTracked(3);
            Buffer none = devices.get(0).allocate(0);
            Tensor empty = Tensor.of(none, Layout.CHANNELS_FIRST, 0, 2);
            refused(
                    "replica 1 batches=3",
                    () -> group.forward(List.of(Input.of(empty), Input.of(empty)), List.of(empty, empty)));
            refused("xs=1, replicas=2", () -> group.forward(List.of(Input.of(empty)), List.of(empty)));
            none.close();
        }
    }

    private static void refused(String contains, Runnable call) {
        String message = assertThrows(IllegalArgumentException.class, call::run).getMessage();
        assertTrue(message.contains(contains), message);
    }
}
