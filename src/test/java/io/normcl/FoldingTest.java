package io.normcl;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.normcl.Folding.Folded;
import io.normcl.Folding.FoldingError;
import io.normcl.reference.BatchNormReference;
import io.normcl.reference.BatchNormReference.Statistics;
import io.normcl.reference.ConvolutionReference;
import java.util.Arrays;
import java.util.Random;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class FoldingTest {
    private static final float[] MEAN = {5, -1};
    private static final float[] VAR = {3, 15};
    private static final float[] GAMMA = {4, 2};
    private static final float[] BETA = {7, 0.25f};

    @Test
    void byHand() {
        Folding norm = Folding.of(GAMMA, BETA, MEAN, VAR, 1); // scales 4/√4 and 2/√16
        Folded linear = norm.intoLinear(new float[] {3, 1, 8, -2}, new float[] {1, 1});
        assertArrayEquals(new float[] {6, 2, 4, -1}, linear.weight());
        assertArrayEquals(new float[] {-1, 1.25f}, linear.bias());

        Folded bare = Folding.of(null, null, MEAN, VAR, 1).intoConvolution(new float[] {3, 1, 8, -2}, null, 1, 2, 1, 2);
        assertArrayEquals(new float[] {1.5f, 0.5f, 2, -0.5f}, bare.weight());
        assertArrayEquals(new float[] {-2.5f, 0.25f}, bare.bias());
    }

    @Test
    void outputChannelsOfATransposedConvolutionAreThoseOfItsGroup() {
        float[] zero = new float[4];
        float[] one = {1, 1, 1, 1};
        Folding norm = Folding.of(new float[] {1, 2, 3, 4}, null, zero, one, 0);
        Folded grouped =
                norm.intoTransposed(new float[] {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, null, 2, 6, 2); // 6 inputs
        assertArrayEquals(new float[] {1, 2, 1, 2, 1, 2, 3, 4, 3, 4, 3, 4}, grouped.weight());
        Folded whole = norm.intoTransposed(new float[] {1, 1, 1, 1, 1, 1, 1, 1}, null, 1, 1, 4, 2);
        assertArrayEquals(new float[] {1, 1, 2, 2, 3, 3, 4, 4}, whole.weight());
    }

    @Test
    void varianceAndEpsBothZeroLeaveBeta() {
        Folded folded =
                Folding.of(GAMMA, BETA, MEAN, new float[] {0, 0}, 0).intoLinear(new float[] {3, 1}, new float[] {1, 1});
        assertArrayEquals(new float[] {0, 0}, folded.weight());
        assertArrayEquals(BETA, folded.bias());
    }

    /** In double, folding is the two layers to rounding; in float it is off by no more than the weights' rounding. */
    @ParameterizedTest
    @CsvSource({
        "false, 1, true,  5x7",
        "false, 1, false, 5x7x1x1",
        "false, 1, true,  4x3x5",
        "false, 2, true,  6x2x3x2",
        "false, 6, false, 6x1x3x3",
        "false, 3, true,  6x2x1x2x3",
        "true,  1, true,  3x5x4",
        "true,  2, false, 6x2x3x2",
        "true,  4, true,  4x3x2x3",
        "true,  3, true,  6x1x1x2x3"
    })
    void fusedIsTheTwoLayers(boolean transposed, int groups, boolean affine, String sizes) {
        Random random = new Random(sizes.hashCode());
        int[] shape = Stream.of(sizes.split("x")).mapToInt(Integer::parseInt).toArray();
        long[] longShape = Arrays.stream(shape).asLongStream().toArray();
        int channels = transposed ? shape[1] * groups : shape[0];
        double[] weight = normal(random, Arrays.stream(shape).reduce(1, (a, b) -> a * b));
        double[] bias = affine ? normal(random, channels) : null;
        double[] gamma = affine ? normal(random, channels) : null;
        double[] beta = affine ? normal(random, channels) : null;
        double[] mean = normal(random, channels);
        double[] variance =
                Arrays.stream(normal(random, channels)).map(v -> v * v).toArray();
        Folding norm = Folding.of(gamma, beta, mean, variance, 1e-5);
        Folded folded = transposed
                ? norm.intoTransposed(weight, bias, groups, longShape)
                : norm.intoConvolution(weight, bias, groups, longShape);

        ConvolutionReference layer = new ConvolutionReference(groups, 2, 1, 2);
        int[] xShape = shape.clone();
        Arrays.fill(xShape, 7);
        xShape[0] = 2;
        xShape[1] = transposed ? shape[0] : shape[1] * groups;
        double[] x = normal(random, Arrays.stream(xShape).reduce(1, (a, b) -> a * b));
        double[] between = transposed
                ? layer.transpose(x, xShape, weight, shape, bias)
                : layer.convolve(x, xShape, weight, shape, bias);
        double[] expected = new BatchNormReference(channels, between.length / 2 / channels, false)
                .forward(Statistics.running(mean, variance), 1e-5, gamma, beta, between);
        double[] got = transposed
                ? layer.transpose(x, xShape, folded.weightInDouble(), shape, folded.biasInDouble())
                : layer.convolve(x, xShape, folded.weightInDouble(), shape, folded.biasInDouble());
        double largest = Arrays.stream(expected).map(Math::abs).max().orElseThrow();
        assertArrayEquals(expected, got, 1e-13 * largest);

        // |x| <= 1, so that an output is off by at most half a unit in the last place of each weight and of the bias.
        double bound = 0;
        float[] floats = folded.weight();
        for (float value : floats) {
            bound += Math.ulp(value) / 2;
        }
        double bits = 0;
        for (float value : folded.bias()) {
            bits = Math.max(bits, Math.ulp(value) / 2);
        }
        FoldingError error = folded.measure(1);
        assertTrue(error.absolute() > 0 && error.absolute() <= bound + bits, () -> error + ", " + sizes);
        assertTrue(error.relative() > 0 && error.relative() < 1e-6, () -> error + ", " + sizes);
        assertEquals(error, folded.measure(1));
    }

    @Test
    void theErrorIsThatOfRounding() {
        // One weight of 1 + 2⁻³⁰ and a bias of 0: the float weight is 1, off by 2⁻³⁰·x.
        Folded folded =
                Folding.of(null, null, new double[1], new double[] {1}, 0).intoLinear(new double[] {1 + 0x1p-30}, null);
        FoldingError error = folded.measure(3);
        assertTrue(error.absolute() > 0 && error.absolute() <= 0x1p-30);
        assertEquals(0x1p-30, error.relative(), 0x1p-50);

        Folded exact =
                Folding.of(null, null, new double[1], new double[] {1}, 0).intoLinear(new double[] {1}, null);
        assertEquals(new FoldingError(0, 0), exact.measure(3));

        Folded overflows =
                Folding.of(null, null, new double[1], new double[] {1e-90}, 0).intoLinear(new double[] {1}, null);
        assertTrue(Double.isInfinite(overflows.measure(3).absolute()));
    }

    @Test
    void whatDoesNotFitIsRefused() {
        Folding norm = Folding.of(GAMMA, BETA, MEAN, VAR, 1e-5);
        float[] six = new float[6];
        refused("a weight has as many", () -> norm.intoConvolution(six, null, 1, 2, 4));
        refused("a weight has as many", () -> norm.intoConvolution(six, null, 3, 2, 3));
        refused("a weight has as many", () -> norm.intoConvolution(six, null, 1, 6));
        refused("a weight has as many", () -> norm.intoLinear(new float[3], null));
        refused("a weight has as many", () -> norm.intoLinear(new float[0], null));
        refused("a batch norm has the channels", () -> norm.intoConvolution(six, null, 1, 3, 2));
        refused("a batch norm has the channels", () -> norm.intoTransposed(six, null, 1, 2, 3));
        refused("a batch norm has the channels", () -> norm.intoTransposed(six, null, 3, 3, 2));
        refused("bias has one value", () -> norm.intoLinear(six, six));
        refused("gamma has one value", () -> Folding.of(six, BETA, MEAN, VAR, 1e-5));
        refused("beta has one value", () -> Folding.of(GAMMA, six, MEAN, VAR, 1e-5));
        refused("runningVar has one value", () -> Folding.of(GAMMA, BETA, MEAN, six, 1e-5));
        refused("eps must be", () -> Folding.of(GAMMA, BETA, MEAN, VAR, -1));
        refused("eps must be", () -> Folding.of(GAMMA, BETA, MEAN, VAR, Double.NaN));
        refused("running statistics", () -> Folding.of(GAMMA, BETA, MEAN, new float[] {1, -1e-7f}, 1e-5));
        refused("running statistics", () -> Folding.of(GAMMA, BETA, MEAN, new float[] {Float.NaN, 1}, 1e-5));
        refused(
                "running statistics",
                () -> Folding.of(GAMMA, BETA, new float[] {0, Float.POSITIVE_INFINITY}, VAR, 1e-5));
    }

    private static void refused(String rule, Runnable call) {
        String message = assertThrows(IllegalArgumentException.class, call::run).getMessage();
        assertTrue(message.startsWith(rule) && !message.contains("\n"), message);
    }

    private static double[] normal(Random random, int count) {
        double[] values = new double[count];
        Arrays.setAll(values, i -> random.nextGaussian());
        return values;
    }
}
