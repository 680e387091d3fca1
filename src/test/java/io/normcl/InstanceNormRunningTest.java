package io.normcl;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.normcl.device.Device;
import io.normcl.plan.Family;
import io.normcl.plan.Tuning;
import io.normcl.reference.NormReference;
import io.normcl.reference.NormReference.Statistics;
import io.normcl.sync.ChannelAverages;
import io.normcl.tensor.Layout;
import io.normcl.tensor.Lengths;
import io.normcl.tensor.Tensor;
import java.util.Arrays;
import java.util.Random;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** The running statistics of instance norm: commits, by a batch or by micro-batches, and re-estimation. */
class InstanceNormRunningTest {
    private static final InstanceNormSpec SPEC = InstanceNormSpec.of(7).withRunningStatistics(true);
    private static final int S = 31;
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

    private static float[] filled(int count, float value) {
        float[] values = new float[count];
        Arrays.fill(values, value);
        return values;
    }

    private Input input(float[] x, Layout layout, Lengths lengths) {
        Input in = Input.of(rig.tensor(x, layout, Rig.shape(layout, x.length / (7 * S), 7, S)));
        return lengths == null ? in : in.withLengths(lengths);
    }

    private Tensor output(Input in) {
        return rig.tensor(
                new float[(int) (in.x().buffer().bytes() / 4)],
                in.x().layout(),
                in.x().shape());
    }

    private static float[][] running(InstanceNorm norm) {
        return new float[][] {Rig.read(norm.runningMean()), Rig.read(norm.runningVar())};
    }

    @ParameterizedTest
    @CsvSource({
        "WIDE,CHANNELS_FIRST,false", "WIDE,CHANNELS_FIRST,true",
        "WIDE,CHANNELS_LAST,false", "WIDE,CHANNELS_LAST,true",
        "COOPERATIVE,CHANNELS_FIRST,false", "COOPERATIVE,CHANNELS_FIRST,true",
        "COOPERATIVE,CHANNELS_LAST,false", "COOPERATIVE,CHANNELS_LAST,true"
    })
    void stepsMoveThemAsTheReference(Family family, Layout layout, boolean masked) {
        Random random = new Random(2);
        boolean last = layout == Layout.CHANNELS_LAST;
        double[] mean = new double[7];
        double[] variance = new double[7];
        Arrays.fill(variance, 1);
        double error = 0;
        try (InstanceNorm norm = InstanceNorm.open(device, SPEC, Tuning.of(family));
                InstanceNorm micro = InstanceNorm.open(device, SPEC, Tuning.of(family))) {
            for (int step = 0; step < 4; step++) {
                int n = 3 + step;
                float[] x = Rig.perChannel(random, n, 7, S, layout);
                int[] lengths = random.ints(n, 2, S + 1).toArray();
                lengths[1] = masked ? 0 : lengths[1]; // an instance of nothing has no say
                NormReference reference = NormReference.instanceNorm(n, 7, S, last);
                if (masked) {
                    reference = reference.withCounted(NormReference.counted(n, 7, S, last, S, lengths));
                }
                try (Lengths own = Lengths.of(device, lengths)) {
                    Input in = input(x, layout, masked ? own : null);
                    try (Saved saved = norm.forward(Mode.TRAINING, in, output(in))) {
                        assertArrayEquals(mean, Rig.doubles(running(norm)[0]), error, "moved before the commit");
                        norm.commit(saved);
                    }
                }
                microStep(micro, x, layout, masked ? lengths : null);
                Statistics batch = reference.statistics(Rig.doubles(x));
                reference.update(batch, 0.1, true, mean, variance);
                // What was there is kept to 9/10 and rounded; the batch's variance comes as a float, the mean as two.
                error = 0.9 * error + 0x1p-24 * 12;
                assertArrayEquals(mean, Rig.doubles(running(norm)[0]), error, "mean " + step);
                assertArrayEquals(variance, Rig.doubles(running(norm)[1]), 2 * error, "variance " + step);
                for (int i = 0; i < 2; i++) {
                    for (int c = 0; c < 7; c++) {
                        float large = running(norm)[i][c];
                        assertEquals(large, running(micro)[i][c], (step + 1) * Math.ulp(large), "micro-batches");
                    }
                }
                assertEquals(step + 1, norm.batchesTracked());
                assertEquals(step + 1, micro.batchesTracked());
            }
            evaluationTakesThem(norm, layout, random, mean, variance);
        }
    }

    /** The same batch as micro-batches of one sample, of none, and of the rest. */
    private void microStep(InstanceNorm norm, float[] x, Layout layout, int[] lengths) {
        int n = x.length / (7 * S);
        ChannelAverages all = new ChannelAverages(7);
        for (int[] cut : new int[][] {{0, 1}, {1, 1}, {1, n}}) {
            float[] part = Arrays.copyOfRange(x, cut[0] * 7 * S, cut[1] * 7 * S);
            try (Lengths own =
                    lengths == null ? null : Lengths.of(device, Arrays.copyOfRange(lengths, cut[0], cut[1]))) {
                Input in = input(part, layout, own);
                try (Saved saved = norm.forward(Mode.TRAINING, in, output(in))) {
                    all.add(norm.averages(saved));
                }
            }
        }
        norm.commit(all, NonFinite.REFUSE);
    }

    private void evaluationTakesThem(
            InstanceNorm norm, Layout layout, Random random, double[] mean, double[] variance) {
        float[] x = Rig.perChannel(random, 2, 7, S, layout);
        NormReference reference = NormReference.instanceNorm(2, 7, S, layout == Layout.CHANNELS_LAST);
        double[] y = reference.forward(reference.running(mean, variance), null, null, Rig.doubles(x), null);
        Input in = input(x, layout, null);
        Tensor out = output(in);
        try (Saved saved = norm.forward(Mode.EVALUATION, in, out)) {
            assertArrayEquals(
                    y,
                    Rig.doubles(Rig.read(out)),
                    4e-6 * Arrays.stream(y).map(Math::abs).max().orElse(0));
            float[][] before = running(norm);
            norm.commit(saved);
            assertArrayEquals(before[0], running(norm)[0]);
            assertEquals(4, norm.batchesTracked());
            String message = assertThrows(IllegalArgumentException.class, () -> norm.averages(saved))
                    .getMessage();
            assertTrue(message.contains("of a training batch"), message);
        }
    }

    @ParameterizedTest
    @CsvSource({"WIDE,CHANNELS_FIRST", "WIDE,CHANNELS_LAST", "COOPERATIVE,CHANNELS_FIRST", "COOPERATIVE,CHANNELS_LAST"})
    void aNonFiniteChannelLeavesTheOthersExact(Family family, Layout layout) {
        float[] x = Rig.perChannel(new Random(9), 5, 7, S, layout);
        for (float bad : new float[] {Float.NaN, Float.POSITIVE_INFINITY}) {
            float[] spoilt = x.clone();
            spoilt[2 * 7 * S + (layout == Layout.CHANNELS_LAST ? 7 * 20 + 4 : S * 4 + 20)] = bad;
            for (boolean byAverages : new boolean[] {false, true}) {
                for (NonFinite policy : NonFinite.values()) {
                    policy(Tuning.of(family), policy, input(x, layout, null), input(spoilt, layout, null), byAverages);
                }
            }
        }
    }

    private void policy(Tuning tuning, NonFinite policy, Input clean, Input spoilt, boolean byAverages) {
        String what = tuning + " " + policy + " by averages=" + byAverages;
        try (InstanceNorm expected = InstanceNorm.open(device, SPEC, tuning);
                InstanceNorm norm = InstanceNorm.open(device, SPEC, tuning);
                Saved good = expected.forward(Mode.TRAINING, clean, output(clean));
                Saved bad = norm.forward(Mode.TRAINING, spoilt, output(spoilt))) {
            commit(expected, good, policy, byAverages);
            if (policy == NonFinite.REFUSE) {
                String message = assertThrows(ArithmeticException.class, () -> commit(norm, bad, policy, byAverages))
                        .getMessage();
                assertTrue(message.contains("channel=4"), message);
                assertArrayEquals(new float[7], running(norm)[0], what);
                assertArrayEquals(filled(7, 1), running(norm)[1], what);
                assertEquals(0, norm.batchesTracked());
                return;
            }
            commit(norm, bad, policy, byAverages);
            for (int i = 0; i < 2; i++) {
                float[] wanted = running(expected)[i];
                float[] got = running(norm)[i];
                if (policy == NonFinite.SKIP) {
                    assertEquals(i, got[4], what);
                } else {
                    assertFalse(Float.isFinite(got[4]), what);
                }
                got[4] = wanted[4];
                assertArrayEquals(wanted, got, what);
            }
            assertThrows(ArithmeticException.class, () -> norm.replaceRunning(norm.averages(bad)));
            norm.replaceRunning(expected.averages(good));
            ChannelAverages cured = expected.averages(good);
            for (int c = 0; c < 7; c++) {
                assertEquals((float) cured.mean(c), running(norm)[0][c], what);
                assertEquals((float) cured.variance(c), running(norm)[1][c], what);
            }
            assertEquals(1, norm.batchesTracked());
        }
    }

    private static void commit(InstanceNorm norm, Saved saved, NonFinite policy, boolean byAverages) {
        if (byAverages) {
            norm.commit(norm.averages(saved), policy);
        } else {
            norm.commit(saved, policy);
        }
    }

    @Test
    void nothingCountsAndMovesNothing() {
        try (InstanceNorm norm = InstanceNorm.open(device, SPEC);
                Lengths none = Lengths.of(device, 0, 1)) { // one value has no variance
            Input empty = input(new float[0], Layout.CHANNELS_FIRST, null);
            Input single = input(Rig.normal(new Random(1), 2 * 7 * S), Layout.CHANNELS_FIRST, none);
            for (Input in : new Input[] {empty, single}) {
                try (Saved saved = norm.forward(Mode.TRAINING, in, output(in))) {
                    norm.commit(saved, NonFinite.REFUSE);
                    ChannelAverages averages = norm.averages(saved);
                    norm.commit(averages, NonFinite.REFUSE);
                    assertEquals(0, averages.count(0));
                    assertThrows(IllegalArgumentException.class, () -> norm.replaceRunning(averages));
                }
            }
            assertArrayEquals(new float[7], running(norm)[0]);
            assertArrayEquals(filled(7, 1), running(norm)[1]);
            assertEquals(4, norm.batchesTracked());
            assertThrows(
                    IllegalArgumentException.class, () -> norm.commit(new ChannelAverages(3), NonFinite.PROPAGATE));
        }
        try (InstanceNorm without = InstanceNorm.open(device, InstanceNormSpec.of(7))) {
            Input in = input(Rig.normal(new Random(1), 7 * S), Layout.CHANNELS_FIRST, null);
            try (Saved saved = without.forward(Mode.TRAINING, in, output(in))) {
                without.commit(saved);
                ChannelAverages averages = without.averages(saved);
                without.commit(averages, NonFinite.PROPAGATE);
                assertEquals(0, without.batchesTracked());
                assertThrows(IllegalArgumentException.class, () -> without.replaceRunning(averages));
            }
        }
    }
}
