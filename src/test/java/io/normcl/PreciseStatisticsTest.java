package io.normcl;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.normcl.device.Device;
import io.normcl.reference.NormReference;
import io.normcl.reference.NormReference.Statistics;
import io.normcl.sync.ChannelAverages;
import io.normcl.sync.ChannelMoments;
import io.normcl.tensor.Layout;
import io.normcl.tensor.Tensor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** The running statistics of a network's norms, estimated again over many batches. */
class PreciseStatisticsTest {
    private static final int C = 6;
    private static final int S = 21;
    private static Device device;

    @BeforeAll
    static void open() {
        device = Rig.open();
    }

    @AfterAll
    static void close() {
        device.close();
        assertEquals(0, Device.liveHandles());
    }

    private static Tensor tensor(Rig rig, float[] x, Layout layout) {
        return rig.tensor(x, layout, Rig.shape(layout, x.length / (C * S), C, S));
    }

    private static List<Saved> forward(Rig rig, BatchNorm batch, InstanceNorm instance, float[] x, Layout layout) {
        Tensor in = tensor(rig, x, layout);
        Tensor out = tensor(rig, new float[x.length], layout);
        return List.of(batch.forward(in, out), instance.forward(in, out));
    }

    @ParameterizedTest
    @EnumSource(Layout.class)
    void poolsAllBatchesWhateverWasThere(Layout layout) {
        Random random = new Random(4);
        try (Rig rig = new Rig(device);
                BatchNorm batch = BatchNorm.open(device, BatchNormSpec.of(C));
                InstanceNorm instance =
                        InstanceNorm.open(device, InstanceNormSpec.of(C).withRunningStatistics(true))) {
            float[] poison = new float[C];
            Arrays.fill(poison, Float.NaN);
            batch.runningMean().write(poison);
            batch.runningVar().write(poison);
            instance.runningMean().write(poison);
            instance.runningVar().write(poison);
            batch.batchesTracked(5);

            PreciseStatistics precise = new PreciseStatistics();
            ChannelMoments moments = new ChannelMoments(C);
            ChannelAverages averages = new ChannelAverages(C);
            List<Float> values = new ArrayList<>();
            for (int n : new int[] {4, 0, 1, 7}) {
                float[] x = Rig.perChannel(random, n, C, S, layout);
                List<Saved> saved = forward(rig, batch, instance, x, layout);
                precise.add(saved);
                moments.merge(saved.get(0).moments());
                averages.add(instance.averages(saved.get(1)));
                saved.forEach(Saved::close);
                for (float value : x) {
                    values.add(value);
                }

                float[] spoilt = Rig.perChannel(random, 2, C, S, layout);
                spoilt[spoilt.length / 2] = Float.NEGATIVE_INFINITY;
                List<Saved> bad = forward(rig, batch, instance, spoilt, layout);
                List<Saved> instanceFirst =
                        List.of(forward(rig, batch, instance, x, layout).get(0), bad.get(1));
                assertThrows(ArithmeticException.class, () -> precise.add(bad));
                assertThrows(ArithmeticException.class, () -> precise.add(instanceFirst));
            }
            assertTrue(Float.isNaN(Rig.read(batch.runningMean())[0]), "nothing moves before the end");
            precise.replace();
            float[][] got = {
                Rig.read(batch.runningMean()), Rig.read(batch.runningVar()),
                Rig.read(instance.runningMean()), Rig.read(instance.runningVar())
            };
            batch.replaceRunning(moments);
            instance.replaceRunning(averages);
            assertArrayEquals(Rig.read(batch.runningMean()), got[0]);
            assertArrayEquals(Rig.read(batch.runningVar()), got[1]);
            assertArrayEquals(Rig.read(instance.runningMean()), got[2]);
            assertArrayEquals(Rig.read(instance.runningVar()), got[3]);
            assertEquals(5, batch.batchesTracked());

            double[] all = values.stream().mapToDouble(value -> value).toArray();
            boolean last = layout == Layout.CHANNELS_LAST;
            NormReference one = NormReference.batchNorm(12, C, S, last);
            NormReference each = NormReference.instanceNorm(12, C, S, last);
            // Each batch's variance was rounded to a float, and their pool once more; a mean only at the end.
            near(updated(one, all), got[0], got[1]);
            near(updated(each, all), got[2], got[3]);
        }
    }

    private static double[][] updated(NormReference reference, double[] x) {
        Statistics statistics = reference.statistics(x);
        double[][] running = {new double[C], new double[C]};
        reference.update(statistics, 1, true, running[0], running[1]);
        return running;
    }

    private static void near(double[][] expected, float[] mean, float[] variance) {
        for (int c = 0; c < C; c++) {
            assertEquals(expected[0][c], mean[c], 1.01 * 0x1p-24 * Math.abs(expected[0][c]));
            assertEquals(expected[1][c], variance[c], 2.01 * 0x1p-24 * expected[1][c]);
        }
    }

    @ParameterizedTest
    @EnumSource(Layout.class)
    void refusesWhatHasNoStatisticsOfTheBatch(Layout layout) {
        try (Rig rig = new Rig(device);
                BatchNorm norm = BatchNorm.open(device, BatchNormSpec.of(C));
                BatchNorm frozen = BatchNorm.open(device, BatchNormSpec.of(C).withFrozen(true));
                BatchNorm without = BatchNorm.open(device, BatchNormSpec.of(C).withRunningStatistics(false));
                InstanceNorm instance = InstanceNorm.open(device, InstanceNormSpec.of(C));
                GroupNorm group = GroupNorm.open(device, GroupNormSpec.of(2, C))) {
            Tensor x = tensor(rig, Rig.normal(new Random(1), 2 * C * S), layout);
            Tensor y = tensor(rig, new float[2 * C * S], layout);
            PreciseStatistics precise = new PreciseStatistics();
            Saved good = norm.forward(x, y);
            for (Saved bad : List.of(
                    norm.forward(Mode.EVALUATION, x, y),
                    frozen.forward(x, y),
                    without.forward(x, y),
                    instance.forward(x, y),
                    group.forward(x, y))) {
                String message = assertThrows(IllegalArgumentException.class, () -> precise.add(List.of(good, bad)))
                        .getMessage();
                assertEquals(1, message.lines().count());
            }
            precise.replace(); // nothing was added
            assertArrayEquals(new float[C], Rig.read(norm.runningMean()));
            Tensor empty = tensor(rig, new float[0], layout);
            precise.add(List.of(norm.forward(empty, empty)));
            assertThrows(IllegalArgumentException.class, precise::replace);
        }
    }
}
