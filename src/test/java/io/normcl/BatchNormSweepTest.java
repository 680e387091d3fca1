package io.normcl;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeFalse;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.plan.ChannelPlan;
import io.normcl.plan.Family;
import io.normcl.plan.Form;
import io.normcl.plan.Plan;
import io.normcl.plan.Tuning;
import io.normcl.reference.BatchNormReference;
import io.normcl.reference.BatchNormReference.Statistics;
import io.normcl.tensor.ChannelView;
import io.normcl.tensor.Layout;
import io.normcl.tensor.Tensor;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Every shape, layout, kernel family, form and mode against the reference in double. */
@Tag("llvmpipe")
class BatchNormSweepTest {
    /** llvmpipe compiles each variant for long, and gives up on a work-item, silently, after 65,535 loop steps. */
    private static final boolean FEW = Rig.SELECTOR.equals("llvmpipe");

    private static final int[] PLACES = FEW ? new int[] {7, 64} : new int[] {1, 3, 7, 49, 64};
    private static final int[] CHANNELS = FEW ? new int[] {3} : new int[] {1, 3, 17, 64, 129};
    private static final int[] SAMPLES = FEW ? new int[] {0, 1, 5} : new int[] {0, 1, 2, 33};
    private static Device device;

    /** Which statistics a pass takes and whether gamma and beta are there. */
    private enum Kind {
        TRAINING,
        EVALUATION,
        FROZEN,
        NO_AFFINE,
        NO_RUNNING
    }

    @BeforeAll
    static void open() {
        device = Rig.open();
    }

    @AfterAll
    static void close() {
        device.close();
        assertEquals(0, Device.liveHandles());
    }

    @ParameterizedTest
    @CsvSource({
        "WIDE,true,CHANNELS_FIRST", "WIDE,false,CHANNELS_FIRST",
        "WIDE,true,CHANNELS_LAST", "WIDE,false,CHANNELS_LAST",
        "COOPERATIVE,true,CHANNELS_FIRST", "COOPERATIVE,false,CHANNELS_FIRST",
        "COOPERATIVE,true,CHANNELS_LAST", "COOPERATIVE,false,CHANNELS_LAST"
    })
    void everyShape(Family family, boolean fused, Layout layout) {
        int seed = 0;
        for (int s : PLACES) {
            for (int c : CHANNELS) {
                for (int n : SAMPLES) {
                    Kind kind = Kind.values()[seed % Kind.values().length];
                    check(new Random(++seed), Tuning.of(family).withFused(fused), kind, layout, n, c, s);
                    if (kind != Kind.TRAINING) {
                        check(new Random(++seed), Tuning.of(family).withFused(fused), Kind.TRAINING, layout, n, c, s);
                    }
                }
            }
        }
    }

    @ParameterizedTest
    @ValueSource(ints = {1024, 768})
    void tilesThatCoresShareOut(int columns) {
        assumeFalse(FEW, "a variant more to compile");
        int c = columns * device.limits().computeUnits();
        assumeTrue(c > 1024, "one tile");
        ChannelView view = new ChannelView(41, c, 2, true);
        Plan plan = ChannelPlan.forward(view, Form.PLAIN, device.limits(), Tuning.of(Family.WIDE));
        assertEquals(1, plan.calls().size());
        check(new Random(1), Tuning.of(Family.WIDE), Kind.TRAINING, Layout.CHANNELS_LAST, 41, c, 2);
    }

    /** Channels that stand first, walked as columns: repeated side by side or not, of one tile or several. */
    @ParameterizedTest
    @CsvSource({"1,2", "5,4", "17,9", "150,9", "300,4", "64,7"})
    void fewPlacesOfManySamples(int c, int s) {
        assumeFalse(FEW, "variants more to compile");
        for (Kind kind : Kind.values()) {
            check(new Random(c), Tuning.of(Family.WIDE), kind, Layout.CHANNELS_FIRST, 261, c, s);
        }
    }

    /** Tiles as wide as others or not, the last one no whole vector, rows no whole fours of them. */
    @ParameterizedTest
    @CsvSource({"1152,true", "1152,false", "1100,true", "1100,false", "2500,false"})
    void rowsOfSeveralTiles(int c, boolean fused) {
        assumeFalse(FEW, "a variant more to compile");
        Tuning tuning = Tuning.of(Family.WIDE).withFused(fused);
        for (int n : new int[] {2, 4, 71}) {
            check(new Random(n), tuning, Kind.TRAINING, Layout.CHANNELS_LAST, n, c, 1);
        }
    }

    private static void check(Random random, Tuning tuning, Kind kind, Layout layout, int n, int c, int s) {
        boolean batch = kind != Kind.EVALUATION && kind != Kind.FROZEN;
        if (batch && n * s == 1) {
            return; // refused, BatchNormTest says how
        }
        boolean affine = kind != Kind.NO_AFFINE;
        BatchNormSpec spec = BatchNormSpec.of(c)
                .withAffine(affine, affine)
                .withFrozen(kind == Kind.FROZEN)
                .withRunningStatistics(kind != Kind.NO_RUNNING);
        Mode mode = kind == Kind.EVALUATION || kind == Kind.NO_RUNNING ? Mode.EVALUATION : Mode.TRAINING;
        String what = tuning + " " + kind + " " + layout + " N=" + n + " C=" + c + " S=" + s;
        float[] x = Rig.perChannel(random, n, c, s, layout);
        float[] dy = Rig.normal(random, x.length);
        float[] gamma = Rig.normal(random, c);
        float[] beta = Rig.normal(random, c);
        float[] runningMean = Rig.normal(random, c);
        float[] runningVar = new float[c];
        for (int i = 0; i < c; i++) {
            runningVar[i] = 0.5f + random.nextFloat();
        }
        try (Rig rig = new Rig(device);
                BatchNorm norm = BatchNorm.open(device, spec, tuning)) {
            write(norm.gamma(), gamma);
            write(norm.beta(), beta);
            write(norm.runningMean(), runningMean);
            write(norm.runningVar(), runningVar);
            long[] shape = Rig.shape(layout, n, c, s);
            Tensor tx = rig.tensor(x, layout, shape);
            Tensor ty = rig.tensor(new float[x.length], layout, shape);
            Tensor tdx = rig.tensor(new float[x.length], layout, shape);
            Buffer dGamma = rig.floats(c);
            Buffer dBeta = rig.floats(c);
            Saved saved = norm.forward(mode, tx, ty);
            norm.backward(saved, tx, rig.tensor(dy, layout, shape), Gradients.of(tdx, dGamma, dBeta));

            BatchNormReference reference = new BatchNormReference(c, s, layout == Layout.CHANNELS_LAST || s == 1);
            double[] wideX = Rig.doubles(x);
            Statistics stats = batch
                    ? reference.statistics(List.of(wideX))
                    : Statistics.running(Rig.doubles(runningMean), Rig.doubles(runningVar));
            double[] g = affine ? Rig.doubles(gamma) : null;
            double[] b = affine ? Rig.doubles(beta) : null;
            double[] y = reference.forward(stats, spec.eps(), g, b, wideX);
            BatchNormReference.Gradients expected = reference
                    .backward(stats, batch, spec.eps(), g, List.of(wideX), List.of(Rig.doubles(dy)))
                    .get(0);
            // A rounding of x - mean, of the scale, of the product and of the sum; dx has the two sums' terms more.
            double invStd = largest(stats.invStd(spec.eps()));
            double factor = invStd * (affine ? largest(g) : 1);
            near(what + " y", y, Rig.read(ty), 4, largest(y) + (affine ? largest(b) : 0));
            near(what + " dx", expected.dx(), Rig.read(tdx), 8, factor * largest(Rig.doubles(dy)));
            double sums = Math.sqrt(n * s) * largest(Rig.doubles(dy));
            near(what + " dBeta", expected.dBeta(), Rig.read(dBeta), 2, sums);
            // Without the batch's statistics xHat has any size, and dGamma is rounded at its own.
            double slopes = Math.max(sums * Math.max(1, invStd), largest(expected.dGamma()));
            near(what + " dGamma", expected.dGamma(), Rig.read(dGamma), 4, slopes);
            if (batch && n * s > 0) {
                assertArrayEquals(stats.mean(), saved.mean(), 1e-12 * Math.max(1, largest(stats.mean())), what);
            }
        }
    }

    private static void write(Buffer buffer, float[] values) {
        if (buffer != null) {
            buffer.write(values);
        }
    }

    private static double largest(double[] values) {
        double largest = 0;
        for (double value : values) {
            largest = Math.max(largest, Math.abs(value));
        }
        return largest;
    }

    /** Within so many roundings of values of this size. */
    private static void near(String what, double[] expected, float[] got, int roundings, double size) {
        double tolerance = roundings * 0x1p-24 * size;
        assertEquals(expected.length, got.length, what);
        for (int i = 0; i < got.length; i++) {
            int at = i;
            assertTrue(
                    Math.abs(got[i] - expected[i]) <= tolerance,
                    () -> what + "[" + at + "]: expected " + expected[at] + ", got " + got[at] + ", tolerance "
                            + tolerance);
        }
    }
}
