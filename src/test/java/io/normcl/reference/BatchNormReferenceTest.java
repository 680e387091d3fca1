package io.normcl.reference;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.normcl.reference.BatchNormReference.Gradients;
import io.normcl.reference.BatchNormReference.Statistics;
import java.math.BigDecimal;
import java.math.MathContext;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** The reference against exact arithmetic, against finite differences, and against itself in other shapes. */
class BatchNormReferenceTest {
    private static final double EPS = 1e-5;

    private final SplittableRandom random = new SplittableRandom(7);

    @ParameterizedTest
    @CsvSource({"0, 1", "1e8, 1e-4", "-3e6, 1", "1e37, 1e30", "0, 1e37", "1e-37, 1e-40"})
    void statisticsAreExact(double mean, double deviation) {
        double[] x = values(1001, mean, deviation);
        Statistics statistics = new BatchNormReference(1, 1, true).statistics(List.of(x));

        BigDecimal count = BigDecimal.valueOf(x.length);
        BigDecimal exactMean = sum(x, BigDecimal.ZERO, 1).divide(count, MathContext.DECIMAL128);
        BigDecimal exactVariance = sum(x, exactMean, 2).divide(count, MathContext.DECIMAL128);
        BigDecimal gotMean = new BigDecimal(statistics.mean()[0])
                .add(new BigDecimal(statistics.meanLow()[0]));
        assertEquals(x.length, statistics.count());
        assertEquals(0, gotMean.subtract(exactMean).doubleValue(), 1e-16 * deviation);
        assertEquals(exactVariance.doubleValue(), statistics.variance()[0], 1e-15 * exactVariance.doubleValue());
    }

    @ParameterizedTest
    @CsvSource({"false", "true"})
    void shardsTogetherAreTheWhole(boolean channelsLast) {
        int channels = 3;
        int spatial = 5;
        int sample = channels * spatial;
        BatchNormReference reference = new BatchNormReference(channels, spatial, channelsLast);
        double[] x = values(9 * sample, 2, 3);
        double[] dy = values(9 * sample, 0, 1);
        double[] gamma = values(channels, 1, 1);
        double[] beta = values(channels, 0, 1);
        int[] cuts = {0, 2 * sample, 2 * sample, 3 * sample, 9 * sample};
        List<double[]> xs = cut(x, cuts);
        List<double[]> dys = cut(dy, cuts);

        Statistics whole = reference.statistics(List.of(x));
        Statistics together = reference.statistics(xs);
        assertEquals(whole.count(), together.count());
        assertArrayEquals(whole.mean(), together.mean());
        assertArrayEquals(whole.variance(), together.variance());

        double[] y = reference.forward(whole, EPS, gamma, beta, x);
        Gradients gradients = reference
                .backward(whole, true, EPS, gamma, List.of(x), List.of(dy))
                .get(0);
        List<Gradients> parts = reference.backward(together, true, EPS, gamma, xs, dys);
        double[] dGamma = new double[channels];
        double[] dBeta = new double[channels];
        for (int i = 0; i < xs.size(); i++) {
            assertArrayEquals(
                    Arrays.copyOfRange(y, cuts[i], cuts[i + 1]),
                    reference.forward(together, EPS, gamma, beta, xs.get(i)));
            assertArrayEquals(
                    Arrays.copyOfRange(gradients.dx(), cuts[i], cuts[i + 1]),
                    parts.get(i).dx());
            for (int c = 0; c < channels; c++) {
                dGamma[c] += parts.get(i).dGamma()[c];
                dBeta[c] += parts.get(i).dBeta()[c];
            }
        }
        assertArrayEquals(gradients.dGamma(), dGamma, 1e-13);
        assertArrayEquals(gradients.dBeta(), dBeta, 1e-13);
        assertArrayEquals(new double[channels], parts.get(1).dGamma());
    }

    @Test
    void bothOrdersAreTheSameTensor() {
        int n = 4;
        int channels = 3;
        int spatial = 6;
        BatchNormReference first = new BatchNormReference(channels, spatial, false);
        BatchNormReference last = new BatchNormReference(channels, spatial, true);
        double[] x = values(n * channels * spatial, 1, 2);
        double[] dy = values(x.length, 0, 1);
        double[] gamma = values(channels, 0, 1);
        double[] moved = channelsLast(x, channels, spatial);
        double[] movedDy = channelsLast(dy, channels, spatial);

        Statistics statistics = first.statistics(List.of(x));
        assertArrayEquals(
                channelsLast(first.forward(statistics, EPS, gamma, null, x), channels, spatial),
                last.forward(last.statistics(List.of(moved)), EPS, gamma, null, moved));
        Gradients one = first.backward(statistics, true, EPS, gamma, List.of(x), List.of(dy))
                .get(0);
        Gradients other = last.backward(statistics, true, EPS, gamma, List.of(moved), List.of(movedDy))
                .get(0);
        assertArrayEquals(channelsLast(one.dx(), channels, spatial), other.dx());
        assertArrayEquals(one.dGamma(), other.dGamma());
    }

    @ParameterizedTest
    @CsvSource({"true, true", "true, false", "false, true", "false, false"})
    void gradientsAreTheSlopesOfARandomFunction(boolean batch, boolean channelsLast) {
        int channels = 2;
        BatchNormReference reference = new BatchNormReference(channels, 3, channelsLast);
        double[] x = values(5 * channels * 3, 1, 2);
        double[] dy = values(x.length, 0, 1);
        double[] gamma = values(channels, 1, 0.5);
        double[] beta = values(channels, 0, 1);
        Statistics running = Statistics.running(values(channels, 1, 0.1), new double[] {2, 3});
        Statistics statistics = batch ? reference.statistics(List.of(x)) : running;
        Gradients gradients = reference
                .backward(statistics, batch, EPS, gamma, List.of(x), List.of(dy))
                .get(0);

        for (double[] varied : List.of(x, gamma, beta)) {
            double[] expected = varied == x ? gradients.dx() : varied == gamma ? gradients.dGamma() : gradients.dBeta();
            for (int i = 0; i < varied.length; i++) {
                double[] sides = new double[2];
                double before = varied[i];
                for (int side = 0; side < 2; side++) {
                    varied[i] = before + (2 * side - 1) * 1e-5;
                    Statistics used = batch ? reference.statistics(List.of(x)) : running;
                    double[] y = reference.forward(used, EPS, gamma, beta, x);
                    for (int k = 0; k < y.length; k++) {
                        sides[side] += dy[k] * y[k];
                    }
                }
                varied[i] = before;
                assertEquals((sides[1] - sides[0]) / 2e-5, expected[i], 1e-8);
            }
        }
    }

    @Test
    void aConstantChannelWithoutEpsIsExactlyBeta() {
        BatchNormReference reference = new BatchNormReference(1, 4, false);
        double[] x = {1e10, 1e10, 1e10, 1e10};
        Statistics statistics = reference.statistics(List.of(x));
        double[] y = reference.forward(statistics, 0, new double[] {3}, new double[] {0.7}, x);
        assertArrayEquals(new double[] {0.7, 0.7, 0.7, 0.7}, y);
    }

    @Test
    void oneBadValuePoisonsItsChannelAlone() {
        BatchNormReference reference = new BatchNormReference(2, 1, true);
        Statistics statistics =
                reference.statistics(List.of(new double[] {1, Double.POSITIVE_INFINITY, 2, 3, 4, Double.MAX_VALUE}));
        assertEquals(7.0 / 3, statistics.mean()[0]);
        assertEquals(Double.POSITIVE_INFINITY, statistics.mean()[1]);
        assertTrue(Double.isNaN(statistics.variance()[1]));
    }

    @Test
    void runningStatisticsMoveByTheBatchesWeight() {
        double[] mean = {1, 2};
        double[] variance = {3, 4};
        Statistics batch = new Statistics(5, new double[] {10, 20}, new double[2], new double[] {8, 16});
        BatchNormReference.update(batch, 0.25, true, mean, variance);
        assertArrayEquals(new double[] {3.25, 6.5}, mean);
        assertArrayEquals(new double[] {4.75, 8}, variance);
        BatchNormReference.update(batch, 1, false, mean, variance);
        assertArrayEquals(new double[] {10, 20}, mean);
        assertArrayEquals(new double[] {8, 16}, variance);
    }

    @Test
    void anEmptyBatchMovesNothingAndASingleValueOnlyTheMean() {
        BatchNormReference reference = new BatchNormReference(1, 1, true);
        double[] mean = {1};
        double[] variance = {2};
        Statistics empty = reference.statistics(List.of(new double[0], new double[0]));
        BatchNormReference.update(empty, 0.5, true, mean, variance);
        assertEquals(1, mean[0]);
        assertEquals(2, variance[0]);
        Gradients none = reference
                .backward(empty, true, EPS, null, List.of(new double[0]), List.of(new double[0]))
                .get(0);
        assertArrayEquals(new double[] {0}, none.dGamma());

        BatchNormReference.update(reference.statistics(List.of(new double[] {3})), 0.5, true, mean, variance);
        assertEquals(2, mean[0]);
        assertEquals(2, variance[0]);
    }

    @Test
    void refusesArraysOfAnotherSize() {
        BatchNormReference reference = new BatchNormReference(3, 2, false);
        Statistics statistics = reference.statistics(List.of(new double[6]));
        assertThrows(IllegalArgumentException.class, () -> new BatchNormReference(0, 1, true));
        assertThrows(IllegalArgumentException.class, () -> reference.statistics(List.of(new double[7])));
        assertThrows(
                IllegalArgumentException.class,
                () -> reference.forward(statistics, EPS, new double[2], null, new double[6]));
        assertThrows(
                IllegalArgumentException.class,
                () -> reference.backward(statistics, true, EPS, null, List.of(new double[6]), List.of(new double[12])));
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

    private static List<double[]> cut(double[] values, int[] cuts) {
        return IntStream.range(0, cuts.length - 1)
                .mapToObj(i -> Arrays.copyOfRange(values, cuts[i], cuts[i + 1]))
                .toList();
    }

    private static double[] channelsLast(double[] values, int channels, int spatial) {
        double[] moved = new double[values.length];
        for (int i = 0; i < values.length; i++) {
            int n = i / (channels * spatial);
            int c = i / spatial % channels;
            int s = i % spatial;
            moved[(n * spatial + s) * channels + c] = values[i];
        }
        return moved;
    }
}
