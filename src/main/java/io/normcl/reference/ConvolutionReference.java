package io.normcl.reference;

import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/**
 * Convolution, transposed convolution and linear layers in plain loops over doubles, with any number of spatial
 * dimensions: 1, 2 or 3 for the usual ones, none for a linear layer. Stride, padding and dilation are the same in each.
 *
 * <p>A place p of the side with fewer places and a place k of the kernel meet place
 * {@code q = p·stride + k·dilation − padding} of the other side. With A and B/G the first two sizes of the weight, G
 * groups of both channels, and b counted inside the group of a:
 *
 * <pre>
 * convolution  y[n, a, p] = bias[a] + Σ weight[a, b, k] · x[n, b, q]    x has B channels, y has A
 * transposed   y[n, b, q] = bias[b] + Σ weight[a, b, k] · x[n, a, p]    x has A channels, y has B
 * </pre>
 *
 * <p>Source: Dumoulin and Visin 2016, sections 2 and 4; the weights' shapes are PyTorch's. Tensors are arrays in C
 * order, (N, channels, places).
 *
 * @param groups G, at least 1
 * @param stride at least 1
 * @param padding zeros on either side, at least 0
 * @param dilation the distance of a kernel's values, at least 1
 */
public record ConvolutionReference(int groups, int stride, int padding, int dilation) {
    /**
     * Checks each value.
     *
     * @param groups G, at least 1
     * @param stride at least 1
     * @param padding zeros on either side, at least 0
     * @param dilation the distance of a kernel's values, at least 1
     */
    public ConvolutionReference {
        if (groups < 1 || stride < 1 || padding < 0 || dilation < 1) {
            throw new IllegalArgumentException("groups, stride, dilation >= 1, padding >= 0: groups=" + groups
                    + ", stride=" + stride + ", padding=" + padding + ", dilation=" + dilation);
        }
    }

    /**
     * The shape of a convolution's output.
     *
     * @param xShape (N, B, sizes)
     * @param weightShape (A, B/G, kernel's sizes)
     * @return (N, A, sizes), each {@code (size + 2·padding − dilation·(kernel − 1) − 1)/stride + 1}
     * @throws IllegalArgumentException if the shapes don't fit together
     */
    public int[] convolvedShape(int[] xShape, int[] weightShape) {
        check(xShape, weightShape, 1, weightShape.length < 2 ? 0 : weightShape[1] * groups);
        int[] shape = xShape.clone();
        shape[1] = weightShape[0];
        for (int d = 2; d < shape.length; d++) {
            int free = xShape[d] + 2 * padding - dilation * (weightShape[d] - 1) - 1;
            if (free < 0) {
                throw new IllegalArgumentException("a kernel fits into the padded input: x=" + Arrays.toString(xShape)
                        + ", weight=" + Arrays.toString(weightShape) + ", padding=" + padding);
            }
            shape[d] = free / stride + 1;
        }
        return shape;
    }

    /**
     * The shape of a transposed convolution's output.
     *
     * @param xShape (N, A, sizes)
     * @param weightShape (A, B/G, kernel's sizes)
     * @return (N, B, sizes), each {@code (size − 1)·stride − 2·padding + dilation·(kernel − 1) + 1}
     * @throws IllegalArgumentException if the shapes don't fit together
     */
    public int[] transposedShape(int[] xShape, int[] weightShape) {
        check(xShape, weightShape, 0, weightShape.length < 2 ? 0 : weightShape[0]);
        int[] shape = xShape.clone();
        shape[1] = weightShape[1] * groups;
        for (int d = 2; d < shape.length; d++) {
            shape[d] = (xShape[d] - 1) * stride - 2 * padding + dilation * (weightShape[d] - 1) + 1;
            if (shape[d] < 1) {
                throw new IllegalArgumentException("padding leaves an output: x=" + Arrays.toString(xShape)
                        + ", weight=" + Arrays.toString(weightShape) + ", padding=" + padding);
            }
        }
        return shape;
    }

    /**
     * A convolution; without spatial dimensions a linear layer.
     *
     * @param x the input
     * @param xShape (N, B, sizes)
     * @param weight the kernels
     * @param weightShape (A, B/G, kernel's sizes)
     * @param bias A values, null for 0
     * @return y, of {@link #convolvedShape}
     * @throws IllegalArgumentException if sizes don't fit together
     */
    public double[] convolve(double[] x, int[] xShape, double[] weight, int[] weightShape, double @Nullable [] bias) {
        int[] yShape = convolvedShape(xShape, weightShape);
        double[] y = biased(bias, yShape);
        requireSize("x", x, xShape);
        requireSize("weight", weight, weightShape);
        Walk walk = walk(weightShape, yShape, xShape);
        for (int n = 0; n < xShape[0]; n++) {
            for (int w = 0; w < weight.length; w++) {
                int yStart = walk.fewer(n, w);
                int xStart = walk.more(n, w);
                for (int p = 0; p < walk.places; p++) {
                    int q = walk.place(w, p);
                    y[yStart + p] += q < 0 ? 0 : weight[w] * x[xStart + q];
                }
            }
        }
        return y;
    }

    /**
     * A transposed convolution, without output padding.
     *
     * @param x the input
     * @param xShape (N, A, sizes)
     * @param weight the kernels
     * @param weightShape (A, B/G, kernel's sizes)
     * @param bias B values, null for 0
     * @return y, of {@link #transposedShape}
     * @throws IllegalArgumentException if sizes don't fit together
     */
    public double[] transpose(double[] x, int[] xShape, double[] weight, int[] weightShape, double @Nullable [] bias) {
        int[] yShape = transposedShape(xShape, weightShape);
        double[] y = biased(bias, yShape);
        requireSize("x", x, xShape);
        requireSize("weight", weight, weightShape);
        Walk walk = walk(weightShape, xShape, yShape);
        for (int n = 0; n < xShape[0]; n++) {
            for (int w = 0; w < weight.length; w++) {
                int xStart = walk.fewer(n, w);
                int yStart = walk.more(n, w);
                for (int p = 0; p < walk.places; p++) {
                    int q = walk.place(w, p);
                    if (q >= 0) {
                        y[yStart + q] += weight[w] * x[xStart + p];
                    }
                }
            }
        }
        return y;
    }

    private void check(int[] xShape, int[] weightShape, int channelAxis, int channels) {
        boolean sizes = Arrays.stream(weightShape).allMatch(size -> size > 0)
                && Arrays.stream(xShape).skip(1).allMatch(size -> size > 0);
        if (weightShape.length < 2
                || xShape.length != weightShape.length
                || !sizes
                || xShape[0] < 0
                || weightShape[0] % groups != 0
                || xShape[1] != channels) {
            throw new IllegalArgumentException("x and weight fit together, channels in the weight's dimension "
                    + channelAxis + ": x=" + Arrays.toString(xShape) + ", weight=" + Arrays.toString(weightShape)
                    + ", groups=" + groups);
        }
    }

    private static void requireSize(String name, double[] values, int[] shape) {
        if (values.length != size(shape, 0)) {
            throw new IllegalArgumentException(name + " has as many values as its shape: shape="
                    + Arrays.toString(shape) + ", values=" + values.length);
        }
    }

    private static double[] biased(double @Nullable [] bias, int[] shape) {
        double[] y = new double[size(shape, 0)];
        if (bias != null) {
            if (bias.length != shape[1]) {
                throw new IllegalArgumentException(
                        "bias has one value per output channel: channels=" + shape[1] + ", values=" + bias.length);
            }
            int places = size(shape, 2);
            Arrays.setAll(y, i -> bias[i / places % bias.length]);
        }
        return y;
    }

    private static int size(int[] shape, int from) {
        return Arrays.stream(shape).skip(from).reduce(1, Math::multiplyExact);
    }

    private Walk walk(int[] weightShape, int[] fewerShape, int[] moreShape) {
        int places = size(fewerShape, 2);
        int[] meeting = new int[Math.multiplyExact(size(weightShape, 2), places)];
        for (int i = 0; i < meeting.length; i++) {
            int k = i / places;
            int p = i % places;
            int q = 0;
            int step = 1;
            for (int d = fewerShape.length - 1; d >= 2; d--) {
                int at = p % fewerShape[d] * stride + k % weightShape[d] * dilation - padding;
                q = q < 0 || at < 0 || at >= moreShape[d] ? -1 : q + at * step;
                step *= moreShape[d];
                p /= fewerShape[d];
                k /= weightShape[d];
            }
            meeting[i] = q;
        }
        return new Walk(weightShape, groups, places, size(moreShape, 2), meeting);
    }

    /** Which values a weight's value meets: those of two channels of one sample, at the places of a table. */
    private static final class Walk {
        private final int[] weightShape;
        private final int groups;
        private final int places;
        private final int morePlaces;
        private final int[] meeting;
        private final int kernel;

        Walk(int[] weightShape, int groups, int places, int morePlaces, int[] meeting) {
            this.weightShape = weightShape;
            this.groups = groups;
            this.places = places;
            this.morePlaces = morePlaces;
            this.meeting = meeting;
            this.kernel = meeting.length / places;
        }

        /** Where the values of sample n and of the channel a of weight w begin on the side with fewer places. */
        int fewer(int n, int w) {
            return (n * weightShape[0] + a(w)) * places;
        }

        /** Where the values of sample n and of the channel b of weight w begin on the other side. */
        int more(int n, int w) {
            int group = a(w) / (weightShape[0] / groups);
            int b = group * weightShape[1] + w / kernel % weightShape[1];
            return (n * weightShape[1] * groups + b) * morePlaces;
        }

        /** The place that weight w takes place p to, or -1 where that is padding. */
        int place(int w, int p) {
            return meeting[w % kernel * places + p];
        }

        private int a(int w) {
            return w / kernel / weightShape[1];
        }
    }
}
