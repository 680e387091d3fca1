package io.normcl;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

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
import java.util.Arrays;
import java.util.Objects;
import java.util.Random;
import java.util.function.IntToDoubleFunction;
import org.jspecify.annotations.Nullable;

/**
 * A forward and a backward of any layer, fused with anything, against the reference in double: every value within the
 * roundings that its own computation makes, u = 2⁻²⁴ each. What a layer only reads must stay, what it writes starts as
 * NaN, nothing may be written past an end, and a second run must give the same bits.
 */
record NormSweep(
        Kind kind,
        Layout layout,
        Tuning tuning,
        DataType type,
        Activation activation,
        boolean residual,
        boolean extra,
        Wanted wanted,
        boolean gamma,
        boolean beta,
        boolean accumulate,
        Alias alias,
        Size size) {
    private static final double U = 0x1p-24;

    /** Of sums in a block of floats. */
    private static final int ROUNDINGS = 31;

    /** The layers; evaluation is with running statistics. */
    enum Kind {
        BATCH,
        BATCH_EVALUATION,
        LAYER,
        RMS,
        RMS_ONE_PLUS,
        GROUP,
        PER_LOCATION,
        INSTANCE,
        INSTANCE_EVALUATION;

        boolean ofRows() {
            return this == LAYER || this == RMS || this == RMS_ONE_PLUS;
        }

        boolean running() {
            return this == BATCH_EVALUATION || this == INSTANCE_EVALUATION;
        }
    }

    /** Which gradients are asked for. */
    enum Wanted {
        ALL,
        INPUT,
        PARAMETERS,
        GAMMA,
        INPUT_AND_BETA
    }

    /** What shares its memory with what. */
    enum Alias {
        NONE,
        OUTPUTS,
        GRADIENTS
    }

    /**
     * The size of a tensor (n, c, h, w), or (n, h, w, c) with channels last. Layer and RMS norm take the last two of (n, h,
     * c, w) together.
     */
    record Size(int n, int c, int h, int w, int groups) {
        int s() {
            return h * w;
        }

        int elements() {
            return n * c * h * w;
        }
    }

    /** A layer on nothing but floats, with nothing fused and all gradients. */
    static NormSweep plain(Kind kind, Layout layout, Tuning tuning, Size size) {
        return new NormSweep(
                kind,
                layout,
                tuning,
                DataType.FLOAT,
                Activation.NONE,
                false,
                false,
                Wanted.ALL,
                true,
                true,
                false,
                Alias.NONE,
                size);
    }

    NormSweep withType(DataType newType) {
        return new NormSweep(
                kind,
                layout,
                tuning,
                newType,
                activation,
                residual,
                extra,
                wanted,
                gamma,
                beta,
                accumulate,
                alias,
                size);
    }

    NormSweep withActivation(Activation newActivation, boolean newResidual) {
        return new NormSweep(
                kind,
                layout,
                tuning,
                type,
                newActivation,
                newResidual,
                extra,
                wanted,
                gamma,
                beta,
                accumulate,
                alias,
                size);
    }

    /** With lengths or an addend, whichever the layer takes. */
    NormSweep withExtra() {
        return new NormSweep(
                kind, layout, tuning, type, activation, residual, true, wanted, gamma, beta, accumulate, alias, size);
    }

    NormSweep with(Wanted newWanted, boolean newGamma, boolean newBeta, boolean newAccumulate, Alias newAlias) {
        return new NormSweep(
                kind,
                layout,
                tuning,
                type,
                activation,
                residual,
                extra,
                newWanted,
                newGamma,
                newBeta,
                newAccumulate,
                newAlias,
                size);
    }

    boolean lengths() {
        return extra && !kind.ofRows() && kind != Kind.PER_LOCATION;
    }

    boolean addend() {
        return extra && kind.ofRows();
    }

    boolean hasGamma() {
        return gamma;
    }

    boolean hasBeta() {
        return beta && !isRms();
    }

    private boolean last() {
        return layout == Layout.CHANNELS_LAST;
    }

    int parameters() {
        return kind.ofRows() ? size.c * size.w : size.c;
    }

    private int rows() {
        return size.n * size.h;
    }

    long[] shape() {
        return kind.ofRows()
                ? new long[] {size.n, size.h, size.c, size.w}
                : last() ? new long[] {size.n, size.h, size.w, size.c} : new long[] {size.n, size.c, size.h, size.w};
    }

    /** Whether the layer refuses this size. */
    boolean refused() {
        return switch (kind) {
            case BATCH -> size.n * size.s() == 1;
            case INSTANCE -> size.s() == 1;
            case GROUP, PER_LOCATION -> size.elements() == size.groups;
            default -> false;
        };
    }

    private NormReference plainReference() {
        return switch (kind) {
            case BATCH, BATCH_EVALUATION -> NormReference.batchNorm(size.n, size.c, size.s(), last());
            case LAYER -> NormReference.layerNorm(rows(), parameters());
            case RMS, RMS_ONE_PLUS -> NormReference.rmsNorm(rows(), parameters(), kind == Kind.RMS_ONE_PLUS);
            case GROUP -> NormReference.groupNorm(size.n, size.c, size.s(), last(), size.groups);
            case PER_LOCATION -> NormReference.perLocation(size.n, size.c, size.s(), last(), size.groups);
            case INSTANCE, INSTANCE_EVALUATION -> NormReference.instanceNorm(size.n, size.c, size.s(), last());
        };
    }

    private NormLayer open(Device device) {
        return switch (kind) {
            case BATCH, BATCH_EVALUATION ->
                BatchNorm.open(
                        device, BatchNormSpec.of(size.c).withAffine(gamma, beta).withActivation(activation), tuning);
            case LAYER ->
                LayerNorm.open(
                        device,
                        LayerNormSpec.of(size.c, size.w).withAffine(gamma, beta).withActivation(activation),
                        tuning);
            case RMS, RMS_ONE_PLUS ->
                RmsNorm.open(
                        device,
                        RmsNormSpec.of(size.c, size.w)
                                .withEps(1e-5)
                                .withGamma(gamma)
                                .withOnePlusGamma(gamma && kind == Kind.RMS_ONE_PLUS)
                                .withActivation(activation),
                        tuning);
            case GROUP, PER_LOCATION ->
                GroupNorm.open(
                        device,
                        GroupNormSpec.of(size.groups, size.c)
                                .withPerLocation(kind == Kind.PER_LOCATION)
                                .withAffine(gamma, beta)
                                .withActivation(activation),
                        tuning);
            case INSTANCE, INSTANCE_EVALUATION ->
                InstanceNorm.open(
                        device,
                        InstanceNormSpec.of(size.c)
                                .withRunningStatistics(true)
                                .withAffine(gamma, beta)
                                .withActivation(activation),
                        tuning);
        };
    }

    /** Values of the layer's rows, each with a mean and a deviation of its own. */
    float[] values(Random random) {
        return kind.ofRows()
                ? Rig.perChannel(random, 1, rows(), parameters(), Layout.CHANNELS_FIRST)
                : Rig.perChannel(random, size.n, size.c, size.s(), layout);
    }

    /** Runs the layer twice over random values and compares. */
    void check(Device device, long seed) {
        Random random = new Random(seed);
        float[] values = values(random);
        check(device, random, values);
    }

    void check(Device device, Random random, float[] values) {
        if (refused()) {
            return; // NormRefusalsTest says how
        }
        Host host = new Host(this, random, values);
        Result first;
        Result second;
        try (NormLayer layer = open(device)) {
            first = run(device, layer, host);
            second = run(device, layer, host);
        }
        assertEquals(first, second, () -> "not the same bits twice: " + this);
        new Comparison(this, host, first).compare();
    }

    /**
     * Runs the layer with a ReLU and gradients of 1, a value for each beta being as near to the ReLU's kink as roundings let
     * it: gradients must come where the forward let values through, in dz as in dBeta.
     */
    void checkKink(Device device) {
        NormSweep sweep = withActivation(Activation.RELU, true);
        Random random = new Random(17);
        Host host = new Host(sweep, random, values(random));
        double[] scaled =
                host.plain.forward(host.statistics, Rig.doubles(host.gamma), null, Rig.doubles(host.normalized), null);
        for (int i = 0; i < scaled.length; i++) {
            host.beta[parameterOf(i)] = (float) -scaled[i];
        }
        Arrays.fill(host.z, 0);
        Arrays.fill(host.dy, 1);
        Result got;
        try (NormLayer layer = sweep.open(device)) {
            got = sweep.run(device, layer, host);
        }
        float[] dz = Objects.requireNonNull(got.dz);
        float[] sums = new float[parameters()];
        for (int i = 0; i < dz.length; i++) {
            int at = i;
            assertTrue(got.y[i] <= 0 || dz[i] == 1, () -> "y[" + at + "]=" + got.y[at] + " has no gradient: " + sweep);
            sums[parameterOf(i)] += dz[i];
        }
        assertArrayEquals(sums, got.dBeta, () -> "dBeta is not the sum of dz: " + sweep);
    }

    /** The number of the gamma and beta of a value. */
    private int parameterOf(int i) {
        return kind.ofRows() || last() ? i % parameters() : i / size.s() % size.c;
    }

    /** What goes in, as stored; padding is NaN in it. */
    private static final class Host {
        final float[] x;
        final float[] addend;
        final float[] normalized;
        final float[] z;
        final float[] dy;
        final float[] gamma;
        final float[] beta;
        final float[] runningMean;
        final float[] runningVar;
        final float[] oldDGamma;
        final float[] oldDBeta;
        final int @Nullable [] lengths;
        final boolean @Nullable [] counted;
        final NormReference plain;
        final NormReference reference;
        final Statistics batch;
        final Statistics statistics;

        Host(NormSweep sweep, Random random, float[] values) {
            Size size = sweep.size;
            x = Stored.round(sweep.type, values);
            addend = Stored.round(sweep.type, Rig.normal(random, x.length));
            z = Stored.round(sweep.type, Rig.normal(random, x.length));
            dy = Stored.round(sweep.type, Rig.normal(random, x.length));
            gamma = Rig.normal(random, sweep.parameters());
            beta = Rig.normal(random, sweep.parameters());
            runningMean = Rig.normal(random, size.c);
            runningVar = new float[size.c];
            for (int i = 0; i < size.c; i++) {
                runningVar[i] = 0.5f + random.nextFloat();
            }
            oldDGamma = Rig.normal(random, sweep.parameters());
            oldDBeta = Rig.normal(random, sweep.parameters());
            lengths = sweep.lengths() ? lengths(random, size) : null;
            counted = lengths == null
                    ? null
                    : NormReference.counted(size.n, size.c, size.s(), sweep.last(), size.w, lengths);
            normalized = x.clone();
            for (int i = 0; sweep.addend() && i < x.length; i++) {
                normalized[i] = Stored.round(sweep.type, x[i] + addend[i]);
            }
            plain = counted == null
                    ? sweep.plainReference()
                    : sweep.plainReference().withCounted(counted);
            reference = plain.withActivation(sweep.activation);
            batch = plain.statistics(Rig.doubles(normalized));
            statistics =
                    sweep.kind.running() ? plain.running(Rig.doubles(runningMean), Rig.doubles(runningVar)) : batch;
            silenceTheKink(sweep);
            for (int i = 0; counted != null && i < x.length; i++) {
                if (!counted[i]) {
                    x[i] = Float.NaN;
                    z[i] = Float.NaN;
                    dy[i] = Float.NaN;
                }
            }
        }

        /** Some none, some all; the first is all. */
        private static int[] lengths(Random random, Size size) {
            int[] lengths = new int[size.n];
            for (int i = 0; i < size.n; i++) {
                lengths[i] = i == 0 || i % 4 == 3 ? size.w : i % 3 == 1 ? 0 : random.nextInt(size.w + 1);
            }
            return lengths;
        }

        boolean counts(int i) {
            return counted == null || counted[i];
        }

        /** No gradient comes where a rounding could move a value across 0 and so change the derivative of a ReLU. */
        private void silenceTheKink(NormSweep sweep) {
            if (sweep.activation.kind() == Activation.Kind.RELU
                    || sweep.activation.kind() == Activation.Kind.LEAKY_RELU) {
                Bounds bounds = new Bounds(sweep, this);
                for (int i = 0; i < dy.length; i++) {
                    if (Math.abs(bounds.v[i]) <= 2 * bounds.ofV[i]) {
                        dy[i] = 0;
                    }
                }
            }
        }
    }

    /** How far roundings may move what scale and shift give, and what the activation makes of it. */
    private static final class Bounds {
        final double[] xHat;
        final double[] scaled;
        final double[] v;
        final double[] ofV;
        final double ofMean;
        final double largestScale;

        /** The mean is a high and a low float, 2⁻⁴⁸ of it, and comes of sums of that precision. */
        Bounds(NormSweep sweep, Host host) {
            double[] x = Rig.doubles(host.normalized);
            double[] gamma = sweep.hasGamma() ? Rig.doubles(host.gamma) : null;
            double[] beta = sweep.hasBeta() ? Rig.doubles(host.beta) : null;
            double[] z = sweep.residual ? Rig.doubles(host.z) : null;
            xHat = host.plain.forward(host.statistics, null, null, x, null);
            scaled = host.plain.forward(host.statistics, gamma, null, x, null);
            double[] shifted = host.plain.forward(host.statistics, gamma, beta, x, null);
            v = host.plain.forward(host.statistics, gamma, beta, x, z);
            largestScale = gamma == null ? 1 : largest(gamma) + (sweep.kind == Kind.RMS_ONE_PLUS ? 1 : 0);
            ofMean = sweep.kind.running() ? 0 : sweep.ofMean() * largest(x) * largest(host.statistics.invStd());
            ofV = new double[v.length];
            for (int i = 0; i < v.length; i++) {
                // Two differences, invStd, its product with gamma, the multiply-add's product; the sum; the residual's.
                ofV[i] = U
                                * ((4 + sweep.ofInvStd()) * Math.abs(scaled[i])
                                        + Math.abs(shifted[i])
                                        + (z == null ? 0 : Math.abs(v[i])))
                        + ofMean * largestScale;
            }
        }
    }

    /** Whether a row's gamma is as long as the row. */
    private boolean hasGammaPerValue() {
        return kind.ofRows()
                || (kind == Kind.PER_LOCATION && layout == Layout.CHANNELS_LAST)
                || (kind == Kind.GROUP && size.h() * size.w() == 1);
    }

    /** Whether a CPU takes sums in floats, block by block. */
    private boolean inBlocks() {
        return type != DataType.FLOAT && tuning.family() != Family.COOPERATIVE;
    }

    /** Of the largest value; in blocks, of its distance from the first one, each value's rounding and those of its block. */
    private double ofMean() {
        return 0x1p-44 + (inBlocks() && !isRms() ? 2 * (ROUNDINGS + 1) * U : 0);
    }

    /** Roundings of invStd, of the variance twice as many but for its own. In blocks it could be more, by what cancels. */
    private double ofInvStd() {
        return inBlocks() ? ROUNDINGS : 1;
    }

    private boolean isRms() {
        return kind == Kind.RMS || kind == Kind.RMS_ONE_PLUS;
    }

    /** What comes out. */
    @SuppressWarnings("ArrayRecordComponent") // a name for arrays, compared by their values
    private record Result(
            float[] y,
            float @Nullable [] sum,
            float @Nullable [] dx,
            float @Nullable [] dz,
            float @Nullable [] dGamma,
            float @Nullable [] dBeta,
            double[] mean,
            float[] invStd,
            float[] variance,
            float @Nullable [] runningMean,
            float @Nullable [] runningVar) {
        private Object[] parts() {
            return new Object[] {y, sum, dx, dz, dGamma, dBeta, mean, invStd, variance, runningMean, runningVar};
        }

        @Override
        public boolean equals(Object other) {
            return other instanceof Result result && Arrays.deepEquals(parts(), result.parts());
        }

        @Override
        public int hashCode() {
            return Arrays.deepHashCode(parts());
        }
    }

    private Result run(Device device, NormLayer layer, Host host) {
        try (Rig rig = new Rig(device);
                Lengths lengths = host.lengths == null ? null : Lengths.of(device, host.lengths)) {
            write(layer.gamma(), host.gamma);
            write(layer.beta(), host.beta);
            Tensor x = tensor(rig, host.x);
            Tensor z = tensor(rig, host.z);
            Tensor dy = tensor(rig, host.dy);
            Tensor sum = addend() ? alias == Alias.OUTPUTS ? x : Stored.unwritten(rig, x) : null;
            Input in = Input.of(x);
            in = residual ? in.withResidual(z) : in;
            in = sum != null ? in.withAddend(tensor(rig, host.addend), sum) : in;
            in = lengths != null ? in.withLengths(lengths) : in;
            Input read = in;
            // Where y takes the place of x, the backward gets x from elsewhere.
            boolean inPlace = alias == Alias.OUTPUTS && !addend();
            Tensor y = inPlace ? x : Stored.unwritten(rig, x);
            if (inPlace) {
                in = new Input(tensor(rig, host.x), in.z(), null, null, in.lengths());
            }
            boolean input = wanted != Wanted.PARAMETERS && wanted != Wanted.GAMMA;
            Tensor dx = !input ? null : alias == Alias.GRADIENTS ? dy : Stored.unwritten(rig, x);
            boolean withDz =
                    dx != null && (residual || (wanted == Wanted.INPUT && activation.kind() != Activation.Kind.NONE));
            Tensor dz = !withDz ? null : alias == Alias.GRADIENTS ? z : Stored.unwritten(rig, x);
            boolean ofGamma = wanted == Wanted.ALL || wanted == Wanted.PARAMETERS || wanted == Wanted.GAMMA;
            boolean ofBeta = wanted != Wanted.INPUT && wanted != Wanted.GAMMA;
            Buffer dGamma = ofGamma ? rig.floats(host.oldDGamma) : null;
            Buffer dBeta = ofBeta ? rig.floats(host.oldDBeta) : null;
            Gradients out = new Gradients(dx, dz, dGamma, dBeta, accumulate);
            try (Saved saved = forward(layer, host, read, y)) {
                backward(layer, saved, in, dy, out);
                commit(layer, saved);
                Result result = new Result(
                        Stored.read(y),
                        sum == null ? null : Stored.read(sum),
                        dx == null ? null : Stored.read(dx),
                        dz == null ? null : Stored.read(dz),
                        dGamma == null ? null : Rig.read(dGamma),
                        dBeta == null ? null : Rig.read(dBeta),
                        saved.mean(),
                        saved.invStd(),
                        saved.variance(),
                        running(layer, true),
                        running(layer, false));
                unchanged("x", host.x, in.x(), sum != in.x());
                unchanged("z", host.z, z, dz != z);
                unchanged("dy", host.dy, dy, dx != dy);
                return result;
            }
        }
    }

    private Saved forward(NormLayer layer, Host host, Input in, Tensor y) {
        Mode mode = kind.running() ? Mode.EVALUATION : Mode.TRAINING;
        if (layer instanceof BatchNorm norm) {
            write(norm.runningMean(), host.runningMean);
            write(norm.runningVar(), host.runningVar);
            return norm.forward(mode, in, y);
        }
        if (layer instanceof InstanceNorm norm) {
            write(norm.runningMean(), host.runningMean);
            write(norm.runningVar(), host.runningVar);
            return norm.forward(mode, in, y);
        }
        return ((RowNorm) layer).forward(in, y);
    }

    private static void backward(NormLayer layer, Saved saved, Input in, Tensor dy, Gradients out) {
        if (layer instanceof BatchNorm norm) {
            norm.backward(saved, in, dy, out);
        } else {
            ((RowNorm) layer).backward(saved, in, dy, out);
        }
    }

    private static void commit(NormLayer layer, Saved saved) {
        if (layer instanceof BatchNorm norm) {
            norm.commit(saved);
        } else if (layer instanceof InstanceNorm norm) {
            norm.commit(saved);
        }
    }

    private static float @Nullable [] running(NormLayer layer, boolean mean) {
        if (layer instanceof BatchNorm norm) {
            return Rig.read(mean ? norm.runningMean() : norm.runningVar());
        }
        return layer instanceof InstanceNorm norm ? Rig.read(mean ? norm.runningMean() : norm.runningVar()) : null;
    }

    private Tensor tensor(Rig rig, float[] values) {
        return Stored.tensor(rig, type, values, layout, shape());
    }

    private void unchanged(String what, float[] values, Tensor tensor, boolean mustBe) {
        if (mustBe) {
            assertArrayEquals(values, Stored.read(tensor), () -> what + " has changed: " + this);
        }
    }

    private static void write(@Nullable Buffer buffer, float[] values) {
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

    /** A result against the reference. */
    private record Comparison(NormSweep sweep, Host host, Result got) {
        void compare() {
            double[] x = Rig.doubles(host.normalized);
            double[] gamma = sweep.hasGamma() ? Rig.doubles(host.gamma) : null;
            double[] beta = sweep.hasBeta() ? Rig.doubles(host.beta) : null;
            double[] z = sweep.residual ? Rig.doubles(host.z) : null;
            double[] dy = Rig.doubles(host.dy);
            Bounds bounds = new Bounds(sweep, host);
            Statistics stats = host.statistics;
            if (got.sum != null) {
                assertArrayEquals(host.normalized, got.sum, () -> "sum: " + sweep);
            }
            statistics(stats, x);
            double[] y = host.reference.forward(stats, gamma, beta, x, z);
            near("y", y, got.y, i -> ofY(bounds, y, i));

            NormReference.Gradients expected = host.reference.backward(stats, gamma, beta, x, z, dy);
            double[] ofG = new double[y.length];
            double[] h = new double[y.length];
            double[] g = expected.dz();
            double[] gX = new double[y.length];
            for (int i = 0; i < y.length; i++) {
                ofG[i] = host.counts(i) ? ofG(bounds.v[i], bounds.ofV[i], dy[i], g[i]) : 0;
                h[i] = Math.abs(g[i]) * bounds.largestScale;
                gX[i] = Math.abs(g[i] * bounds.xHat[i]);
            }
            near("dz", g, got.dz, i -> ofG[i]);
            double[] invStd = invStd(stats, x);
            double most = largest(h);
            double mostOfG = largest(ofG) * bounds.largestScale;
            near("dx", expected.dx(), got.dx, i -> {
                if (stats.running()) {
                    return invStd[i] * bounds.largestScale * ofG[i] + 4 * U * Math.abs(expected.dx()[i]);
                }
                // Of h, of its mean, of their difference r, of xHat·mean(h·xHat) with five roundings, and r's with two
                // factors: |h| and both means are at most the largest h. Sums of blocks, of products with three
                // roundings.
                double xHat = Math.abs(bounds.xHat[i]);
                double roundings = 11 + 9 * xHat + (sweep.inBlocks() ? (ROUNDINGS + 3) * (1 + xHat) : 0);
                return invStd[i] * ((U * roundings + 2 * bounds.ofMean) * most + (2 + xHat) * mostOfG);
            });
            double[] sums = sums(stats, x, absolute(g));
            double[] products = sums(stats, x, gX);
            double[] ofGX = new double[y.length];
            for (int i = 0; i < y.length; i++) {
                ofGX[i] = ofG[i] * Math.abs(bounds.xHat[i]);
            }
            double[] ofSums = sums(stats, x, ofG);
            double[] ofProducts = sums(stats, x, ofGX);
            // Where a row's gamma is as long as the row, a CPU adds up to four rows in float, then of 16 bits a block:
            // of sums three roundings and a block's, of products those of xHat and of each fma besides.
            int inFloat = (sweep.hasGammaPerValue() ? 3 : 0) + (sweep.inBlocks() ? ROUNDINGS : 0);
            double ofSum = 0x1p-40 + inFloat * U;
            double ofProduct = 0x1p-40 + (inFloat == 0 ? 2 : inFloat + 4) * U; // invStd is a float in each product
            parameter("dBeta", expected.dBeta(), got.dBeta, host.oldDBeta, i -> ofSums[i] + ofSum * sums[i]);
            parameter(
                    "dGamma",
                    expected.dGamma(),
                    got.dGamma,
                    host.oldDGamma,
                    i -> ofProducts[i] + ofProduct * products[i] + bounds.ofMean * sums[i]);
        }

        private double ofY(Bounds bounds, double[] y, int i) {
            return switch (sweep.activation.kind()) {
                case NONE, RELU -> bounds.ofV[i];
                case LEAKY_RELU -> bounds.ofV[i] + U * Math.abs(y[i]);
                // The derivative is at most 1.1; exp is good to 3 units, the division to 2.5.
                case SILU -> 1.1 * bounds.ofV[i] + 13 * U * Math.abs(y[i]);
            };
        }

        private double ofG(double v, double ofV, double dy, double g) {
            return switch (sweep.activation.kind()) {
                case NONE, RELU -> 0;
                case LEAKY_RELU -> U * Math.abs(g);
                // The second derivative is at most 0.5; the sigmoid carries 12 roundings.
                case SILU ->
                    Math.abs(dy) * (0.5 * ofV + 16 * U * (1 + Math.abs(v)) / (1 + Math.exp(-v))) + U * Math.abs(g);
            };
        }

        private void statistics(Statistics stats, double[] x) {
            if (sweep.kind.running()) {
                assertArrayEquals(host.runningMean, got.runningMean, () -> "moved: " + sweep);
                return;
            }
            double[] mean = stats.mean();
            assertArrayEquals(mean, got.mean, sweep.ofMean() * largest(x), () -> "mean: " + sweep);
            for (int i = 0; i < mean.length; i++) {
                double invStd = stats.invStd()[i];
                double variance = stats.variance()[i];
                double within = 1.01 * U * sweep.ofInvStd();
                assertEquals(invStd, got.invStd[i], within * invStd, () -> "invStd: " + sweep);
                assertEquals(
                        inFloats(variance),
                        got.variance[i],
                        (2 * within - 1.01 * U) * variance,
                        () -> "variance: " + sweep);
            }
            if (got.runningMean != null) {
                double[] runningMean = Rig.doubles(host.runningMean);
                double[] runningVar = Rig.doubles(host.runningVar);
                host.plain.update(stats, 0.1, true, runningMean, runningVar);
                for (int c = 0; c < runningMean.length; c++) {
                    // The batch's variance is a float, the sum is rounded once and corrected.
                    assertEquals(
                            runningMean[c],
                            got.runningMean[c],
                            2 * U * (10 + largest(x)) + 0.1 * sweep.ofMean() * largest(x),
                            () -> "runningMean: " + sweep);
                    double within = 2 * U * sweep.ofInvStd() * runningVar[c];
                    assertEquals(inFloats(runningVar[c]), got.runningVar[c], within, () -> "runningVar: " + sweep);
                }
            }
        }

        private static double inFloats(double value) {
            return value > Float.MAX_VALUE ? Double.POSITIVE_INFINITY : value;
        }

        /** Of each element. */
        private double[] invStd(Statistics stats, double[] x) {
            double[] ones = new double[x.length];
            Arrays.fill(ones, 1);
            return host.plain
                    .backward(constants(stats), null, null, x, null, ones)
                    .dx();
        }

        /** Sums of each parameter. */
        private double[] sums(Statistics stats, double[] x, double[] values) {
            return host.plain
                    .backward(constants(stats), null, null, x, null, values)
                    .dBeta();
        }

        private static Statistics constants(Statistics stats) {
            return new Statistics(true, stats.count(), stats.mean(), stats.meanLow(), stats.variance(), stats.invStd());
        }

        private static double[] absolute(double[] values) {
            return Arrays.stream(values).map(Math::abs).toArray();
        }

        /** Within the bound and the rounding to the type; 0 where there is padding. */
        private void near(String what, double[] expected, float @Nullable [] values, IntToDoubleFunction bound) {
            if (values == null) {
                return;
            }
            assertEquals(expected.length, values.length, what);
            for (int i = 0; i < values.length; i++) {
                double within = bound.applyAsDouble(i);
                double tolerance =
                        host.counts(i) ? within + Stored.halfUnit(sweep.type, Math.abs(expected[i]) + within) : 0;
                within(what, i, expected[i], values[i], tolerance);
            }
        }

        private void parameter(
                String what, double[] expected, float @Nullable [] values, float[] old, IntToDoubleFunction bound) {
            for (int i = 0; values != null && i < values.length; i++) {
                double total = expected[i] + (sweep.accumulate ? old[i] : 0);
                double rounding = U * (Math.abs(expected[i]) + (sweep.accumulate ? Math.abs(total) : 0));
                within(what, i, total, values[i], 1.01 * rounding + bound.applyAsDouble(i));
            }
        }

        private void within(String what, int i, double expected, float value, double tolerance) {
            assertTrue(
                    Math.abs(value - expected) <= tolerance,
                    () -> what + "[" + i + "]: expected " + expected + ", got " + value + ", off by "
                            + Math.abs(value - expected) + ", tolerance " + tolerance + ", " + sweep);
        }
    }
}
