package io.normcl;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.normcl.BatchNormSpec.SingleValue;
import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.plan.Family;
import io.normcl.plan.Tuning;
import io.normcl.reference.NormReference;
import io.normcl.reference.NormReference.Statistics;
import io.normcl.sync.ChannelMoments;
import io.normcl.sync.ChannelSums;
import io.normcl.tensor.Activation;
import io.normcl.tensor.Layout;
import io.normcl.tensor.Lengths;
import io.normcl.tensor.Tensor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Batch norm over micro-batches is batch norm over the large batch; and what its commits do with odd statistics. */
class MicroBatchTest {
    private static final Layout FIRST = Layout.CHANNELS_FIRST;
    private static final double ULP = 0x1p-24; // half a unit in the last place, of values from 1 to 2
    private static Device device;
    private final List<AutoCloseable> closing = new ArrayList<>();
    private Rig rig;

    @BeforeAll
    static void open() {
        device = Rig.open();
    }

    @AfterAll
    static void close() {
        device.close();
        assertEquals(0, Device.liveHandles());
    }

    @BeforeEach
    void start() {
        rig = new Rig(device);
    }

    @AfterEach
    void end() throws Exception {
        for (AutoCloseable each : closing) {
            each.close();
        }
        rig.close();
    }

    /** A batch on the host, and what there is of it. */
    @SuppressWarnings("ArrayRecordComponent") // compared by nobody
    private record Batch(Layout layout, int c, int s, float[] x, float[] z, float[] dy, int[] lengths) {
        static Batch random(Random random, Layout layout, int n, int c, int s) {
            float[] x = Rig.perChannel(random, n, c, s, layout);
            int[] lengths = random.ints(n, 0, s + 1).toArray();
            return new Batch(layout, c, s, x, Rig.normal(random, x.length), Rig.normal(random, x.length), lengths);
        }

        int n() {
            return x.length / (c * s);
        }

        Batch part(int from, int to) {
            int each = c * s;
            return new Batch(
                    layout,
                    c,
                    s,
                    Arrays.copyOfRange(x, from * each, to * each),
                    Arrays.copyOfRange(z, from * each, to * each),
                    Arrays.copyOfRange(dy, from * each, to * each),
                    Arrays.copyOfRange(lengths, from, to));
        }
    }

    /** A batch on the device, and what a pass over it gives. */
    private final class Pass {
        final Input in;
        final Tensor y;
        final Tensor dy;
        final Tensor dx;
        final Tensor dz;

        Pass(Batch batch, boolean residual, boolean masked) {
            long[] shape = Rig.shape(batch.layout, batch.n(), batch.c, batch.s);
            Input input = Input.of(rig.tensor(batch.x, batch.layout, shape));
            input = residual ? input.withResidual(rig.tensor(batch.z, batch.layout, shape)) : input;
            if (masked) {
                Lengths lengths = Lengths.of(device, batch.lengths);
                closing.add(lengths);
                input = input.withLengths(lengths);
            }
            in = input;
            dy = rig.tensor(batch.dy, batch.layout, shape);
            y = rig.tensor(filled(batch.x.length, Float.NaN), batch.layout, shape);
            dx = rig.tensor(filled(batch.x.length, Float.NaN), batch.layout, shape);
            dz = rig.tensor(filled(batch.x.length, Float.NaN), batch.layout, shape);
        }

        Gradients gradients(Buffer dGamma, Buffer dBeta, boolean residual, boolean accumulate) {
            Gradients out = Gradients.of(dx, dGamma, dBeta).withAccumulate(accumulate);
            return residual ? out.withDz(dz) : out;
        }
    }

    /** What a step gives. */
    @SuppressWarnings("ArrayRecordComponent") // compared by nobody
    private record Step(
            float[] y, float[] dx, float[] dz, float[] dGamma, float[] dBeta, float[] runningMean, float[] runningVar) {
        List<float[]> all() {
            return List.of(y, dx, dz, dGamma, dBeta, runningMean, runningVar);
        }
    }

    private static float[] filled(int count, float value) {
        float[] values = new float[count];
        Arrays.fill(values, value);
        return values;
    }

    private static float[] joined(List<float[]> parts) {
        float[] all = new float[parts.stream().mapToInt(part -> part.length).sum()];
        int at = 0;
        for (float[] part : parts) {
            System.arraycopy(part, 0, all, at, part.length);
            at += part.length;
        }
        return all;
    }

    private static BatchNorm layer(BatchNormSpec spec, Tuning tuning) {
        BatchNorm norm = BatchNorm.open(device, spec, tuning);
        Random random = new Random(77);
        norm.gamma().write(Rig.normal(random, spec.channels()));
        norm.beta().write(Rig.normal(random, spec.channels()));
        return norm;
    }

    private Step large(BatchNormSpec spec, Tuning tuning, Batch batch, boolean residual, boolean masked) {
        Pass pass = new Pass(batch, residual, masked);
        Buffer dGamma = rig.floats(filled(batch.c, 3));
        Buffer dBeta = rig.floats(filled(batch.c, -2));
        try (BatchNorm norm = layer(spec, tuning)) {
            try (Saved saved = norm.forward(Mode.TRAINING, pass.in, pass.y)) {
                norm.backward(saved, pass.in, pass.dy, pass.gradients(dGamma, dBeta, residual, true));
                norm.commit(saved);
            }
            return new Step(
                    Rig.read(pass.y),
                    Rig.read(pass.dx),
                    residual ? Rig.read(pass.dz) : new float[0],
                    Rig.read(dGamma),
                    Rig.read(dBeta),
                    Rig.read(norm.runningMean()),
                    Rig.read(norm.runningVar()));
        }
    }

    /** A step as a trainer accumulates it; the running statistics by the moments or by one of the saved values. */
    private Step micro(
            BatchNormSpec spec,
            Tuning tuning,
            Batch batch,
            int[] sizes,
            boolean residual,
            boolean masked,
            boolean bySaved) {
        List<Pass> passes = new ArrayList<>();
        int from = 0;
        for (int size : sizes) {
            passes.add(new Pass(batch.part(from, from + size), residual, masked));
            from += size;
        }
        Buffer dGamma = rig.floats(filled(batch.c, 3));
        Buffer dBeta = rig.floats(filled(batch.c, -2));
        try (BatchNorm norm = layer(spec, tuning)) {
            ChannelMoments moments = new ChannelMoments(batch.c);
            passes.forEach(pass -> moments.merge(norm.moments(pass.in)));
            requireMoments(batch, masked, moments);
            List<Saved> saved = new ArrayList<>();
            passes.forEach(pass -> saved.add(norm.forward(pass.in, pass.y, moments)));
            ChannelSums sums = new ChannelSums(batch.c);
            for (int i = 0; i < sizes.length; i++) {
                Pass pass = passes.get(i);
                Gradients out = pass.gradients(dGamma, dBeta, residual, true);
                sums.add(norm.sums(saved.get(i), pass.in, pass.dy, out));
            }
            for (int i = 0; i < sizes.length; i++) {
                Pass pass = passes.get(i);
                norm.backward(saved.get(i), pass.in, pass.dy, pass.gradients(null, null, residual, false), sums);
            }
            assertEquals(0, norm.batchesTracked());
            if (bySaved) {
                norm.commit(saved.get(sizes.length - 1));
            } else {
                norm.commit(moments, NonFinite.REFUSE);
            }
            assertEquals(1, norm.batchesTracked());
            saved.forEach(Saved::close);
            return new Step(
                    joined(passes.stream().map(pass -> Rig.read(pass.y)).toList()),
                    joined(passes.stream().map(pass -> Rig.read(pass.dx)).toList()),
                    residual
                            ? joined(passes.stream()
                                    .map(pass -> Rig.read(pass.dz))
                                    .toList())
                            : new float[0],
                    Rig.read(dGamma),
                    Rig.read(dBeta),
                    Rig.read(norm.runningMean()),
                    Rig.read(norm.runningVar()));
        }
    }

    private static NormReference reference(Batch batch, boolean masked) {
        boolean last = batch.layout == Layout.CHANNELS_LAST;
        NormReference reference = NormReference.batchNorm(batch.n(), batch.c, batch.s, last);
        return masked
                ? reference.withCounted(
                        NormReference.counted(batch.n(), batch.c, batch.s, last, batch.s, batch.lengths))
                : reference;
    }

    private static void requireMoments(Batch batch, boolean masked, ChannelMoments moments) {
        Statistics expected = reference(batch, masked).statistics(Rig.doubles(batch.x));
        assertArrayEquals(expected.mean(), moments.means(), 1e-12);
        for (int c = 0; c < batch.c; c++) {
            assertEquals(expected.count()[c], (long) moments.count(c));
            assertEquals(expected.variance()[c], moments.variance(c), 1e-11 * expected.variance()[c]);
        }
    }

    private static double largest(float[] values) {
        double largest = 0;
        for (float value : values) {
            largest = Math.max(largest, Math.abs(value));
        }
        return largest;
    }

    private static void near(float[] expected, float[] got, double tolerance, String what) {
        assertArrayEquals(Rig.doubles(expected), Rig.doubles(got), tolerance, what);
    }

    @ParameterizedTest
    @CsvSource({
        "WIDE,CHANNELS_FIRST,false", "WIDE,CHANNELS_FIRST,true",
        "WIDE,CHANNELS_LAST,false", "WIDE,CHANNELS_LAST,true",
        "COOPERATIVE,CHANNELS_FIRST,false", "COOPERATIVE,CHANNELS_FIRST,true",
        "COOPERATIVE,CHANNELS_LAST,false", "COOPERATIVE,CHANNELS_LAST,true"
    })
    void equalsTheLargeBatch(Family family, Layout layout, boolean masked) {
        Random random = new Random(21);
        int[] sizes = {3, 0, 5, 1};
        for (boolean residual : new boolean[] {false, true}) {
            BatchNormSpec spec = BatchNormSpec.of(17).withActivation(residual ? Activation.SILU : Activation.NONE);
            Batch batch = Batch.random(random, layout, 9, 17, 29);
            Step large = large(spec, Tuning.of(family), batch, residual, masked);
            Step micro = micro(spec, Tuning.of(family), batch, sizes, residual, masked, false);
            String what = family + " " + layout + " masked=" + masked + " residual=" + residual;
            // The statistics differ in their last place at most, and the sums' means too; then each element is rounded
            // as often on both sides.
            near(large.y, micro.y, 4 * ULP * largest(large.y), what + " y");
            near(large.dx, micro.dx, 8 * ULP * largest(large.dx), what + " dx");
            near(large.dz, micro.dz, 8 * ULP * largest(large.dz), what + " dz");
            // One more rounding for each micro-batch, of sums that stay below the sum of all sizes.
            double size = 9 * 29 * 0.8;
            near(large.dGamma, micro.dGamma, 2 * ULP * size, what + " dGamma");
            near(large.dBeta, micro.dBeta, 2 * ULP * size, what + " dBeta");
            near(large.runningMean, micro.runningMean, ULP * largest(large.runningMean), what + " running mean");
            near(large.runningVar, micro.runningVar, 2 * ULP * largest(large.runningVar), what + " running variance");

            Step again = micro(spec, Tuning.of(family), batch, sizes, residual, masked, true);
            for (int i = 0; i < micro.all().size(); i++) {
                assertArrayEquals(micro.all().get(i), again.all().get(i), what + " again, array " + i);
            }
        }
    }

    @ParameterizedTest
    @CsvSource({"WIDE,CHANNELS_FIRST", "WIDE,CHANNELS_LAST", "COOPERATIVE,CHANNELS_FIRST", "COOPERATIVE,CHANNELS_LAST"})
    void oneMicroBatchHasTheBitsOfTheUnfusedBatch(Family family, Layout layout) {
        Batch batch = Batch.random(new Random(5), layout, 6, 19, 40);
        Tuning tuning = Tuning.of(family).withFused(false);
        Step large = large(BatchNormSpec.of(19), tuning, batch, false, false);
        Step micro = micro(BatchNormSpec.of(19), tuning, batch, new int[] {6}, false, false, false);
        for (int i = 0; i < large.all().size(); i++) {
            assertArrayEquals(large.all().get(i), micro.all().get(i), "array " + i);
        }
    }

    @ParameterizedTest
    @CsvSource({"WIDE,CHANNELS_FIRST", "WIDE,CHANNELS_LAST", "COOPERATIVE,CHANNELS_FIRST", "COOPERATIVE,CHANNELS_LAST"})
    void savedMomentsPoolByCount(Family family, Layout layout) {
        Batch batch = Batch.random(new Random(8), layout, 7, 5, 33);
        int[][] cuts = {{0, 4}, {4, 4}, {4, 7}};
        for (RunningVariance which : RunningVariance.values()) {
            BatchNormSpec spec = BatchNormSpec.of(5).withRunningVariance(which);
            try (BatchNorm norm = BatchNorm.open(device, spec, Tuning.of(family))) {
                norm.runningMean().write(filled(5, Float.NaN));
                norm.runningVar().write(filled(5, Float.NaN));
                norm.batchesTracked(9);
                ChannelMoments all = new ChannelMoments(5);
                for (int[] cut : cuts) {
                    Pass pass = new Pass(batch.part(cut[0], cut[1]), false, true);
                    try (Saved saved = norm.forward(Mode.TRAINING, pass.in, pass.y)) {
                        all.merge(saved.moments());
                    }
                }
                norm.replaceRunning(all);
                Statistics expected = reference(batch, true).statistics(Rig.doubles(batch.x));
                double[] mean = expected.mean();
                double[] variance = expected.variance();
                for (int c = 0; c < 5; c++) {
                    long m = expected.count()[c];
                    double factor = which == RunningVariance.UNBIASED ? m / (m - 1.0) : 1;
                    assertEquals(mean[c], Rig.read(norm.runningMean())[c], ULP * Math.abs(mean[c]));
                    // The variance of each batch was rounded to a float, and their pool is again.
                    double own = variance[c] * factor;
                    assertEquals(own, Rig.read(norm.runningVar())[c], 2.5 * ULP * own);
                }
                assertEquals(9, norm.batchesTracked());
            }
        }
    }

    // Commits.

    /** Twelve values of three channels, of which the second may be spoilt. */
    private Tensor[] spoilt(Layout layout, float bad) {
        float[] x = Rig.perChannel(new Random(3), 40, 3, 25, layout);
        if (!Float.isFinite(bad)) {
            x[layout == Layout.CHANNELS_LAST ? 3 * 700 + 1 : 75 * 30 + 26] = bad;
        }
        return new Tensor[] {
            rig.tensor(x, layout, Rig.shape(layout, 40, 3, 25)),
            rig.tensor(new float[x.length], layout, Rig.shape(layout, 40, 3, 25))
        };
    }

    private static float[][] running(BatchNorm norm) {
        return new float[][] {Rig.read(norm.runningMean()), Rig.read(norm.runningVar())};
    }

    @ParameterizedTest
    @CsvSource({"WIDE,CHANNELS_FIRST", "WIDE,CHANNELS_LAST", "COOPERATIVE,CHANNELS_FIRST", "COOPERATIVE,CHANNELS_LAST"})
    void aNonFiniteChannelLeavesTheOthersExact(Family family, Layout layout) {
        for (float bad : new float[] {Float.NaN, Float.POSITIVE_INFINITY, Float.NEGATIVE_INFINITY}) {
            for (boolean byMoments : new boolean[] {false, true}) {
                for (Boolean fused : new Boolean[] {null, false}) {
                    policies(Tuning.NONE.withFamily(family).withFused(fused), layout, bad, byMoments);
                }
            }
        }
    }

    private void policies(Tuning tuning, Layout layout, float bad, boolean byMoments) {
        Tensor[] clean = spoilt(layout, 0);
        Tensor[] dirty = spoilt(layout, bad);
        String what = tuning + " " + layout + " " + bad + " by moments=" + byMoments;
        for (NonFinite policy : NonFinite.values()) {
            try (BatchNorm expected = BatchNorm.open(device, BatchNormSpec.of(3), tuning);
                    BatchNorm norm = BatchNorm.open(device, BatchNormSpec.of(3), tuning)) {
                commit(expected, clean, policy, byMoments);
                if (policy == NonFinite.REFUSE) {
                    String message = assertThrows(
                                    ArithmeticException.class, () -> commit(norm, dirty, policy, byMoments), what)
                            .getMessage();
                    assertTrue(message.contains("channel=1"), message);
                    assertArrayEquals(new float[3], running(norm)[0], what);
                    assertArrayEquals(filled(3, 1), running(norm)[1], what);
                    assertEquals(0, norm.batchesTracked());
                } else {
                    commit(norm, dirty, policy, byMoments);
                    for (int i = 0; i < 2; i++) {
                        float[] wanted = running(expected)[i];
                        float[] got = running(norm)[i];
                        assertEquals(wanted[0], got[0], what);
                        assertEquals(wanted[2], got[2], what);
                        if (policy == NonFinite.SKIP) {
                            assertEquals(i, got[1], what);
                        } else {
                            assertFalse(Float.isFinite(got[1]), what);
                        }
                    }
                    assertEquals(1, norm.batchesTracked());
                    ChannelMoments bad1 = norm.moments(Input.of(dirty[0]));
                    assertThrows(ArithmeticException.class, () -> norm.replaceRunning(bad1));
                    norm.replaceRunning(norm.moments(Input.of(clean[0])));
                    assertTrue(Float.isFinite(running(norm)[0][1]) && Float.isFinite(running(norm)[1][1]), what);
                    assertEquals(1, norm.batchesTracked());
                }
            }
        }
    }

    private static void commit(BatchNorm norm, Tensor[] xy, NonFinite policy, boolean byMoments) {
        if (byMoments) {
            norm.commit(norm.moments(Input.of(xy[0])), policy);
            return;
        }
        try (Saved saved = norm.forward(xy[0], xy[1])) {
            norm.commit(saved, policy);
        }
    }

    @Test
    void momentsOfNothingCountAndMoveNothing() {
        for (NonFinite policy : NonFinite.values()) {
            try (BatchNorm norm = BatchNorm.open(device, BatchNormSpec.of(2));
                    Lengths none = Lengths.of(device, 0, 0)) {
                Tensor x = rig.tensor(Rig.normal(new Random(1), 12), FIRST, 2, 2, 3);
                Tensor y = rig.tensor(filled(12, 7), FIRST, 2, 2, 3);
                Tensor other = rig.tensor(filled(12, 7), FIRST, 2, 2, 3);
                Tensor dx = rig.tensor(filled(12, 7), FIRST, 2, 2, 3);
                Buffer dGamma = rig.floats(filled(2, 7));
                Buffer dBeta = rig.floats(filled(2, 7));
                Input in = Input.of(x).withLengths(none);
                ChannelMoments moments = norm.moments(in);
                assertEquals(0, moments.count(0));
                try (Saved merged = norm.forward(in, y, moments);
                        Saved alone = norm.forward(Mode.TRAINING, in, other)) {
                    ChannelSums sums = norm.sums(merged, in, x, Gradients.of(dx, dGamma, dBeta));
                    norm.backward(merged, in, x, Gradients.of(dx, null, null), sums);
                    norm.commit(merged, policy);
                    norm.commit(alone, policy);
                    assertEquals(0, alone.moments().count(1));
                    for (Saved saved : List.of(merged, alone)) {
                        assertArrayEquals(new double[2], saved.mean());
                        assertArrayEquals(new float[2], saved.invStd());
                    }
                }
                norm.commit(moments, policy);
                for (float[] zeros :
                        List.of(Rig.read(y), Rig.read(other), Rig.read(dx), Rig.read(dGamma), Rig.read(dBeta))) {
                    assertArrayEquals(new float[zeros.length], zeros);
                }
                assertArrayEquals(new float[2], Rig.read(norm.runningMean()));
                assertArrayEquals(filled(2, 1), Rig.read(norm.runningVar()));
                assertEquals(3, norm.batchesTracked());
            }
        }
    }

    @Test
    void momentsFollowThePolicyOfASingleValue() {
        Tensor x = rig.tensor(new float[] {5, 6}, FIRST, 1, 2);
        Tensor y = rig.tensor(new float[2], FIRST, 1, 2);
        for (SingleValue policy : SingleValue.values()) {
            try (BatchNorm norm = BatchNorm.open(device, BatchNormSpec.of(2).withSingleValue(policy))) {
                ChannelMoments moments = norm.moments(Input.of(x));
                switch (policy) {
                    case REFUSE -> {
                        refused("more than one value", () -> norm.forward(Input.of(x), y, moments));
                        refused("more than one value", () -> norm.commit(moments, NonFinite.PROPAGATE));
                    }
                    case USE_RUNNING -> {
                        refused("takes the batch's", () -> norm.forward(Input.of(x), y, moments));
                        norm.commit(moments, NonFinite.PROPAGATE);
                    }
                    case ALLOW -> {
                        norm.forward(Input.of(x), y, moments).close();
                        norm.commit(moments, NonFinite.PROPAGATE);
                    }
                }
                boolean moved = policy == SingleValue.ALLOW;
                float[] mean = moved ? new float[] {0.5f, 0.6f} : new float[2];
                assertArrayEquals(mean, Rig.read(norm.runningMean()), 1e-7f);
                assertArrayEquals(filled(2, 1), Rig.read(norm.runningVar()));
                assertEquals(moved ? 1 : 0, norm.batchesTracked());
                refused("more than one value per channel", () -> norm.replaceRunning(moments));
            }
        }
        try (BatchNorm norm = BatchNorm.open(device, BatchNormSpec.of(2))) {
            ChannelMoments two = norm.moments(Input.of(x)); // micro-batches of one sample each are fine
            two.merge(norm.moments(Input.of(rig.tensor(new float[] {7, 8}, FIRST, 1, 2))));
            norm.forward(Input.of(x), y, two).close();
            norm.commit(two, NonFinite.PROPAGATE);
            assertArrayEquals(new float[] {0.6f, 0.7f}, Rig.read(norm.runningMean()), 1e-7f);
            assertArrayEquals(filled(2, 0.9f + 0.1f * 2), Rig.read(norm.runningVar()), 1e-6f);
            assertArrayEquals(filled(2, -0.999995f), Rig.read(y), 1e-6f);
        }
    }

    @Test
    void frozenMovesByNoMoments() {
        Tensor x = rig.tensor(Rig.normal(new Random(1), 12), FIRST, 2, 2, 3);
        Tensor y = rig.tensor(new float[12], FIRST, 2, 2, 3);
        try (BatchNorm norm = BatchNorm.open(device, BatchNormSpec.of(2).withFrozen(true))) {
            ChannelMoments moments = norm.moments(Input.of(x));
            norm.commit(moments, NonFinite.PROPAGATE);
            assertArrayEquals(new float[2], Rig.read(norm.runningMean()));
            assertArrayEquals(filled(2, 1), Rig.read(norm.runningVar()));
            assertEquals(0, norm.batchesTracked());
            refused("frozen=true", () -> norm.forward(Input.of(x), y, moments));
            try (Saved saved = norm.forward(x, y)) {
                refused("of batch=false", saved::moments);
            }
        }
        try (BatchNorm norm = BatchNorm.open(device, BatchNormSpec.of(2).withRunningStatistics(false))) {
            ChannelMoments moments = norm.moments(Input.of(x));
            norm.forward(Input.of(x), y, moments).close();
            norm.commit(moments, NonFinite.REFUSE);
            assertEquals(0, norm.batchesTracked());
            refused("running statistics=false", () -> norm.replaceRunning(moments));
        }
    }

    @Test
    void refusesWhatIsNotOfTheInput() {
        Tensor x = rig.tensor(Rig.normal(new Random(1), 12), FIRST, 2, 2, 3);
        Tensor y = rig.tensor(new float[12], FIRST, 2, 2, 3);
        Gradients out = Gradients.of(y, rig.floats(2), rig.floats(2));
        try (BatchNorm norm = BatchNorm.open(device, BatchNormSpec.of(2))) {
            refused("of this input too", () -> norm.forward(Input.of(x), y, new ChannelMoments(2)));
            refused("channels=3", () -> norm.forward(Input.of(x), y, new ChannelMoments(3)));
            refused("channels=3", () -> norm.commit(new ChannelMoments(3), NonFinite.SKIP));
            refused("channels=3", () -> norm.replaceRunning(new ChannelMoments(3)));
            try (Saved saved = norm.forward(Input.of(x), y, norm.moments(Input.of(x)));
                    Saved own = norm.forward(x, y)) {
                refused("needs the merged sums", () -> norm.backward(saved, x, x, out));
                refused("over merged statistics", () -> norm.sums(own, Input.of(x), x, out));
                refused("channels=3", () -> norm.backward(saved, Input.of(x), x, out, new ChannelSums(3)));
            }
        }
    }

    private static void refused(String contains, Runnable call) {
        String message = assertThrows(IllegalArgumentException.class, call::run).getMessage();
        assertTrue(message.contains(contains), message);
        assertEquals(1, message.lines().count());
    }
}
