package io.normcl;

import io.normcl.reference.BatchNormReference;
import io.normcl.reference.BatchNormReference.Statistics;
import io.normcl.reference.ConvolutionReference;
import java.util.Arrays;
import java.util.SplittableRandom;
import org.jspecify.annotations.Nullable;

/**
 * A batch norm in evaluation, folded into the convolution or linear layer before it, so that inference runs one layer
 * in place of two. For each output channel:
 *
 * <pre>
 * scale        = gamma / √(runningVar + eps)         0 where runningVar and eps are both 0
 * fused weight = weight · scale
 * fused bias   = (bias − runningMean) · scale + beta
 * </pre>
 *
 * <p>Source: Jacob and others 2018 (arXiv 1712.05877), section 3.2, equation 14. Everything is computed in double.
 * Arrays are copied.
 */
public final class Folding {
    private final int channels;
    private final double @Nullable [] gamma;
    private final double @Nullable [] beta;
    private final Statistics running;
    private final double eps;

    private Folding(
            double @Nullable [] gamma,
            double @Nullable [] beta,
            double[] runningMean,
            double[] runningVar,
            double eps) {
        this.channels = runningMean.length;
        this.gamma = gamma;
        this.beta = beta;
        this.running = Statistics.running(runningMean, runningVar);
        this.eps = eps;
        requireChannels("gamma", gamma);
        requireChannels("beta", beta);
        requireChannels("runningVar", runningVar);
        if (!(eps >= 0) || Double.isInfinite(eps)) {
            throw new IllegalArgumentException("eps must be finite and not negative: eps=" + eps);
        }
        for (int c = 0; c < channels; c++) {
            if (!(runningVar[c] >= 0) || !Double.isFinite(runningVar[c]) || !Double.isFinite(runningMean[c])) {
                throw new IllegalArgumentException(
                        "running statistics to fold are finite, no variance below 0: channel=" + c + ", runningMean="
                                + runningMean[c] + ", runningVar=" + runningVar[c]);
            }
        }
    }

    /**
     * A batch norm to fold.
     *
     * @param gamma the scale, C values, null for 1
     * @param beta the offset, C values, null for 0
     * @param runningMean C values
     * @param runningVar C values, at least 0
     * @param eps added to the variance inside the root; finite, at least 0
     * @return the batch norm
     * @throws IllegalArgumentException if an array has not C values, or a value is out of range
     */
    public static Folding of(
            float @Nullable [] gamma, float @Nullable [] beta, float[] runningMean, float[] runningVar, double eps) {
        return new Folding(copy(gamma), copy(beta), doubles(runningMean), doubles(runningVar), eps);
    }

    /**
     * A batch norm in double to fold.
     *
     * @param gamma the scale, C values, null for 1
     * @param beta the offset, C values, null for 0
     * @param runningMean C values
     * @param runningVar C values, at least 0
     * @param eps added to the variance inside the root; finite, at least 0
     * @return the batch norm
     * @throws IllegalArgumentException if an array has not C values, or a value is out of range
     */
    public static Folding of(
            double @Nullable [] gamma,
            double @Nullable [] beta,
            double[] runningMean,
            double[] runningVar,
            double eps) {
        return new Folding(copy(gamma), copy(beta), runningMean.clone(), runningVar.clone(), eps);
    }

    /**
     * Folds into a convolution of any number of spatial dimensions, grouped or not.
     *
     * @param weight the kernels, in C order
     * @param bias C values, null for none
     * @param groups the groups, 1 for none
     * @param shape of the weight: (C, inputs/groups, kernel's sizes)
     * @return the fused layer
     * @throws IllegalArgumentException if sizes don't fit together
     */
    public Folded intoConvolution(float[] weight, float @Nullable [] bias, int groups, long... shape) {
        return new Folded(this, false, groups, shape, doubles(weight), copy(bias));
    }

    /**
     * Folds into a convolution in double.
     *
     * @param weight the kernels, in C order
     * @param bias C values, null for none
     * @param groups the groups, 1 for none
     * @param shape of the weight: (C, inputs/groups, kernel's sizes)
     * @return the fused layer
     * @throws IllegalArgumentException if sizes don't fit together
     */
    public Folded intoConvolution(double[] weight, double @Nullable [] bias, int groups, long... shape) {
        return new Folded(this, false, groups, shape, weight.clone(), copy(bias));
    }

    /**
     * Folds into a transposed convolution of any number of spatial dimensions, grouped or not. Its output channels are
     * in the weight's second dimension, those of one group.
     *
     * @param weight the kernels, in C order
     * @param bias C values, null for none
     * @param groups the groups, 1 for none
     * @param shape of the weight: (inputs, C/groups, kernel's sizes)
     * @return the fused layer
     * @throws IllegalArgumentException if sizes don't fit together
     */
    public Folded intoTransposed(float[] weight, float @Nullable [] bias, int groups, long... shape) {
        return new Folded(this, true, groups, shape, doubles(weight), copy(bias));
    }

    /**
     * Folds into a transposed convolution in double.
     *
     * @param weight the kernels, in C order
     * @param bias C values, null for none
     * @param groups the groups, 1 for none
     * @param shape of the weight: (inputs, C/groups, kernel's sizes)
     * @return the fused layer
     * @throws IllegalArgumentException if sizes don't fit together
     */
    public Folded intoTransposed(double[] weight, double @Nullable [] bias, int groups, long... shape) {
        return new Folded(this, true, groups, shape, weight.clone(), copy(bias));
    }

    /**
     * Folds into a linear layer.
     *
     * @param weight (C, inputs), in C order
     * @param bias C values, null for none
     * @return the fused layer
     * @throws IllegalArgumentException if the weight is not C rows, or the bias not C values
     */
    public Folded intoLinear(float[] weight, float @Nullable [] bias) {
        return new Folded(this, false, 1, rows(weight.length), doubles(weight), copy(bias));
    }

    /**
     * Folds into a linear layer in double.
     *
     * @param weight (C, inputs), in C order
     * @param bias C values, null for none
     * @return the fused layer
     * @throws IllegalArgumentException if the weight is not C rows, or the bias not C values
     */
    public Folded intoLinear(double[] weight, double @Nullable [] bias) {
        return new Folded(this, false, 1, rows(weight.length), weight.clone(), copy(bias));
    }

    private long[] rows(int values) {
        return new long[] {channels, channels == 0 ? 0 : values / channels};
    }

    private void requireChannels(String name, double @Nullable [] values) {
        if (values != null && values.length != channels) {
            throw new IllegalArgumentException(
                    name + " has one value per channel: channels=" + channels + ", values=" + values.length);
        }
    }

    private static double[] doubles(float[] values) {
        double[] doubles = new double[values.length];
        Arrays.setAll(doubles, i -> values[i]);
        return doubles;
    }

    private static float[] floats(double[] values) {
        float[] floats = new float[values.length];
        for (int i = 0; i < values.length; i++) {
            floats[i] = (float) values[i];
        }
        return floats;
    }

    private static double @Nullable [] copy(float @Nullable [] values) {
        return values == null ? null : doubles(values);
    }

    private static double @Nullable [] copy(double @Nullable [] values) {
        return values == null ? null : values.clone();
    }

    /** A layer with the batch norm that followed it inside: a weight of the same shape, and a bias in any case. */
    public static final class Folded {
        private static final int SAMPLES = 2;

        private final Folding norm;
        private final boolean transposed;
        private final int groups;
        private final int[] shape;
        private final double[] before;
        private final double @Nullable [] biasBefore;
        private final double[] weight;
        private final double[] bias;

        private Folded(
                Folding norm,
                boolean transposed,
                int groups,
                long[] longShape,
                double[] before,
                double @Nullable [] biasBefore) {
            this.norm = norm;
            this.transposed = transposed;
            this.groups = groups;
            this.shape = Arrays.stream(longShape).mapToInt(Math::toIntExact).toArray();
            this.before = before;
            this.biasBefore = biasBefore;
            check();
            norm.requireChannels("bias", biasBefore);

            double[] scale = norm.running.invStd(norm.eps);
            this.bias = new double[norm.channels];
            for (int c = 0; c < bias.length; c++) {
                scale[c] *= norm.gamma == null ? 1 : norm.gamma[c];
                double centered =
                        (biasBefore == null ? 0 : biasBefore[c]) - norm.running.mean()[c];
                bias[c] = centered * scale[c] + (norm.beta == null ? 0 : norm.beta[c]);
            }
            this.weight = new double[before.length];
            Arrays.setAll(weight, i -> before[i] * scale[channel(i)]);
        }

        private void check() {
            long size = 1;
            for (int d : shape) {
                size = d < 1 || size > Integer.MAX_VALUE ? -1 : size * d;
            }
            boolean divides = shape.length >= 2 && groups >= 1 && shape[0] % groups == 0;
            if (!divides || size != before.length) {
                throw new IllegalArgumentException(
                        "a weight has as many values as its shape, groups divide its first size: shape="
                                + Arrays.toString(shape) + ", values=" + before.length + ", groups=" + groups);
            }
            int outputs = transposed ? shape[1] * groups : shape[0];
            if (outputs != norm.channels) {
                throw new IllegalArgumentException("a batch norm has the channels of the layer before it: channels="
                        + norm.channels + ", outputs=" + outputs + ", weight=" + Arrays.toString(shape)
                        + (transposed ? ", transposed" : "") + ", groups=" + groups);
            }
        }

        /** The output channel that the weight's value i belongs to. */
        private int channel(int i) {
            int row = before.length / shape[0]; // the values of one index of the first dimension
            if (!transposed) {
                return i / row;
            }
            int group = i / row / (shape[0] / groups);
            return group * shape[1] + i % row / (row / shape[1]);
        }

        /**
         * The fused weight, rounded once to float.
         *
         * @return a new array in the order of the weight before
         */
        public float[] weight() {
            return floats(weight);
        }

        /**
         * The fused bias, rounded once to float.
         *
         * @return a new array of C values
         */
        public float[] bias() {
            return floats(bias);
        }

        /**
         * The fused weight as computed.
         *
         * @return a new array in the order of the weight before
         */
        public double[] weightInDouble() {
            return weight.clone();
        }

        /**
         * The fused bias as computed.
         *
         * @return a new array of C values
         */
        public double[] biasInDouble() {
            return bias.clone();
        }

        /**
         * Measures what folding and rounding to float cost: both the layer and its batch norm, and the layer fused in
         * floats, are computed in double on a random input of two samples with uniform values in [−1, 1), of stride 1
         * and without padding, two places of the smaller side in each spatial dimension.
         *
         * <p>An inference in float adds its own rounding to this error.
         *
         * @param seed of the input; the same seed measures the same
         * @return the errors, NaN or infinite where a fused value is
         */
        public FoldingError measure(long seed) {
            ConvolutionReference layer = new ConvolutionReference(groups, 1, 0, 1);
            int[] xShape = shape.clone();
            xShape[0] = SAMPLES;
            xShape[1] = transposed ? shape[0] : shape[1] * groups;
            for (int d = 2; d < xShape.length; d++) {
                xShape[d] = transposed ? 2 : shape[d] + 1;
            }
            SplittableRandom random = new SplittableRandom(seed);
            double[] x = random.doubles(Arrays.stream(xShape).reduce(1, Math::multiplyExact))
                    .map(value -> (float) (2 * value - 1))
                    .toArray();

            double[] between = run(layer, x, xShape, before, biasBefore);
            int spatial = between.length / SAMPLES / norm.channels;
            double[] expected = new BatchNormReference(norm.channels, spatial, false)
                    .forward(norm.running, norm.eps, norm.gamma, norm.beta, between);
            double[] got = run(layer, x, xShape, doubles(weight()), doubles(bias()));
            double largest = 0;
            double error = 0;
            for (int i = 0; i < got.length; i++) {
                largest = Math.max(largest, Math.abs(expected[i]));
                error = Math.max(error, Math.abs(got[i] - expected[i]));
            }
            return new FoldingError(error, error == 0 ? 0 : error / largest);
        }

        private double[] run(
                ConvolutionReference layer, double[] x, int[] xShape, double[] kernels, double @Nullable [] offsets) {
            return transposed
                    ? layer.transpose(x, xShape, kernels, shape, offsets)
                    : layer.convolve(x, xShape, kernels, shape, offsets);
        }
    }

    /**
     * How far a fused layer in floats was from the layer and its batch norm.
     *
     * @param absolute the largest absolute difference of two outputs
     * @param relative the same in parts of the largest absolute output of the batch norm
     */
    public record FoldingError(double absolute, double relative) {}
}
