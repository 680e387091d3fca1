package io.normcl.reference;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.normcl.reference.NormReference.Gradients;
import io.normcl.reference.NormReference.Statistics;
import io.normcl.tensor.Activation;
import java.math.BigDecimal;
import java.math.MathContext;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;
import java.util.function.DoubleSupplier;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Every layer against values by hand, exact sums, finite differences, and the layers that it must equal. */
class NormReferenceTest {
    private static final int N = 3;
    private static final int C = 4;
    private static final int L = 3;
    private static final int S = 2 * L;

    private final SplittableRandom random = new SplittableRandom(11);

    @Test
    void layerNormByHand() {
        NormReference reference = NormReference.layerNorm(2, 2).withEps(0);
        double[] x = {1, 5, 4, 2};
        Statistics statistics = reference.statistics(x);
        assertArrayEquals(new long[] {2, 2}, statistics.count());
        assertArrayEquals(new double[] {3, 3}, statistics.mean());
        assertArrayEquals(new double[] {4, 1}, statistics.variance());
        assertArrayEquals(new double[] {0.5, 1}, statistics.invStd());

        double[] gamma = {2, 3};
        double[] beta = {10, 20};
        double[] dy = {1, 2, 3, 4};
        assertArrayEquals(new double[] {8, 23, 12, 17}, reference.forward(statistics, gamma, beta, x, null));
        Gradients gradients = reference.backward(statistics, gamma, beta, x, null, dy);
        assertArrayEquals(new double[] {-1 + 3, 2 - 4}, gradients.dGamma());
        assertArrayEquals(new double[] {4, 6}, gradients.dBeta());
        // g = (2, 6), mean 4, mean of g·x̂ 2; g = (6, 12), mean 9, mean of g·x̂ -3: two values have no freedom left
        assertArrayEquals(new double[4], gradients.dx());
    }

    @Test
    void rmsNormByHand() {
        NormReference reference = NormReference.rmsNorm(1, 2, false).withEps(0);
        double[] x = {1, 7};
        Statistics statistics = reference.statistics(x);
        assertArrayEquals(new double[] {0}, statistics.mean());
        assertArrayEquals(new double[] {25}, statistics.variance());
        assertArrayEquals(new double[] {0.2}, statistics.invStd());
        double[] gamma = {2, 3};
        assertArrayEquals(new double[] {0.4, 4.2}, reference.forward(statistics, gamma, null, x, null), 1e-15);
        Gradients gradients = reference.backward(statistics, gamma, null, x, null, new double[] {5, 10});
        assertArrayEquals(new double[] {1, 14}, gradients.dGamma(), 1e-14);
        // g = (10, 30), mean of g·x̂ = (2 + 42)/2 = 22
        assertArrayEquals(new double[] {0.2 * (10 - 0.2 * 22), 0.2 * (30 - 1.4 * 22)}, gradients.dx(), 1e-14);

        NormReference one = NormReference.rmsNorm(1, 2, true).withEps(0);
        assertArrayEquals(new double[] {0.6, 5.6}, one.forward(statistics, gamma, null, x, null), 1e-15);
        assertArrayEquals(new double[] {0.2, 1.4}, one.forward(statistics, null, null, x, null), 1e-15);
        assertArrayEquals(
                new double[] {3 - 0.2 * 0.2 * (3 * 5 * 0.2 + 4 * 10 * 1.4) / 2},
                Arrays.copyOf(
                        one.backward(statistics, gamma, null, x, null, new double[] {5, 10})
                                .dx(),
                        1),
                1e-14);
    }

    /** One sample of four channels at two places; channel c at place s holds 10^c·(1 + s). */
    @Test
    void eachLayerTakesItsOwnElements() {
        double[] first = {1, 2, 10, 20, 100, 200, 1000, 2000};
        double[] last = {1, 10, 100, 1000, 2, 20, 200, 2000};
        double[] group = {33 / 4.0, 3300 / 4.0};
        assertArrayEquals(
                group,
                NormReference.groupNorm(1, 4, 2, false, 2).statistics(first).mean());
        assertArrayEquals(
                group,
                NormReference.groupNorm(1, 4, 2, true, 2).statistics(last).mean());
        double[] channel = {1.5, 15, 150, 1500};
        assertArrayEquals(
                channel,
                NormReference.instanceNorm(1, 4, 2, false).statistics(first).mean());
        assertArrayEquals(
                channel,
                NormReference.instanceNorm(1, 4, 2, true).statistics(last).mean());
        assertArrayEquals(
                channel,
                NormReference.batchNorm(1, 4, 2, false).statistics(first).mean());
        assertArrayEquals(
                channel, NormReference.batchNorm(1, 4, 2, true).statistics(last).mean());
        assertArrayEquals(
                new double[] {5.5, 11, 550, 1100},
                NormReference.perLocation(1, 4, 2, false, 2).statistics(first).mean());
        assertArrayEquals(
                new double[] {5.5, 550, 11, 1100},
                NormReference.perLocation(1, 4, 2, true, 2).statistics(last).mean());
    }

    @Test
    void activationsByHand() {
        double[] x = {-2, 0, 3, Double.NaN};
        double silu = 1 / (1 + Math.exp(2));
        assertActivation(Activation.NONE, x, x, new double[] {1, 1, 1, 1});
        assertActivation(Activation.RELU, x, new double[] {0, 0, 3, Double.NaN}, new double[] {0, 0, 1, 1});
        assertActivation(
                Activation.leakyRelu(0.25), x, new double[] {-0.5, 0, 3, Double.NaN}, new double[] {0.25, 0.25, 1, 0.25
                });
        assertActivation(
                Activation.SILU, new double[] {-2, 0, -800, 800}, new double[] {-2 * silu, 0, 0, 800}, new double[] {
                    silu * (1 - 2 * (1 - silu)), 0.5, 0, 1
                });
    }

    private static void assertActivation(Activation activation, double[] x, double[] y, double[] slopes) {
        NormReference reference =
                NormReference.batchNorm(1, 1, 4, true).withEps(0).withActivation(activation);
        Statistics plain = reference.running(new double[] {0}, new double[] {1});
        double[] z = {-1, 1, 2, 3};
        double[] without = new double[4];
        Arrays.setAll(without, i -> x[i] - z[i]);
        assertArrayEquals(y, reference.forward(plain, null, null, x, null), 1e-15);
        assertArrayEquals(y, reference.forward(plain, null, null, without, z), 1e-15);
        Gradients gradients = reference.backward(plain, null, null, without, z, new double[] {2, 2, 2, 2});
        double[] expected = Arrays.stream(slopes).map(slope -> 2 * slope).toArray();
        assertArrayEquals(expected, gradients.dz(), 1e-15);
        assertArrayEquals(expected, gradients.dx(), 1e-15);
    }

    @ParameterizedTest
    @CsvSource({"0, 1", "1e8, 1e-4", "-3e6, 1", "1e30, 1e29", "0, 1e30", "1e-37, 1e-40"})
    void statisticsAndOutputsAreExact(double mean, double deviation) {
        double[] x = values(1001, mean, deviation);
        BigDecimal count = BigDecimal.valueOf(x.length);
        BigDecimal exactMean = sum(x, BigDecimal.ZERO, 1).divide(count, MathContext.DECIMAL128);
        NormReference layer = NormReference.layerNorm(1, x.length).withEps(0);
        Statistics statistics = layer.statistics(x);
        BigDecimal gotMean = new BigDecimal(statistics.mean()[0])
                .add(new BigDecimal(statistics.meanLow()[0]));
        assertEquals(0, gotMean.subtract(exactMean).doubleValue(), 1e-16 * deviation);
        double variance =
                sum(x, exactMean, 2).divide(count, MathContext.DECIMAL128).doubleValue();
        assertEquals(variance, statistics.variance()[0], 1e-15 * variance);
        double[] y = layer.forward(statistics, null, null, x, null);
        for (int i = 0; i < x.length; i++) {
            double exact = new BigDecimal(x[i]).subtract(exactMean).doubleValue() / Math.sqrt(variance);
            assertEquals(exact, y[i], 1e-15 * Math.max(1, Math.abs(exact)));
        }

        double square =
                sum(x, BigDecimal.ZERO, 2).divide(count, MathContext.DECIMAL128).doubleValue();
        Statistics rms = NormReference.rmsNorm(1, x.length, false).statistics(x);
        assertEquals(square, rms.variance()[0], 1e-15 * square);
    }

    static Stream<Arguments> slopes() {
        List<Layer> layers = List.of(
                new Layer("layer norm", NormReference.layerNorm(N * S, C), C, false),
                new Layer("RMS norm", NormReference.rmsNorm(N * S, C, false), C, false),
                new Layer("RMS norm, 1 + gamma", NormReference.rmsNorm(N * S, C, true), C, false),
                new Layer("group norm, first", NormReference.groupNorm(N, C, S, false, 2), C, false),
                new Layer("group norm, last", NormReference.groupNorm(N, C, S, true, 2), C, false),
                new Layer("instance norm, first", NormReference.instanceNorm(N, C, S, false), C, false),
                new Layer("instance norm, last", NormReference.instanceNorm(N, C, S, true), C, false),
                new Layer("instance norm, running", NormReference.instanceNorm(N, C, S, true), C, true),
                new Layer("per location, first", NormReference.perLocation(N, C, S, false, 2), C, false),
                new Layer("per location, last", NormReference.perLocation(N, C, S, true, 2), C, false),
                new Layer("batch norm, first", NormReference.batchNorm(N, C, S, false), C, false),
                new Layer("batch norm, last", NormReference.batchNorm(N, C, S, true), C, false),
                new Layer("batch norm, running", NormReference.batchNorm(N, C, S, false), C, true));
        List<Activation> activations =
                List.of(Activation.NONE, Activation.RELU, Activation.leakyRelu(0.1), Activation.SILU);
        return layers.stream().flatMap(layer -> activations.stream().map(kind -> Arguments.of(layer, kind)));
    }

    /** A reference of N·C·S elements, and whether it is to use running statistics. */
    private record Layer(String name, NormReference reference, int parameters, boolean running) {
        @Override
        public String toString() {
            return name;
        }
    }

    /**
     * With eps 0.1 the third derivative is below 100, so that central differences over 2e-5 are off by 2e-9 at most,
     * and by the rounding of sums of 72 values, some 1e-14, over 2e-5.
     */
    @ParameterizedTest
    @MethodSource("slopes")
    void gradientsAreTheSlopesOfARandomFunction(Layer layer, Activation activation) {
        for (boolean residual : new boolean[] {false, true}) {
            for (boolean masked : new boolean[] {false, true}) {
                NormReference reference = layer.reference.withEps(0.1).withActivation(activation);
                if (masked) {
                    boolean[] counted = new boolean[N * C * S];
                    for (int i = 0; i < counted.length; i++) {
                        counted[i] = random.nextInt(4) > 0;
                    }
                    reference = reference.withCounted(counted);
                }
                assertSlopes(reference, layer.parameters, layer.running, residual);
            }
        }
    }

    private void assertSlopes(NormReference reference, int parameters, boolean running, boolean residual) {
        double[] x = values(N * C * S, 1, 2);
        double[] z = residual ? values(x.length, 0, 1) : null;
        double[] gamma = values(parameters, 1, 0.5);
        double[] beta = values(parameters, 0, 1);
        double[] dy = values(x.length, 0, 1);
        Statistics given = running ? reference.running(values(parameters, 1, 0.1), new double[] {2, 3, 4, 5}) : null;
        Statistics before = given == null ? reference.statistics(x) : given;
        double[] linear = reference.withActivation(Activation.NONE).forward(before, gamma, beta, x, z);
        for (int i = 0; i < dy.length; i++) {
            dy[i] = Math.abs(linear[i]) < 1e-3 ? 0 : dy[i]; // no slope across the corner of ReLU
        }
        Gradients gradients = reference.backward(before, gamma, beta, x, z, dy);
        DoubleSupplier function = () -> {
            Statistics now = given == null ? reference.statistics(x) : given;
            double[] y = reference.forward(now, gamma, beta, x, z);
            Sum sum = new Sum();
            for (int i = 0; i < y.length; i++) {
                sum.add(dy[i] * y[i]);
            }
            return sum.value();
        };
        assertSlopes(function, x, gradients.dx(), "x");
        assertSlopes(function, gamma, gradients.dGamma(), "gamma");
        assertSlopes(function, beta, gradients.dBeta(), "beta");
        if (z != null) {
            assertSlopes(function, z, gradients.dz(), "z");
        }
    }

    private static void assertSlopes(DoubleSupplier function, double[] varied, double[] slopes, String name) {
        for (int i = 0; i < varied.length; i++) {
            double before = varied[i];
            varied[i] = before + 1e-5;
            double right = function.getAsDouble();
            varied[i] = before - 1e-5;
            double left = function.getAsDouble();
            varied[i] = before;
            assertEquals((right - left) / 2e-5, slopes[i], 4e-9, name + " " + i);
        }
    }

    @Test
    void groupNormOfOneGroupIsLayerNormOfTheSample() {
        double[] x = values(N * C * S, 3, 2);
        double[] dy = values(x.length, 0, 1);
        assertSame(NormReference.layerNorm(N, C * S), NormReference.groupNorm(N, C, S, false, 1), null, x, dy);
        assertSame(NormReference.layerNorm(N, C * S), NormReference.groupNorm(N, C, S, true, 1), null, x, dy);
    }

    @Test
    void oneGroupPerLocationIsLayerNormOverTheChannels() {
        double[] x = values(N * C * S, 3, 2);
        double[] dy = values(x.length, 0, 1);
        double[] gamma = values(C, 1, 1);
        NormReference layer = NormReference.layerNorm(N * S, C);
        assertSame(layer, NormReference.perLocation(N, C, S, true, 1), gamma, x, dy);

        NormReference first = NormReference.perLocation(N, C, S, false, 1);
        double[] moved = channelsFirst(x);
        assertArrayEquals(
                channelsFirst(layer.forward(layer.statistics(x), gamma, null, x, null)),
                first.forward(first.statistics(moved), gamma, null, moved, null));
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void instanceNormIsBatchNormOfEachSample(boolean channelsLast) {
        double[] x = values(N * C * S, 3, 2);
        double[] dy = values(x.length, 0, 1);
        double[] gamma = values(C, 1, 1);
        NormReference instance = NormReference.instanceNorm(N, C, S, channelsLast);
        NormReference batch = NormReference.batchNorm(1, C, S, channelsLast);
        Statistics all = instance.statistics(x);
        double[] y = instance.forward(all, gamma, null, x, null);
        Gradients gradients = instance.backward(all, gamma, null, x, null, dy);
        for (int n = 0; n < N; n++) {
            double[] sample = sample(x, n);
            Statistics statistics = batch.statistics(sample);
            assertArrayEquals(batch.forward(statistics, gamma, null, sample, null), sample(y, n));
            assertArrayEquals(
                    batch.backward(statistics, gamma, null, sample, null, sample(dy, n))
                            .dx(),
                    sample(gradients.dx(), n));
        }
    }

    @ParameterizedTest
    @CsvSource({"false, false", "false, true", "true, false", "true, true"})
    void batchNormIsTheReferenceOfBatchNorm(boolean channelsLast, boolean running) {
        double[] x = values(N * C * S, 1e6, 2);
        double[] dy = values(x.length, 0, 1);
        double[] gamma = values(C, 1, 1);
        double[] beta = values(C, 0, 1);
        double[] mean = values(C, 1e6, 1);
        double[] variance = {1, 2, 3, 4};
        BatchNormReference other = new BatchNormReference(C, S, channelsLast);
        BatchNormReference.Statistics theirs =
                running ? BatchNormReference.Statistics.running(mean, variance) : other.statistics(List.of(x));
        NormReference reference = NormReference.batchNorm(N, C, S, channelsLast);
        Statistics ours = running ? reference.running(mean, variance) : reference.statistics(x);

        assertArrayEquals(theirs.mean(), ours.mean());
        assertArrayEquals(theirs.meanLow(), ours.meanLow());
        assertArrayEquals(theirs.variance(), ours.variance());
        assertArrayEquals(theirs.invStd(1e-5), ours.invStd());
        assertArrayEquals(other.forward(theirs, 1e-5, gamma, beta, x), reference.forward(ours, gamma, beta, x, null));
        BatchNormReference.Gradients expected = other.backward(theirs, !running, 1e-5, gamma, List.of(x), List.of(dy))
                .get(0);
        Gradients gradients = reference.backward(ours, gamma, beta, x, null, dy);
        assertArrayEquals(expected.dx(), gradients.dx(), 1e-14);
        assertArrayEquals(expected.dGamma(), gradients.dGamma());
        assertArrayEquals(expected.dBeta(), gradients.dBeta());
        assertArrayEquals(dy, gradients.dz());

        if (!running) {
            double[] otherMean = mean.clone();
            double[] otherVariance = variance.clone();
            BatchNormReference.update(theirs, 0.3, true, otherMean, otherVariance);
            reference.update(ours, 0.3, true, mean, variance);
            assertArrayEquals(otherMean, mean);
            assertArrayEquals(otherVariance, variance);
        }
    }

    @Test
    void instanceNormsRunningStatisticsAreMeansOverTheSamples() {
        NormReference reference = NormReference.instanceNorm(2, 2, 2, false);
        double[] x = {1, 3, 10, 10, 5, 9, 20, 30};
        double[] mean = {1, 1};
        double[] variance = {1, 1};
        reference.update(reference.statistics(x), 0.5, true, mean, variance);
        // means 2, 7 and 10, 25; unbiased variances 2, 8 and 0, 50
        assertArrayEquals(new double[] {0.5 + 0.5 * 4.5, 0.5 + 0.5 * 17.5}, mean);
        assertArrayEquals(new double[] {0.5 + 0.5 * 5, 0.5 + 0.5 * 25}, variance);
        reference.update(reference.statistics(x), 1, false, mean, variance);
        assertArrayEquals(new double[] {2.5, 12.5}, variance);

        // The first sample keeps one place, so that only the second has a variance to tell of.
        NormReference masked = reference.withCounted(NormReference.counted(2, 2, 2, false, 2, 1, 2));
        masked.update(masked.statistics(x), 1, true, mean, variance);
        assertArrayEquals(new double[] {4, 17.5}, mean);
        assertArrayEquals(new double[] {8, 50}, variance);

        NormReference nothing = reference.withCounted(new boolean[8]);
        nothing.update(nothing.statistics(x), 1, true, mean, variance);
        assertArrayEquals(new double[] {4, 17.5}, mean);
        assertArrayEquals(new double[] {8, 50}, variance);
    }

    @Test
    void lengthsCountAlongTheLastDimension() {
        // Two samples of two channels at 2·3 places; of the first sample two of three positions count.
        boolean[] row = {true, true, false};
        boolean[] first = NormReference.counted(2, 2, 6, false, 3, 2, 0);
        boolean[] last = NormReference.counted(2, 2, 6, true, 3, 2, 0);
        for (int i = 0; i < 12; i++) {
            assertEquals(row[i % 3], first[i]);
            assertEquals(row[i / 2 % 3], last[i]);
        }
        for (int i = 12; i < 24; i++) {
            assertTrue(!first[i] && !last[i]);
        }
    }

    /** What doesn't count may hold anything: batch norm over lengths is batch norm of the places that count. */
    @ParameterizedTest
    @CsvSource({"false, NONE", "false, SILU", "true, RELU"})
    void aMaskLeavesOutWhatDoesNotCount(boolean channelsLast, Activation.Kind kind) {
        Activation activation = new Activation(kind, 0);
        boolean[] counted = NormReference.counted(N, C, S, channelsLast, L, 2, 0, 3);
        double[] x = values(counted.length, 2, 3);
        double[] z = values(counted.length, 0, 1);
        double[] dy = values(counted.length, 0, 1);
        double[] gamma = values(C, 1, 1);
        double[] beta = values(C, 0, 1);
        for (int i = 0; i < counted.length; i++) {
            if (!counted[i]) {
                x[i] = Double.NaN;
                z[i] = Double.POSITIVE_INFINITY;
                dy[i] = Double.NaN;
            }
        }
        NormReference reference = NormReference.batchNorm(N, C, S, channelsLast)
                .withActivation(activation)
                .withCounted(counted);
        Statistics statistics = reference.statistics(x);
        double[] y = reference.forward(statistics, gamma, beta, x, z);
        Gradients gradients = reference.backward(statistics, gamma, beta, x, z, dy);

        int places = (2 + 0 + 3) * S / L;
        NormReference packed =
                NormReference.batchNorm(1, C, places, channelsLast).withActivation(activation);
        double[] packedX = channelsLast ? pack(x, counted) : packFirst(x, counted);
        double[] packedZ = channelsLast ? pack(z, counted) : packFirst(z, counted);
        double[] packedDy = channelsLast ? pack(dy, counted) : packFirst(dy, counted);
        Statistics packedStatistics = packed.statistics(packedX);
        assertArrayEquals(packedStatistics.count(), statistics.count());
        assertArrayEquals(packedStatistics.variance(), statistics.variance());
        assertArrayEquals(
                packed.forward(packedStatistics, gamma, beta, packedX, packedZ),
                channelsLast ? pack(y, counted) : packFirst(y, counted));
        Gradients expected = packed.backward(packedStatistics, gamma, beta, packedX, packedZ, packedDy);
        assertArrayEquals(
                expected.dx(), channelsLast ? pack(gradients.dx(), counted) : packFirst(gradients.dx(), counted));
        assertArrayEquals(
                expected.dz(), channelsLast ? pack(gradients.dz(), counted) : packFirst(gradients.dz(), counted));
        assertArrayEquals(expected.dGamma(), gradients.dGamma());
        assertArrayEquals(expected.dBeta(), gradients.dBeta());
        for (int i = 0; i < counted.length; i++) {
            if (!counted[i]) {
                assertEquals(0, y[i]);
                assertEquals(0, gradients.dx()[i]);
                assertEquals(0, gradients.dz()[i]);
            }
        }
    }

    @Test
    void aRowWhereNothingCountsIsZero() {
        NormReference reference = NormReference.layerNorm(2, 2).withCounted(new boolean[] {false, false, true, true});
        double[] x = {Double.NaN, Double.NaN, 1, 3};
        double[] beta = {1, 1};
        Statistics statistics = reference.statistics(x);
        assertArrayEquals(new long[] {0, 2}, statistics.count());
        assertArrayEquals(new double[] {0, 2}, statistics.mean());
        assertArrayEquals(new double[] {0, 1}, statistics.variance());
        assertEquals(0, statistics.invStd()[0]);
        double[] y = reference.forward(statistics, null, beta, x, null);
        assertArrayEquals(new double[] {0, 0}, Arrays.copyOf(y, 2));
        Gradients gradients = reference.backward(statistics, null, beta, x, null, new double[] {5, 6, 7, 8});
        assertArrayEquals(new double[] {0, 0}, Arrays.copyOf(gradients.dx(), 2));
        assertArrayEquals(new double[] {7, 8}, gradients.dBeta());
    }

    @Test
    void aFlatRowWithoutEpsIsBetaOrNan() {
        double[] x = {1e10, 1e10};
        double[] two = {0.7, 0.8};
        double[] one = {0.7};
        double[] nan = {Double.NaN, Double.NaN};
        double[] offset = {0.7, 0.7};
        assertArrayEquals(nan, flat(NormReference.layerNorm(1, 2), two, x));
        assertArrayEquals(nan, flat(NormReference.rmsNorm(1, 2, false), two, new double[2]));
        assertArrayEquals(nan, flat(NormReference.groupNorm(1, 1, 2, false, 1), one, x));
        assertArrayEquals(nan, flat(NormReference.perLocation(1, 2, 1, true, 1), two, x));
        assertArrayEquals(offset, flat(NormReference.instanceNorm(1, 1, 2, false), one, x));
        assertArrayEquals(offset, flat(NormReference.batchNorm(1, 1, 2, false), one, x));
        assertArrayEquals(nan, flat(NormReference.batchNorm(1, 1, 2, false).withFlatIsBeta(false), one, x));
        assertArrayEquals(two, flat(NormReference.layerNorm(1, 2).withFlatIsBeta(true), two, x));
        assertArrayEquals(
                two,
                NormReference.layerNorm(1, 2)
                        .forward(NormReference.layerNorm(1, 2).statistics(x), null, two, x, null));
    }

    @Test
    void oneBadValuePoisonsItsRowAlone() {
        NormReference reference = NormReference.layerNorm(2, 2).withEps(0);
        double[] x = {1, Double.POSITIVE_INFINITY, 1, 3};
        double[] y = reference.forward(reference.statistics(x), null, null, x, null);
        assertArrayEquals(new double[] {Double.NaN, Double.NaN, -1, 1}, y);
    }

    @Test
    void anEmptyBatchGivesZeroGradients() {
        NormReference reference = NormReference.groupNorm(0, 4, 2, false, 2);
        double[] none = {};
        Gradients gradients = reference.backward(reference.statistics(none), null, null, none, null, none);
        assertEquals(0, gradients.dx().length);
        assertArrayEquals(new double[4], gradients.dGamma());
        assertArrayEquals(new double[4], gradients.dBeta());
    }

    @Test
    void refusesWhatDoesNotFit() {
        NormReference layer = NormReference.layerNorm(2, 3);
        Statistics statistics = layer.statistics(new double[6]);
        assertRefused(() -> layer.statistics(new double[5]));
        assertRefused(() -> layer.forward(statistics, new double[2], null, new double[6], null));
        assertRefused(() -> layer.forward(statistics, null, new double[6], new double[6], null));
        assertRefused(() -> layer.forward(statistics, null, null, new double[6], new double[3]));
        assertRefused(() -> layer.backward(statistics, null, null, new double[6], null, new double[7]));
        assertRefused(() -> layer.withCounted(new boolean[3]));
        assertRefused(() -> layer.running(new double[3], new double[3]));
        assertRefused(() -> NormReference.groupNorm(1, 4, 1, false, 2).running(new double[4], new double[4]));
        assertRefused(() -> NormReference.groupNorm(1, 4, 1, false, 3));
        assertRefused(() -> NormReference.perLocation(1, 4, 1, false, 0));
        assertRefused(() -> NormReference.rmsNorm(1, 0, false));
        assertRefused(() -> NormReference.batchNorm(1, 0, 1, false));
        assertRefused(() -> NormReference.counted(2, 1, 4, false, 4, 1));
        assertRefused(() -> NormReference.counted(1, 1, 4, false, 3, 1));
    }

    private static void assertRefused(Runnable call) {
        assertThrows(IllegalArgumentException.class, call::run);
    }

    private static double[] flat(NormReference reference, double[] beta, double[] x) {
        NormReference without = reference.withEps(0);
        return without.forward(without.statistics(x), null, beta, x, null);
    }

    private static void assertSame(
            NormReference expected, NormReference got, double @Nullable [] gamma, double[] x, double[] dy) {
        Statistics theirs = expected.statistics(x);
        Statistics ours = got.statistics(x);
        // Two orders of the same compensated sum may differ by a rounding.
        assertArrayEquals(theirs.mean(), ours.mean(), 1e-15);
        assertArrayEquals(theirs.invStd(), ours.invStd(), 1e-15);
        assertArrayEquals(
                expected.forward(theirs, gamma, null, x, null), got.forward(ours, gamma, null, x, null), 1e-14);
        Gradients gradients = expected.backward(theirs, gamma, null, x, null, dy);
        assertArrayEquals(
                gradients.dx(), got.backward(ours, gamma, null, x, null, dy).dx(), 1e-14);
    }

    private double[] values(int count, double mean, double deviation) {
        double[] values = new double[count];
        Arrays.setAll(values, i -> mean + deviation * Math.sqrt(12) * (random.nextDouble() - 0.5));
        return values;
    }

    private static BigDecimal sum(double[] values, BigDecimal less, int power) {
        BigDecimal sum = BigDecimal.ZERO;
        for (double value : values) {
            sum = sum.add(new BigDecimal(value).subtract(less).pow(power), new MathContext(100));
        }
        return sum;
    }

    private static double[] sample(double[] values, int n) {
        return Arrays.copyOfRange(values, n * C * S, (n + 1) * C * S);
    }

    /** From (N, S, C) to (N, C, S). */
    private static double[] channelsFirst(double[] values) {
        double[] moved = new double[values.length];
        for (int i = 0; i < values.length; i++) {
            int n = i / (C * S);
            int s = i / C % S;
            moved[(n * C + i % C) * S + s] = values[i];
        }
        return moved;
    }

    /** What counts, in its order. */
    private static double[] pack(double[] values, boolean[] counted) {
        double[] packed = new double[values.length];
        int size = 0;
        for (int i = 0; i < values.length; i++) {
            if (counted[i]) {
                packed[size++] = values[i];
            }
        }
        return Arrays.copyOf(packed, size);
    }

    /** What counts of (N, C, S), as one sample: channel by channel. */
    private static double[] packFirst(double[] values, boolean[] counted) {
        double[] moved = new double[values.length];
        boolean[] movedCounted = new boolean[values.length];
        for (int i = 0; i < values.length; i++) {
            int n = i / (C * S);
            int to = (i / S % C * N + n) * S + i % S;
            moved[to] = values[i];
            movedCounted[to] = counted[i];
        }
        return pack(moved, movedCounted);
    }
}
