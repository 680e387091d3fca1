package io.normcl;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.normcl.BatchNorm.Parameters;
import io.normcl.BatchNormSpec.SingleValue;
import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.plan.Family;
import io.normcl.plan.Tuning;
import io.normcl.reference.BatchNormReference;
import io.normcl.reference.BatchNormReference.Statistics;
import io.normcl.tensor.Activation;
import io.normcl.tensor.Layout;
import io.normcl.tensor.Tensor;
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
import org.junit.jupiter.params.provider.EnumSource;

/** What batch norm means: statistics, commits, policies, refusals, the cases that broke others. */
class BatchNormTest {
    private static final Layout FIRST = Layout.CHANNELS_FIRST;
    private static Device device;
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
    void end() {
        rig.close();
    }

    private float[] forward(BatchNorm norm, Mode mode, float[] x, Layout layout, long... shape) {
        Tensor y = rig.tensor(new float[x.length], layout, shape);
        norm.forward(mode, rig.tensor(x, layout, shape), y).close();
        return Rig.read(y);
    }

    private static float[] filled(int count, float value) {
        float[] values = new float[count];
        Arrays.fill(values, value);
        return values;
    }

    // Running statistics.

    @ParameterizedTest
    @CsvSource({"UNBIASED,0.1,false", "BIASED,0.1,false", "UNBIASED,0.9,true", "BIASED,-0.5,false", "UNBIASED,0,false"})
    void tenStepsMoveRunningStatistics(RunningVariance which, double momentum, boolean kept) {
        Momentum move = kept ? Momentum.ofKept(momentum) : Momentum.ofNew(momentum);
        double weight = kept ? 1 - momentum : momentum;
        tenSteps(BatchNormSpec.of(5).withMomentum(move).withRunningVariance(which), step -> weight);
    }

    @Test
    void cumulativeMomentumWeighsEveryBatchTheSame() {
        tenSteps(BatchNormSpec.of(5).withMomentum(Momentum.cumulative()), step -> 1.0 / (step + 1));
    }

    private void tenSteps(BatchNormSpec spec, java.util.function.IntToDoubleFunction weight) {
        Random random = new Random(7);
        double[] mean = new double[5];
        double[] variance = {1, 1, 1, 1, 1};
        double error = 0;
        try (BatchNorm norm = BatchNorm.open(device, spec)) {
            for (int step = 0; step < 12; step++) {
                int n = 2 + step;
                float[] x = Rig.perChannel(random, n, 5, 6, FIRST);
                Tensor tx = rig.tensor(x, FIRST, n, 5, 6);
                try (Saved saved = norm.forward(tx, tx)) {
                    norm.commit(saved);
                }
                Statistics stats = new BatchNormReference(5, 6, false).statistics(List.of(Rig.doubles(x)));
                double w = weight.applyAsDouble(step);
                double factor =
                        spec.runningVariance() == RunningVariance.UNBIASED ? stats.count() / (stats.count() - 1.0) : 1;
                for (int c = 0; c < 5; c++) {
                    mean[c] = (1 - w) * mean[c] + w * stats.mean()[c];
                    variance[c] = (1 - w) * variance[c] + w * factor * stats.variance()[c];
                }
                // Two roundings a step of values of this size, carried on by the factor of the old.
                error = Math.abs(1 - w) * error + 2 * 0x1p-24 * (10 + Math.abs(mean[0]) + variance[0]);
                assertArrayEquals(mean, Rig.doubles(Rig.read(norm.runningMean())), error, "mean " + step);
                assertArrayEquals(variance, Rig.doubles(Rig.read(norm.runningVar())), 4 * error, "var " + step);
            }
            assertEquals(12, norm.batchesTracked());
        }
    }

    @Test
    void nothingMovesWithoutACommit() {
        try (BatchNorm norm = BatchNorm.open(device, BatchNormSpec.of(3))) {
            forward(norm, Mode.TRAINING, Rig.normal(new Random(1), 24), FIRST, 4, 3, 2);
            assertArrayEquals(new float[3], Rig.read(norm.runningMean()));
            assertArrayEquals(filled(3, 1), Rig.read(norm.runningVar()));
            assertEquals(0, norm.batchesTracked());
        }
    }

    @Test
    void frozenTakesAndKeepsRunningStatistics() {
        try (BatchNorm norm =
                BatchNorm.open(device, BatchNormSpec.of(2).withEps(0).withFrozen(true))) {
            norm.runningMean().write(new float[] {1, 2});
            norm.runningVar().write(new float[] {4, 16});
            Tensor x = rig.tensor(new float[] {3, 6}, FIRST, 1, 2);
            Tensor y = rig.tensor(new float[2], FIRST, 1, 2);
            Tensor dx = rig.tensor(new float[2], FIRST, 1, 2);
            try (Saved saved = norm.forward(x, y)) {
                norm.backward(saved, x, rig.tensor(new float[] {1, 8}, FIRST, 1, 2), Gradients.of(dx, null, null));
                norm.commit(saved);
                assertFalse(saved.ofBatch());
            }
            assertArrayEquals(new float[] {1, 1}, Rig.read(y));
            assertArrayEquals(new float[] {0.5f, 2}, Rig.read(dx));
            assertArrayEquals(new float[] {1, 2}, Rig.read(norm.runningMean()));
            assertEquals(0, norm.batchesTracked());
        }
    }

    @Test
    void emptyBatchGivesEmptyOutputAndZeroGradients() {
        try (BatchNorm norm = BatchNorm.open(device, BatchNormSpec.of(3))) {
            Tensor empty = Tensor.of(rig.floats(0), FIRST, 0, 3, 5);
            Buffer dGamma = rig.floats(new float[] {7, 7, 7});
            Buffer dBeta = rig.floats(new float[] {7, 7, 7});
            try (Saved saved = norm.forward(empty, empty)) {
                norm.backward(saved, empty, empty, Gradients.of(empty, dGamma, dBeta));
                norm.commit(saved);
            }
            norm.infer(empty, empty);
            assertArrayEquals(new float[3], Rig.read(dGamma));
            assertArrayEquals(new float[3], Rig.read(dBeta));
            assertArrayEquals(filled(3, 1), Rig.read(norm.runningVar()));
            assertEquals(1, norm.batchesTracked());
        }
    }

    @Test
    void singleValuePolicies() {
        Tensor x = rig.tensor(new float[] {5, 6}, FIRST, 1, 2);
        Tensor y = rig.tensor(new float[2], FIRST, 1, 2);
        try (BatchNorm norm = BatchNorm.open(device, BatchNormSpec.of(2))) {
            String message = assertThrows(IllegalArgumentException.class, () -> norm.forward(x, y))
                    .getMessage();
            assertTrue(message.contains("more than one value per channel") && message.contains("C=2"), message);
            norm.infer(x, y);
        }
        try (BatchNorm norm = BatchNorm.open(device, BatchNormSpec.of(2).withSingleValue(SingleValue.ALLOW));
                Saved saved = norm.forward(x, y)) {
            norm.commit(saved);
            assertArrayEquals(new float[2], Rig.read(y));
            assertArrayEquals(filled(2, 1), Rig.read(norm.runningVar()));
            assertEquals(0.5f, Rig.read(norm.runningMean())[0]);
        }
        try (BatchNorm norm = BatchNorm.open(
                        device, BatchNormSpec.of(2).withEps(0).withSingleValue(SingleValue.USE_RUNNING));
                Saved saved = norm.forward(x, y)) {
            norm.commit(saved);
            assertArrayEquals(new float[] {5, 6}, Rig.read(y));
            assertArrayEquals(new float[2], Rig.read(norm.runningMean()));
        }
    }

    @Test
    void nonFinitePolicies() {
        float[] x = {1, 2, Float.NaN, 4, 5, 7};
        Tensor tx = rig.tensor(x, FIRST, 3, 2);
        Tensor ty = rig.tensor(new float[6], FIRST, 3, 2);
        try (BatchNorm norm = BatchNorm.open(device, BatchNormSpec.of(2))) {
            try (Saved saved = norm.forward(tx, ty)) {
                String message = assertThrows(ArithmeticException.class, () -> norm.commit(saved, NonFinite.REFUSE))
                        .getMessage();
                assertTrue(message.contains("channel=0") && message.contains("NaN"), message);
                assertEquals(0, norm.batchesTracked());
                norm.commit(saved, NonFinite.SKIP);
                assertArrayEquals(new float[] {0, 0.1f * 13 / 3}, Rig.read(norm.runningMean()), 1e-6f);
                norm.commit(saved);
                assertTrue(Float.isNaN(Rig.read(norm.runningMean())[0]));
            }
        }
    }

    // Numbers.

    @ParameterizedTest
    @EnumSource(Layout.class)
    void aSampleAloneHasTheBitsItHasInAnyBatch(Layout layout) {
        int c = 17;
        Random random = new Random(3);
        for (int s : new int[] {2, 3, 9, 21}) {
            int n = 260; // more than what is needed for few places to be summed otherwise
            float[] x = Rig.perChannel(random, n, c, s, layout);
            try (BatchNorm norm = BatchNorm.open(device, BatchNormSpec.of(c).withActivation(Activation.SILU))) {
                norm.runningMean().write(Rig.normal(random, c));
                float[] all = forward(norm, Mode.EVALUATION, x, layout, Rig.shape(layout, n, c, s));
                for (int i = 0; i < n; i++) {
                    float[] alone = Arrays.copyOfRange(x, i * c * s, (i + 1) * c * s);
                    assertArrayEquals(
                            Arrays.copyOfRange(all, i * c * s, (i + 1) * c * s),
                            forward(norm, Mode.EVALUATION, alone, layout, Rig.shape(layout, 1, c, s)),
                            "places " + s);
                }
            }
        }
    }

    @ParameterizedTest
    @CsvSource({"WIDE,true", "WIDE,false", "COOPERATIVE,true", "COOPERATIVE,false"})
    void constantChannelsGiveExactlyBeta(Family family, boolean fused) {
        for (float value : new float[] {0, 1e-30f, 3.3f, 1e7f, 1e10f, 1e30f}) {
            for (Layout layout : Layout.values()) {
                try (BatchNorm norm = BatchNorm.open(
                        device, BatchNormSpec.of(3), Tuning.of(family).withFused(fused))) {
                    norm.beta().write(filled(3, 0.7f));
                    float[] y = forward(
                            norm, Mode.TRAINING, filled(3 * 4 * 25, value), layout, Rig.shape(layout, 4, 3, 25));
                    assertArrayEquals(filled(y.length, 0.7f), y, family + " " + layout + " " + value);
                }
            }
        }
    }

    @ParameterizedTest
    @EnumSource(Family.class)
    void manyRowsLoseNone(Family family) {
        int n = 70_001; // more than 2^16, and no multiple of any block
        int c = 5;
        float[] x = Rig.perChannel(new Random(19), n, c, 1, FIRST);
        float[] ones = filled(x.length, 1);
        Statistics stats = new BatchNormReference(c, 1, true).statistics(List.of(Rig.doubles(x)));
        try (BatchNorm norm = BatchNorm.open(device, BatchNormSpec.of(c), Tuning.of(family))) {
            Tensor tx = rig.tensor(x, FIRST, n, c);
            Buffer dBeta = rig.floats(c);
            try (Saved saved = norm.forward(tx, rig.tensor(ones, FIRST, n, c))) {
                norm.backward(saved, tx, rig.tensor(ones, FIRST, n, c), Gradients.of(null, null, dBeta));
                assertArrayEquals(stats.mean(), saved.mean(), 1e-11);
                assertArrayEquals(stats.variance(), Rig.doubles(saved.variance()), 0x1p-23 * 10);
            }
            assertArrayEquals(filled(c, n), Rig.read(dBeta));
        }
    }

    @Test
    void varianceAndEpsZeroGiveBeta() {
        try (BatchNorm norm = BatchNorm.open(device, BatchNormSpec.of(2).withEps(0))) {
            norm.beta().write(new float[] {3, -4});
            assertArrayEquals(
                    new float[] {3, -4, 3, -4}, forward(norm, Mode.TRAINING, new float[] {9, 8, 9, 8}, FIRST, 2, 2));
        }
    }

    @ParameterizedTest
    @CsvSource({"WIDE,CHANNELS_FIRST", "WIDE,CHANNELS_LAST", "COOPERATIVE,CHANNELS_FIRST", "COOPERATIVE,CHANNELS_LAST"})
    void sameInputSameBits(Family family, Layout layout) {
        Random random = new Random(11);
        int n = 16;
        int c = 24;
        int s = 150;
        float[] x = Rig.perChannel(random, n, c, s, layout);
        float[] dy = Rig.normal(random, x.length);
        long[] shape = Rig.shape(layout, n, c, s);
        float[][] first = null;
        for (int run = 0; run < 5; run++) {
            try (BatchNorm norm = BatchNorm.open(
                    device, BatchNormSpec.of(c), Tuning.of(family).withFused(false))) {
                Tensor tx = rig.tensor(x, layout, shape);
                Tensor ty = rig.tensor(new float[x.length], layout, shape);
                Tensor tdx = rig.tensor(new float[x.length], layout, shape);
                Buffer dGamma = rig.floats(c);
                try (Saved saved = norm.forward(tx, ty)) {
                    norm.backward(saved, tx, rig.tensor(dy, layout, shape), Gradients.of(tdx, dGamma, null));
                }
                float[][] got = {Rig.read(ty), Rig.read(tdx), Rig.read(dGamma)};
                first = first == null ? got : first;
                for (int i = 0; i < got.length; i++) {
                    assertArrayEquals(first[i], got[i]);
                }
            }
        }
    }

    @ParameterizedTest
    @CsvSource({"WIDE,true", "WIDE,false", "COOPERATIVE,true", "COOPERATIVE,false"})
    void gradientsAgreeWithDifferences(Family family, boolean fused) {
        Random random = new Random(5);
        for (Layout layout : Layout.values()) {
            int n = 3;
            int c = 2;
            int s = 5;
            long[] shape = Rig.shape(layout, n, c, s);
            float[] x = Rig.normal(random, n * c * s);
            float[] cotangent = Rig.normal(random, x.length);
            float[] gamma = {1.5f, -0.8f};
            try (BatchNorm norm = BatchNorm.open(
                    device, BatchNormSpec.of(c), Tuning.of(family).withFused(fused))) {
                norm.gamma().write(gamma);
                Tensor tx = rig.tensor(x, layout, shape);
                Tensor ty = rig.tensor(new float[x.length], layout, shape);
                Tensor tdx = rig.tensor(new float[x.length], layout, shape);
                Buffer dGamma = rig.floats(c);
                try (Saved saved = norm.forward(tx, ty)) {
                    norm.backward(saved, tx, rig.tensor(cotangent, layout, shape), Gradients.of(tdx, dGamma, null));
                }
                float[] dx = Rig.read(tdx);
                for (int i = 0; i < x.length; i++) {
                    float[] up = x.clone();
                    float[] down = x.clone();
                    up[i] += 1e-2f;
                    down[i] -= 1e-2f;
                    double slope = (dot(forward(norm, Mode.TRAINING, up, layout, shape), cotangent)
                                    - dot(forward(norm, Mode.TRAINING, down, layout, shape), cotangent))
                            / ((double) up[i] - down[i]);
                    assertEquals(slope, dx[i], 2e-3, "dx[" + i + "]");
                }
                for (int i = 0; i < c; i++) {
                    float[] up = gamma.clone();
                    up[i] += 1;
                    double before = dot(forward(norm, Mode.TRAINING, x, layout, shape), cotangent);
                    norm.gamma().write(up);
                    double after = dot(forward(norm, Mode.TRAINING, x, layout, shape), cotangent);
                    norm.gamma().write(gamma);
                    assertEquals(after - before, Rig.read(dGamma)[i], 1e-4, "dGamma[" + i + "]");
                }
            }
        }
    }

    private static double dot(float[] a, float[] b) {
        double sum = 0;
        for (int i = 0; i < a.length; i++) {
            sum += (double) a[i] * b[i];
        }
        return sum;
    }

    @Test
    void gradientsAccumulateOrOverwriteAndEachIsOptional() {
        Random random = new Random(9);
        Tensor x = rig.tensor(Rig.normal(random, 40), FIRST, 4, 2, 5);
        Tensor y = rig.tensor(new float[40], FIRST, 4, 2, 5);
        Tensor dy = rig.tensor(Rig.normal(random, 40), FIRST, 4, 2, 5);
        for (boolean fused : new boolean[] {true, false}) {
            try (BatchNorm norm = BatchNorm.open(device, BatchNormSpec.of(2), Tuning.NONE.withFused(fused));
                    Saved saved = norm.forward(x, y)) {
                Tensor dx = rig.tensor(filled(40, 9), FIRST, 4, 2, 5);
                Buffer dGamma = rig.floats(filled(2, 9));
                Buffer dBeta = rig.floats(filled(2, 9));
                norm.backward(saved, x, dy, Gradients.of(null, dGamma, null));
                assertArrayEquals(filled(2, 9), Rig.read(dBeta));
                assertArrayEquals(filled(40, 9), Rig.read(dx));
                norm.backward(saved, x, dy, Gradients.of(dx, null, dBeta));
                float[] once = Rig.read(dGamma);
                float[] onceBeta = Rig.read(dBeta);
                norm.backward(saved, x, dy, Gradients.of(dx, dGamma, dBeta).withAccumulate(true));
                for (int c = 0; c < 2; c++) {
                    assertEquals(2 * once[c], Rig.read(dGamma)[c], 1e-6);
                    assertEquals(2 * onceBeta[c], Rig.read(dBeta)[c], 1e-6);
                }
            }
        }
    }

    @Test
    void worksInPlace() {
        Random random = new Random(13);
        for (Layout layout : Layout.values()) {
            for (boolean fused : new boolean[] {true, false}) {
                float[] x = Rig.normal(random, 3 * 19 * 35);
                long[] shape = Rig.shape(layout, 3, 19, 35);
                try (BatchNorm norm = BatchNorm.open(device, BatchNormSpec.of(19), Tuning.NONE.withFused(fused))) {
                    Tensor same = rig.tensor(x, layout, shape);
                    float[] apart = forward(norm, Mode.TRAINING, x, layout, shape);
                    norm.forward(same, same).close();
                    assertArrayEquals(apart, Rig.read(same));
                }
            }
        }
    }

    @Test
    void aConvolutionsShapesCollapse() {
        float[] x = Rig.normal(new Random(17), 2 * 3 * 24);
        try (BatchNorm norm = BatchNorm.open(device, BatchNormSpec.of(3))) {
            float[] flat = forward(norm, Mode.TRAINING, x, FIRST, 2, 3, 24);
            assertArrayEquals(flat, forward(norm, Mode.TRAINING, x, FIRST, 2, 3, 4, 6));
            assertArrayEquals(flat, forward(norm, Mode.TRAINING, x, FIRST, 2, 3, 2, 3, 4));
            float[] last = forward(norm, Mode.TRAINING, x, Layout.CHANNELS_LAST, 2, 24, 3);
            assertArrayEquals(last, forward(norm, Mode.TRAINING, x, Layout.CHANNELS_LAST, 2, 2, 3, 4, 3));
        }
    }

    // Refusals.

    private static void refused(String contains, Runnable call) {
        String message = assertThrows(IllegalArgumentException.class, call::run).getMessage();
        assertTrue(message.contains(contains), message);
        assertFalse(message.contains("\n"), message);
    }

    @Test
    void refusesWhatDoesNotFit() {
        Tensor x = rig.tensor(new float[12], FIRST, 2, 3, 2);
        Tensor y = rig.tensor(new float[12], FIRST, 2, 3, 2);
        refused("bytes needed=48, bytes=44", () -> Tensor.of(rig.floats(11), FIRST, 2, 3, 2));
        refused("at least (N, C)", () -> Tensor.of(x.buffer(), FIRST, 12).channelView());
        try (BatchNorm four = BatchNorm.open(device, BatchNormSpec.of(4));
                BatchNorm three = BatchNorm.open(device, BatchNormSpec.of(3));
                BatchNorm other = BatchNorm.open(device, BatchNormSpec.of(3));
                Saved saved = three.forward(x, y);
                Device second = Rig.open();
                Rig elsewhere = new Rig(second)) {
            refused("C=3, layer's C=4", () -> four.forward(x, y));
            refused(
                    "one shape, layout, type and device",
                    () -> three.forward(x, Tensor.of(y.buffer(), FIRST, 1, 3, 4)));
            refused(
                    "one shape, layout, type and device",
                    () -> three.forward(x, elsewhere.tensor(new float[12], FIRST, 2, 3, 2)));
            refused("must be on the layer's device", () -> {
                Tensor foreign = elsewhere.tensor(new float[12], FIRST, 2, 3, 2);
                Tensor foreignY = elsewhere.tensor(new float[12], FIRST, 2, 3, 2);
                three.forward(foreign, foreignY);
            });
            refused("of the layer they are handed to", () -> other.commit(saved));
            refused(
                    "over the forward's shape",
                    () -> three.backward(
                            saved,
                            Tensor.of(x.buffer(), FIRST, 1, 3, 4),
                            Tensor.of(y.buffer(), FIRST, 1, 3, 4),
                            Gradients.of(null, null, null)));
            refused(
                    "dGamma bytes=8, values=3, bytes needed=12",
                    () -> three.backward(saved, x, y, Gradients.of(null, rig.floats(2), null)));
        }
    }

    @Test
    void refusesParametersThatAreNotTheSpecs() {
        BatchNormSpec spec = BatchNormSpec.of(3);
        Buffer three = rig.floats(3);
        refused(
                "runningVar bytes=16, values=3",
                () -> BatchNorm.open(device, spec, new Parameters(three, three, three, rig.floats(4))));
        refused("beta is missing", () -> BatchNorm.open(device, spec, new Parameters(three, null, three, three)));
        refused(
                "gamma is not wanted",
                () -> BatchNorm.open(device, spec.withAffine(false, false), new Parameters(three, null, three, three)));
        refused("eps=-1.0", () -> spec.withEps(-1));
        refused("eps=NaN", () -> spec.withEps(Double.NaN));
        refused("channels=0", () -> BatchNormSpec.of(0));
        refused("momentum=Infinity", () -> Momentum.ofNew(Double.POSITIVE_INFINITY));
        refused("runningStatistics=false", () -> spec.withFrozen(true).withRunningStatistics(false));
    }

    @Test
    void refusesUseAfterClose() {
        Tensor x = rig.tensor(new float[] {1, 2, 3, 4}, FIRST, 2, 2);
        BatchNorm norm = BatchNorm.open(device, BatchNormSpec.of(2));
        Saved saved = norm.forward(x, x);
        saved.close();
        saved.close();
        assertThrows(IllegalStateException.class, () -> norm.commit(saved));
        assertThrows(IllegalStateException.class, saved::mean);
        norm.close();
        norm.close();
        assertThrows(IllegalStateException.class, () -> norm.forward(x, x));
        try (BatchNorm next = BatchNorm.open(device, BatchNormSpec.of(2))) {
            x.buffer().close();
            String message = assertThrows(IllegalStateException.class, () -> next.forward(x, x))
                    .getMessage();
            assertTrue(message.contains("the buffer is closed"), message);
        }
    }
}
