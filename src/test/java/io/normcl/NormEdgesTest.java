package io.normcl;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.normcl.NormSweep.Kind;
import io.normcl.NormSweep.Size;
import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.plan.Family;
import io.normcl.plan.Tuning;
import io.normcl.reference.NormReference;
import io.normcl.reference.NormReference.Statistics;
import io.normcl.tensor.Activation;
import io.normcl.tensor.DataType;
import io.normcl.tensor.Layout;
import io.normcl.tensor.Lengths;
import io.normcl.tensor.Tensor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

/** The values and shapes that broke others, in every layer and storage type. */
class NormEdgesTest {
    private static List<Device> devices;
    private static Device device;

    @BeforeAll
    static void open() {
        devices = Device.open(Rig.SELECTOR + ":3");
        device = devices.get(0);
    }

    @AfterAll
    static void close() {
        devices.forEach(Device::close);
        assertEquals(0, Device.liveHandles());
    }

    private static NormSweep plain(Kind kind, Family family, Size size) {
        return NormSweep.plain(kind, Layout.CHANNELS_FIRST, Tuning.of(family), size);
    }

    private static float[] normal(Random random, int count, double mean, double deviation) {
        float[] values = new float[count];
        for (int i = 0; i < count; i++) {
            values[i] = (float) (mean + deviation * random.nextGaussian());
        }
        return values;
    }

    private static float[] filled(int count, float value) {
        float[] values = new float[count];
        Arrays.fill(values, value);
        return values;
    }

    // Shapes.

    @ParameterizedTest
    @EnumSource
    void moreRowsThanAnIndexSpaceOfOldHolds(Family family) {
        plain(Kind.LAYER, family, new Size(70_001, 1, 1, 9, 1)).check(device, 1);
        plain(Kind.RMS, family, new Size(66_000, 1, 1, 3, 1)).check(device, 2);
        plain(Kind.INSTANCE, family, new Size(700, 100, 1, 6, 1)).check(device, 3);
    }

    /** Sums down the columns of more rows than a block of 16 bits has, in work-groups of two and four rows at a time. */
    @ParameterizedTest
    @EnumSource
    void moreRowsThanABlockOfColumns(DataType type) {
        for (Kind kind : List.of(Kind.LAYER, Kind.RMS)) {
            plain(kind, Family.WIDE, new Size(6003, 1, 1, 9, 1)).withType(type).check(device, 1);
            plain(kind, Family.WIDE, new Size(1203, 1, 1, 1030, 1))
                    .withType(type)
                    .check(device, 2);
        }
        plain(Kind.GROUP, Family.WIDE, new Size(2403, 64, 1, 1, 4))
                .withType(type)
                .check(device, 3);
    }

    @ParameterizedTest
    @EnumSource
    void channelsLastOfNoPowerOfTwo(Family family) {
        for (int c : new int[] {5, 48, 100, 129, 1100}) {
            for (Kind kind : List.of(Kind.BATCH, Kind.GROUP, Kind.PER_LOCATION)) {
                NormSweep.plain(kind, Layout.CHANNELS_LAST, Tuning.of(family), new Size(3, c, 5, 7, 1))
                        .check(device, c);
            }
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"FLOAT", "BFLOAT16"})
    void gradientsComeWhereValuesDid(DataType type) {
        Size size = new Size(9, 48, 1, 33, 4);
        for (Family family : Family.values()) {
            for (Tuning tuning : List.of(Tuning.of(family), Tuning.of(family).withFused(false))) {
                for (Kind kind :
                        List.of(Kind.BATCH, Kind.BATCH_EVALUATION, Kind.GROUP, Kind.PER_LOCATION, Kind.INSTANCE)) {
                    for (Layout layout : Layout.values()) {
                        NormSweep.plain(kind, layout, tuning, size)
                                .withType(type)
                                .checkKink(device);
                    }
                }
                NormSweep.plain(Kind.LAYER, Layout.CHANNELS_FIRST, tuning, size)
                        .withType(type)
                        .checkKink(device);
            }
        }
        for (Family family : Family.values()) {
            plain(Kind.GROUP, family, new Size(9, 96, 1, 1, 4))
                    .withType(type)
                    .checkKink(device); // a gamma for each value
        }
    }

    // Values.

    @ParameterizedTest
    @EnumSource
    void aMeanAMillionDeviationsAway(Family family) {
        Random random = new Random(5);
        for (Kind kind : List.of(Kind.LAYER, Kind.GROUP, Kind.PER_LOCATION, Kind.INSTANCE, Kind.BATCH)) {
            for (boolean fused : new boolean[] {true, false}) {
                Size size = new Size(6, 32, 1, 100, 4);
                NormSweep.plain(kind, Layout.CHANNELS_FIRST, Tuning.of(family).withFused(fused), size)
                        .check(device, random, normal(random, size.elements(), 1e4, 1e-2));
            }
        }
    }

    @ParameterizedTest
    @EnumSource
    void valuesWhoseSquaresAreNoFloats(Family family) {
        Random random = new Random(6);
        for (Kind kind : List.of(Kind.LAYER, Kind.RMS, Kind.GROUP, Kind.BATCH)) {
            for (Layout layout : Layout.values()) {
                Size size = new Size(5, 72, 1, 30, 2);
                float[] values = normal(random, size.elements(), 1e30, 1e30);
                for (DataType type : new DataType[] {DataType.FLOAT, DataType.BFLOAT16}) {
                    if (device.limits().fp64()) {
                        NormSweep.plain(kind, layout, Tuning.of(family), size)
                                .withType(type)
                                .check(device, random, values);
                    }
                }
            }
        }
    }

    /** The value that sums are taken about is not like the others: what is left of their squares is a small part. */
    @ParameterizedTest
    @EnumSource
    void rowsThatBeginFarFromTheirMean(DataType type) {
        for (Kind kind : List.of(Kind.LAYER, Kind.GROUP, Kind.INSTANCE, Kind.BATCH)) {
            Size size = new Size(8, 2, 1, 20_000, 1);
            float[] values = filled(size.elements(), 0);
            for (int plane = 0; plane < 16; plane++) {
                values[plane * 20_000] = 2047; // of whose squares, in halves, floats round every sum down
            }
            fusedAndNot(kind, Layout.CHANNELS_FIRST, size, type, values);
        }
    }

    @ParameterizedTest
    @EnumSource
    void channelsLastThatBeginFarFromTheirMean(DataType type) {
        for (Kind kind : List.of(Kind.GROUP, Kind.BATCH)) {
            Size size = new Size(2, 80, 1, 8000, 1);
            float[] values = filled(size.elements(), 0);
            for (int sample = 0; sample < 2; sample++) {
                Arrays.fill(values, sample * 80 * 8000, sample * 80 * 8000 + 80, 2047);
            }
            fusedAndNot(kind, Layout.CHANNELS_LAST, size, type, values);
            Size cut = new Size(8, 192, 3, 29, 1); // rows of two places, the last one of one
            float[] first = normal(new Random(14), cut.elements(), 0, 30);
            for (int sample = 0; sample < 8; sample++) {
                first[sample * 192 * 87] = 2047;
            }
            fusedAndNot(kind, Layout.CHANNELS_LAST, cut, type, first);
        }
    }

    private static void fusedAndNot(Kind kind, Layout layout, Size size, DataType type, float[] values) {
        for (boolean fused : new boolean[] {true, false}) {
            NormSweep.plain(kind, layout, Tuning.of(Family.WIDE).withFused(fused), size)
                    .withType(type)
                    .check(device, new Random(11), values);
        }
    }

    @ParameterizedTest
    @EnumSource
    void valuesWhoseSquaresAreNothing(Family family) {
        int n = 80;
        int d = 300;
        float[] values = Stored.round(DataType.BFLOAT16, normal(new Random(12), n * d, 1e-22, 1e-22));
        NormReference reference = NormReference.layerNorm(n, d).withEps(0);
        double[] doubles = Rig.doubles(values);
        double[] expected = reference.forward(
                reference.statistics(doubles), Rig.doubles(filled(d, 1)), new double[d], doubles, null);
        try (Rig rig = new Rig(device);
                LayerNorm rows = LayerNorm.open(device, LayerNormSpec.of(d).withEps(0), Tuning.of(family));
                BatchNorm channels = BatchNorm.open(device, BatchNormSpec.of(n).withEps(0), Tuning.of(family))) {
            Tensor x = Stored.tensor(rig, DataType.BFLOAT16, values, Layout.CHANNELS_FIRST, n, d);
            Tensor y = Stored.unwritten(rig, x);
            rows.forward(x, y).close();
            float[] ofRows = Stored.read(y);
            Tensor sample = Stored.tensor(rig, DataType.BFLOAT16, values, Layout.CHANNELS_FIRST, 1, n, d);
            Tensor normalized = Stored.unwritten(rig, sample);
            channels.forward(sample, normalized).close();
            float[] ofChannels = Stored.read(normalized);
            float[] turned = new float[values.length];
            for (int i = 0; i < turned.length; i++) {
                turned[i] = values[i % n * d + i / n];
            }
            Tensor last = Stored.tensor(rig, DataType.BFLOAT16, turned, Layout.CHANNELS_LAST, 1, d, n);
            Tensor normalizedLast = Stored.unwritten(rig, last);
            channels.forward(last, normalizedLast).close();
            float[] ofLast = Stored.read(normalizedLast);
            for (int i = 0; i < expected.length; i++) {
                double within = 0x1p-8 * Math.abs(expected[i]) + 1e-6;
                assertEquals(expected[i], ofRows[i], within);
                assertEquals(expected[i], ofChannels[i], within);
                assertEquals(expected[i], ofLast[i % d * n + i / d], within);
            }
        }
    }

    @ParameterizedTest
    @CsvSource({"WIDE,true", "WIDE,false", "COOPERATIVE,true", "COOPERATIVE,false"})
    void constantRowsAreBeta(Family family, boolean fused) {
        Tuning tuning = Tuning.of(family).withFused(fused);
        float[] beta = Rig.normal(new Random(7), 33);
        for (DataType type : DataType.values()) {
            float value = type == DataType.HALF ? 60_000 : 1e10f;
            try (Rig rig = new Rig(device);
                    LayerNorm norm = LayerNorm.open(device, LayerNormSpec.of(33), tuning)) {
                norm.beta().write(beta);
                float[] values = Stored.round(type, filled(5 * 33, value));
                Tensor x = Stored.tensor(rig, type, values, Layout.CHANNELS_FIRST, 5, 33);
                Tensor y = Stored.unwritten(rig, x);
                norm.forward(x, y).close();
                float[] expected = new float[values.length];
                for (int i = 0; i < expected.length; i++) {
                    expected[i] = Stored.round(type, beta[i % 33]);
                }
                assertArrayEquals(expected, Stored.read(y), () -> type + " " + tuning);
            }
        }
    }

    @ParameterizedTest
    @EnumSource
    void aMeanOfFiftyDeviationsInBfloat16(Family family) {
        Random random = new Random(8);
        for (Kind kind : List.of(Kind.BATCH, Kind.LAYER, Kind.GROUP)) {
            for (double mean : new double[] {5, -5}) {
                Size size = new Size(8, 16, 1, 49, 4);
                plain(kind, family, size)
                        .withType(DataType.BFLOAT16)
                        .check(device, random, normal(random, size.elements(), mean, 0.1));
            }
        }
    }

    @ParameterizedTest
    @EnumSource
    void halvesWhoseSumIsNoHalf(Family family) {
        Random random = new Random(9);
        for (Kind kind : List.of(Kind.BATCH, Kind.LAYER, Kind.RMS, Kind.GROUP)) {
            Size size = new Size(8, 16, 1, 49, 4);
            plain(kind, family, size)
                    .withType(DataType.HALF)
                    .check(device, random, normal(random, size.elements(), 60_000, 500));
        }
    }

    // Storage.

    /**
     * Every value that 16 bits hold, as it is and multiplied by what makes all kinds of roundings: an evaluation with mean
     * 0, variance 1 and eps 0 gives the float product, rounded once.
     */
    @ParameterizedTest
    @CsvSource({
        "WIDE,HALF,CHANNELS_FIRST", "WIDE,BFLOAT16,CHANNELS_FIRST",
        "COOPERATIVE,HALF,CHANNELS_LAST", "COOPERATIVE,BFLOAT16,CHANNELS_LAST"
    })
    void everyValueOfSixteenBits(Family family, DataType type, Layout layout) {
        int c = 8;
        float[] gamma = {1, 0.5f, 1 + 0x1p-9f, 1 + 0x1p-12f, 1 / 3f, 1.7f, 1e-4f, 3e4f};
        int s = 65_536;
        float[] values = new float[c * s];
        float[] expected = new float[c * s];
        for (int i = 0; i < values.length; i++) {
            int channel = layout == Layout.CHANNELS_LAST ? i % c : i / s;
            values[i] = Stored.unpack(type, (short) (layout == Layout.CHANNELS_LAST ? i / c : i % s));
            expected[i] = Stored.round(type, values[i] * gamma[channel]);
        }
        BatchNormSpec spec = BatchNormSpec.of(c).withEps(0);
        try (Rig rig = new Rig(device);
                BatchNorm norm = BatchNorm.open(device, spec, Tuning.of(family))) {
            norm.gamma().write(gamma);
            Tensor x = Stored.tensor(rig, type, values, layout, Rig.shape(layout, 1, c, s));
            Tensor y = Stored.unwritten(rig, x);
            norm.infer(x, y);
            float[] got = Stored.read(y);
            for (int i = 0; i < got.length; i++) {
                float want = expected[i];
                // OpenCL allows floats below 2⁻¹²⁶ to be taken as 0.
                boolean small = Math.abs(values[i]) < Float.MIN_NORMAL || Math.abs(want) < Float.MIN_NORMAL;
                boolean right = Float.isNaN(want) ? Float.isNaN(got[i]) : got[i] == want || (small && got[i] == 0);
                int at = i;
                assertTrue(right, () -> type + " " + values[at] + ": expected " + want + ", got " + got[at]);
            }
        }
    }

    // Lengths of nothing.

    @ParameterizedTest
    @EnumSource
    void samplesOfNoLength(Family family) {
        for (Layout layout : Layout.values()) {
            try (Rig rig = new Rig(device);
                    Lengths lengths = Lengths.of(device, 0, 0, 0);
                    BatchNorm batch = BatchNorm.open(device, BatchNormSpec.of(4), Tuning.of(family));
                    GroupNorm group = GroupNorm.open(device, GroupNormSpec.of(2, 4), Tuning.of(family));
                    InstanceNorm instance = InstanceNorm.open(
                            device,
                            InstanceNormSpec.of(4).withAffine(true, true).withRunningStatistics(true),
                            Tuning.of(family))) {
                for (NormLayer layer : List.of(batch, group, instance)) {
                    long[] shape = Rig.shape(layout, 3, 4, 6);
                    Tensor x = Stored.tensor(rig, DataType.FLOAT, filled(72, Float.NaN), layout, shape);
                    Tensor y = Stored.unwritten(rig, x);
                    Tensor dx = Stored.unwritten(rig, x);
                    Input in = Input.of(x).withLengths(lengths);
                    Buffer dGamma = rig.floats(filled(4, 7));
                    Buffer dBeta = rig.floats(filled(4, 7));
                    Gradients out = Gradients.of(dx, dGamma, dBeta);
                    if (layer instanceof BatchNorm norm) {
                        try (Saved saved = norm.forward(Mode.TRAINING, in, y)) {
                            norm.backward(saved, in, x, out);
                            norm.commit(saved);
                        }
                        assertArrayEquals(new float[4], Rig.read(norm.runningMean()));
                        assertArrayEquals(filled(4, 1), Rig.read(norm.runningVar()));
                        assertEquals(1, norm.batchesTracked());
                    } else {
                        RowNorm norm = (RowNorm) layer;
                        try (Saved saved = norm.forward(in, y)) {
                            norm.backward(saved, in, x, out);
                            if (norm instanceof InstanceNorm other) {
                                other.commit(saved);
                                assertArrayEquals(filled(4, 1), Rig.read(other.runningVar()));
                            }
                        }
                    }
                    assertArrayEquals(new float[72], Stored.read(y), layer::toString);
                    assertArrayEquals(new float[72], Stored.read(dx), layer::toString);
                    assertArrayEquals(new float[4], Rig.read(dGamma), layer::toString);
                    assertArrayEquals(new float[4], Rig.read(dBeta), layer::toString);
                }
            }
        }
    }

    // Synchronized.

    /**
     * Shards of unequal size with lengths, a residual and ReLU, in any storage type: batch norm over all that count. The
     * second of the lengths given leave a shard, and all shards, without a value.
     */
    @ParameterizedTest
    @CsvSource({
        "WIDE,FLOAT,CHANNELS_FIRST,false",
        "WIDE,BFLOAT16,CHANNELS_FIRST,false",
        "WIDE,HALF,CHANNELS_LAST,false",
        "WIDE,FLOAT,CHANNELS_LAST,true",
        "COOPERATIVE,FLOAT,CHANNELS_LAST,false",
        "COOPERATIVE,BFLOAT16,CHANNELS_LAST,false",
        "COOPERATIVE,HALF,CHANNELS_FIRST,false",
        "COOPERATIVE,FLOAT,CHANNELS_FIRST,true"
    })
    void shardsWithLengths(Family family, DataType type, Layout layout, boolean nothing) {
        int[][] lengths = nothing ? new int[][] {{0, 0}, {}, {0}} : new int[][] {{9, 0, 4}, {0}, {1, 9, 2, 7, 0}};
        int c = 6;
        int s = 9;
        int[] all = Arrays.stream(lengths).flatMapToInt(Arrays::stream).toArray();
        int n = all.length;
        Random random = new Random(10);
        float[] x = Stored.round(type, Rig.perChannel(random, n, c, s, layout));
        float[] z = Stored.round(type, Rig.normal(random, x.length));
        float[] dy = Stored.round(type, Rig.normal(random, x.length));
        float[] gamma = Rig.normal(random, c);
        float[] beta = Rig.normal(random, c);
        boolean last = layout == Layout.CHANNELS_LAST;
        boolean[] counted = NormReference.counted(n, c, s, last, s, all);
        NormReference reference = NormReference.batchNorm(n, c, s, last).withCounted(counted);
        Statistics stats = reference.statistics(Rig.doubles(x));
        double[] v = reference.forward(stats, Rig.doubles(gamma), Rig.doubles(beta), Rig.doubles(x), Rig.doubles(z));
        for (int i = 0; i < dy.length; i++) {
            dy[i] = Math.abs(v[i]) < 0x1p-18 ? 0 : dy[i]; // a rounding could move it across 0
        }
        reference = reference.withActivation(Activation.RELU);
        double[] y = reference.forward(stats, Rig.doubles(gamma), Rig.doubles(beta), Rig.doubles(x), Rig.doubles(z));
        NormReference.Gradients expected = reference.backward(
                stats, Rig.doubles(gamma), Rig.doubles(beta), Rig.doubles(x), Rig.doubles(z), Rig.doubles(dy));
        double[] dGamma = new double[c];
        double[] dBeta = new double[c];
        List<AutoCloseable> open = new ArrayList<>();
        try {
            BatchNormSpec spec = BatchNormSpec.of(c).withActivation(Activation.RELU);
            List<BatchNorm> layers = new ArrayList<>();
            List<Input> xs = new ArrayList<>();
            List<Tensor> ys = new ArrayList<>();
            List<Tensor> dys = new ArrayList<>();
            List<Gradients> outs = new ArrayList<>();
            int at = 0;
            for (int i = 0; i < lengths.length; i++) {
                BatchNorm layer = BatchNorm.open(devices.get(i), spec, Tuning.of(family));
                layers.add(layer);
                Rig rig = new Rig(devices.get(i));
                Lengths own = Lengths.of(devices.get(i), lengths[i]);
                open.addAll(List.of(layer, rig, own));
                layer.gamma().write(gamma);
                layer.beta().write(beta);
                int to = at + lengths[i].length * c * s;
                long[] shape = Rig.shape(layout, lengths[i].length, c, s);
                Tensor tx = Stored.tensor(rig, type, Arrays.copyOfRange(x, at, to), layout, shape);
                Tensor tz = Stored.tensor(rig, type, Arrays.copyOfRange(z, at, to), layout, shape);
                xs.add(Input.of(tx).withResidual(tz).withLengths(own));
                ys.add(Stored.unwritten(rig, tx));
                dys.add(Stored.tensor(rig, type, Arrays.copyOfRange(dy, at, to), layout, shape));
                outs.add(Gradients.of(Stored.unwritten(rig, tx), rig.floats(c), rig.floats(c))
                        .withDz(Stored.unwritten(rig, tx)));
                at = to;
            }
            Replicas replicas = Replicas.of(layers);
            List<Saved> saved = replicas.forward(xs, ys);
            replicas.backward(saved, xs, dys, outs);
            at = 0;
            double largestY = 0;
            double largestDx = 0;
            for (int i = 0; i < y.length; i++) {
                largestY = Math.max(largestY, Math.abs(v[i]));
                largestDx = Math.max(largestDx, Math.abs(dy[i]));
            }
            double factor = 0;
            for (int i = 0; i < c; i++) {
                factor = Math.max(factor, stats.invStd()[i] * Math.abs(gamma[i]));
            }
            for (int i = 0; i < layers.size(); i++) {
                layers.get(i).commit(saved.get(i));
                near(type, y, at, Stored.read(ys.get(i)), 8 * 0x1p-24 * (largestY + 5));
                near(type, expected.dx(), at, Stored.read(outs.get(i).dx()), 12 * 0x1p-24 * factor * largestDx);
                near(type, expected.dz(), at, Stored.read(outs.get(i).dz()), 0);
                for (int k = 0; k < c; k++) {
                    dGamma[k] += Rig.read(outs.get(i).dGamma())[k];
                    dBeta[k] += Rig.read(outs.get(i).dBeta())[k];
                }
                assertArrayEquals(saved.get(0).mean(), saved.get(i).mean());
                assertArrayEquals(
                        Rig.read(layers.get(0).runningMean()),
                        Rig.read(layers.get(i).runningMean()));
                assertArrayEquals(
                        Rig.read(layers.get(0).runningVar()),
                        Rig.read(layers.get(i).runningVar()));
                at += (int) xs.get(i).x().elements();
            }
            // A shard's share is rounded once each, dGamma's terms once more.
            assertArrayEquals(expected.dBeta(), dBeta, 3 * 0x1p-24 * 60 * largestDx);
            assertArrayEquals(expected.dGamma(), dGamma, 6 * 0x1p-24 * 60 * largestDx);
            if (!nothing) {
                assertArrayEquals(stats.mean(), saved.get(0).mean(), 1e-12 * 10);
            }
            saved.forEach(Saved::close);
        } finally {
            open.forEach(NormEdgesTest::close);
        }
    }

    private static void close(AutoCloseable closeable) {
        try {
            closeable.close();
        } catch (Exception e) {
            throw new AssertionError(e);
        }
    }

    private static void near(DataType type, double[] expected, int from, float[] got, double within) {
        for (int i = 0; i < got.length; i++) {
            double want = expected[from + i];
            double tolerance = want == 0 && got[i] == 0 ? 0 : within + Stored.halfUnit(type, Math.abs(want) + within);
            int at = i;
            assertTrue(
                    Math.abs(got[i] - want) <= tolerance,
                    () -> "[" + at + "]: expected " + want + ", got " + got[at] + ", tolerance " + tolerance);
        }
    }
}
