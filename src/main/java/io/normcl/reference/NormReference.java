package io.normcl.reference;

import io.normcl.tensor.Activation;
import java.util.Arrays;
import java.util.function.IntUnaryOperator;
import org.jspecify.annotations.Nullable;

/**
 * Every normalization layer in plain loops over doubles: the oracle. To it a layer is two maps: an element belongs to a
 * row, the set that its statistics are taken over, and to a parameter, the pair of gamma and beta that it is scaled and
 * shifted by.
 *
 * <pre>
 * mean     = Σx / M                              M elements of a row; 0 in RMS norm
 * variance = Σ(x − mean)² / M                    in RMS norm therefore the mean square
 * invStd   = 1 / √(variance + eps)
 * x̂        = (x − mean)·invStd
 * v        = gamma·x̂ + beta + z                  1 + gamma for gamma where the layer says so
 * y        = activation(v)
 *
 * dv       = dy·activation'(v)
 * dz       = dv        dBeta = Σdv        dGamma = Σdv·x̂      over the elements of a parameter
 * g        = gamma·dv
 * dx       = invStd·(g − Σg/M − x̂·Σ(g·x̂)/M)      over the elements of a row; without Σg/M in RMS norm
 * dx       = invStd·g                            running statistics
 * </pre>
 *
 * <p>Sources: Ioffe and Szegedy 2015, Ba 2016, Ulyanov 2016, Wu and He 2018, Zhang and Sennrich 2019; Ramachandran 2017
 * for SiLU. Sums are compensated, the variance is taken in two passes, and the mean keeps the low part that rounding it
 * to one double would lose.
 *
 * <p>Tensors are arrays in the order they are stored in. An instance is for tensors of one size and changes nothing
 * that it is given but the running statistics.
 */
public final class NormReference {
    private final Elements elements;
    private final boolean centered;
    private final boolean onePlusGamma;
    private final boolean flatIsBeta;
    private final double eps;
    private final Activation activation;
    private final boolean @Nullable [] counted;

    private NormReference(
            Elements elements,
            boolean centered,
            boolean onePlusGamma,
            boolean flatIsBeta,
            double eps,
            Activation activation,
            boolean @Nullable [] counted) {
        this.elements = elements;
        this.centered = centered;
        this.onePlusGamma = onePlusGamma;
        this.flatIsBeta = flatIsBeta;
        this.eps = eps;
        this.activation = activation;
        this.counted = counted;
    }

    /** How many elements there are, and what each belongs to. */
    private record Elements(int count, int rows, int parameters, IntUnaryOperator row, IntUnaryOperator parameter) {
        int rowOf(int i) {
            return row.applyAsInt(i);
        }

        int parameterOf(int i) {
            return parameter.applyAsInt(i);
        }
    }

    /** A row by sample, channel and place. */
    @FunctionalInterface
    private interface Rows {
        int of(int n, int c, int s);
    }

    /**
     * What a normalization uses, per row.
     *
     * @param running whether these are running statistics, constants to the gradients
     * @param count M, the elements of the row that count; 0 where the statistics are running
     * @param mean the mean, rounded
     * @param meanLow what rounding took off the mean
     * @param variance the population variance, in RMS norm the mean square
     * @param invStd the factor that brings the row to variance 1; 0 where no element counts
     */
    @SuppressWarnings("ArrayRecordComponent") // a name for five arrays
    public record Statistics(
            boolean running, long[] count, double[] mean, double[] meanLow, double[] variance, double[] invStd) {}

    /**
     * What backward gives.
     *
     * @param dx the gradient of x
     * @param dz the gradient of the residual, whether or not there was one
     * @param dGamma the gradient of gamma, one per parameter, whether or not there was one
     * @param dBeta the gradient of beta, one per parameter, whether or not there was one
     */
    @SuppressWarnings("ArrayRecordComponent") // a name for four arrays
    public record Gradients(double[] dx, double[] dz, double[] dGamma, double[] dBeta) {}

    /**
     * Layer norm: a row is D elements, each with a parameter of its own. Flat rows give NaN where eps is 0.
     *
     * @param rows the rows
     * @param d D, the elements of a row
     * @return the reference, with eps 1e-5
     */
    public static NormReference layerNorm(int rows, int d) {
        return new NormReference(rowView(rows, d), true, false, false, 1e-5, Activation.NONE, null);
    }

    /**
     * RMS norm: a row is D elements, each with a parameter of its own, and no mean is taken off. Rows of zeros give NaN
     * where eps is 0.
     *
     * @param rows the rows
     * @param d D, the elements of a row
     * @param onePlusGamma whether the scale is 1 + gamma, not gamma
     * @return the reference, with eps 1e-5
     */
    public static NormReference rmsNorm(int rows, int d, boolean onePlusGamma) {
        return new NormReference(rowView(rows, d), false, onePlusGamma, false, 1e-5, Activation.NONE, null);
    }

    /**
     * Group norm: a row is the channels of a group at all places of a sample, rows are in the order (N, G), and a
     * channel is a parameter. Flat rows give NaN where eps is 0.
     *
     * @param n N, the samples
     * @param c C, the channels
     * @param s S, the places of a sample
     * @param channelsLast whether tensors are (N, S, C), not (N, C, S)
     * @param groups G, a divisor of C
     * @return the reference, with eps 1e-5
     * @throws IllegalArgumentException if the groups don't divide the channels
     */
    public static NormReference groupNorm(int n, int c, int s, boolean channelsLast, int groups) {
        int each = channelsPerGroup(c, groups);
        Elements elements = channelView(
                n, c, s, channelsLast, n * groups, (sample, channel, place) -> sample * groups + channel / each);
        return new NormReference(elements, true, false, false, 1e-5, Activation.NONE, null);
    }

    /**
     * Instance norm: a row is one channel of one sample, rows are in the order (N, C), and a channel is a parameter.
     * Flat rows give beta where eps is 0, as in PyTorch, whose instance norm is a batch norm of N·C channels.
     *
     * @param n N, the samples
     * @param c C, the channels
     * @param s S, the places of a sample
     * @param channelsLast whether tensors are (N, S, C), not (N, C, S)
     * @return the reference, with eps 1e-5
     */
    public static NormReference instanceNorm(int n, int c, int s, boolean channelsLast) {
        return groupNorm(n, c, s, channelsLast, c).withFlatIsBeta(true);
    }

    /**
     * Group norm per location: a row is the channels of a group at one place, and a channel is a parameter. Rows are
     * in the order of the tensor, (N, G, S) or (N, S, G). Flat rows give NaN where eps is 0.
     *
     * @param n N, the samples
     * @param c C, the channels
     * @param s S, the places of a sample
     * @param channelsLast whether tensors are (N, S, C), not (N, C, S)
     * @param groups G, a divisor of C
     * @return the reference, with eps 1e-5
     * @throws IllegalArgumentException if the groups don't divide the channels
     */
    public static NormReference perLocation(int n, int c, int s, boolean channelsLast, int groups) {
        int each = channelsPerGroup(c, groups);
        Elements elements = channelView(
                n,
                c,
                s,
                channelsLast,
                n * s * groups,
                (sample, channel, place) -> channelsLast
                        ? (sample * s + place) * groups + channel / each
                        : (sample * groups + channel / each) * s + place);
        return new NormReference(elements, true, false, false, 1e-5, Activation.NONE, null);
    }

    /**
     * Batch norm: a row is a channel, and so is a parameter. Flat rows give beta where eps is 0.
     *
     * @param n N, the samples
     * @param c C, the channels
     * @param s S, the places of a sample
     * @param channelsLast whether tensors are (N, S, C), not (N, C, S)
     * @return the reference, with eps 1e-5
     */
    public static NormReference batchNorm(int n, int c, int s, boolean channelsLast) {
        Elements elements = channelView(n, c, s, channelsLast, c, (sample, channel, place) -> channel);
        return new NormReference(elements, true, false, true, 1e-5, Activation.NONE, null);
    }

    /**
     * With another eps.
     *
     * @param newEps added to the variance; a negative one gives NaN where the sum is negative
     * @return the changed reference
     */
    public NormReference withEps(double newEps) {
        return new NormReference(elements, centered, onePlusGamma, flatIsBeta, newEps, activation, counted);
    }

    /**
     * With another meaning of a row whose variance and eps add up to 0.
     *
     * @param beta whether its invStd is 0, so that v = beta + z; else it is infinite, so that y is NaN
     * @return the changed reference
     */
    public NormReference withFlatIsBeta(boolean beta) {
        return new NormReference(elements, centered, onePlusGamma, beta, eps, activation, counted);
    }

    /**
     * With an activation.
     *
     * @param newActivation what is applied after scale, shift and residual
     * @return the changed reference
     */
    public NormReference withActivation(Activation newActivation) {
        return new NormReference(elements, centered, onePlusGamma, flatIsBeta, eps, newActivation, counted);
    }

    /**
     * With a mask: what doesn't count is not read, and its y, dx and dz are 0.
     *
     * @param newCounted per element whether it counts, as {@link #counted} makes it of lengths
     * @return the changed reference
     * @throws IllegalArgumentException if it has another size
     */
    public NormReference withCounted(boolean[] newCounted) {
        require("counted", newCounted.length, elements.count);
        return new NormReference(elements, centered, onePlusGamma, flatIsBeta, eps, activation, newCounted.clone());
    }

    /**
     * The mask of samples of unequal length: an element counts where its position along the last spatial dimension is
     * less than its sample's length.
     *
     * @param n N, the samples
     * @param c C, the channels
     * @param s S, the places of a sample
     * @param channelsLast whether tensors are (N, S, C), not (N, C, S)
     * @param last the size of the last spatial dimension, a divisor of S
     * @param lengths one per sample
     * @return per element whether it counts
     * @throws IllegalArgumentException if there is not one length per sample, or {@code last} doesn't divide S
     */
    public static boolean[] counted(int n, int c, int s, boolean channelsLast, int last, int... lengths) {
        require("lengths", lengths.length, n);
        if (last < 1 || s % last != 0) {
            throw new IllegalArgumentException("the last dimension must divide the places: S=" + s + ", last=" + last);
        }
        boolean[] counted = new boolean[n * c * s];
        for (int i = 0; i < counted.length; i++) {
            counted[i] = place(i, c, s, channelsLast) % last < lengths[i / (c * s)];
        }
        return counted;
    }

    /**
     * The statistics of a tensor.
     *
     * @param x the tensor
     * @return count, mean, variance and invStd of each row; zeros where no element counts
     * @throws IllegalArgumentException if it has another size
     */
    public Statistics statistics(double[] x) {
        require("x", x.length, elements.count);
        long[] count = new long[elements.rows];
        double[] mean = new double[elements.rows];
        double[] meanLow = new double[elements.rows];
        double[] variance = new double[elements.rows];
        double[] invStd = new double[elements.rows];
        Sum[] sums = Sum.zeros(elements.rows);
        for (int i = 0; i < x.length; i++) {
            if (counts(i)) {
                count[elements.rowOf(i)]++;
                sums[elements.rowOf(i)].add(x[i]);
            }
        }
        for (int r = 0; r < elements.rows; r++) {
            if (centered && count[r] > 0) {
                mean[r] = sums[r].value() / count[r];
                meanLow[r] = sums[r].remainder(mean[r], count[r]) / count[r];
            }
        }
        Sum[] squares = Sum.zeros(elements.rows);
        for (int i = 0; i < x.length; i++) {
            if (counts(i)) {
                int r = elements.rowOf(i);
                double d = x[i] - mean[r] - meanLow[r];
                squares[r].add(d * d);
            }
        }
        for (int r = 0; r < elements.rows; r++) {
            if (count[r] > 0) {
                variance[r] = squares[r].value() / count[r];
                invStd[r] = invStd(variance[r]);
            }
        }
        return new Statistics(false, count, mean, meanLow, variance, invStd);
    }

    /**
     * Running statistics as those to normalize with, in batch norm and instance norm.
     *
     * @param runningMean one mean per parameter
     * @param runningVar one variance per parameter
     * @return statistics that say of each row what was given for its parameter
     * @throws IllegalArgumentException if they have another size, or a row has several parameters
     */
    public Statistics running(double[] runningMean, double[] runningVar) {
        require("runningMean", runningMean.length, elements.parameters);
        require("runningVar", runningVar.length, elements.parameters);
        int[] parameters = parametersOfRows();
        double[] mean = new double[elements.rows];
        double[] variance = new double[elements.rows];
        double[] invStd = new double[elements.rows];
        for (int r = 0; r < elements.rows; r++) {
            if (parameters[r] >= 0) {
                mean[r] = runningMean[parameters[r]];
                variance[r] = runningVar[parameters[r]];
                invStd[r] = invStd(variance[r]);
            }
        }
        return new Statistics(true, new long[elements.rows], mean, new double[elements.rows], variance, invStd);
    }

    /**
     * Normalizes a tensor.
     *
     * @param statistics of this tensor in training, {@link #running running} in evaluation
     * @param gamma the scale per parameter, null for none
     * @param beta the offset per parameter, null for 0
     * @param x the tensor
     * @param z the residual added before the activation, null for none
     * @return y
     * @throws IllegalArgumentException if an array has another size
     */
    public double[] forward(
            Statistics statistics,
            double @Nullable [] gamma,
            double @Nullable [] beta,
            double[] x,
            double @Nullable [] z) {
        requireAll(gamma, beta, x, z);
        double[] y = new double[x.length];
        for (int i = 0; i < x.length; i++) {
            if (counts(i)) {
                y[i] = activated(shifted(statistics, gamma, beta, x, z, i));
            }
        }
        return y;
    }

    /**
     * The gradients.
     *
     * @param statistics those that the forward normalized with
     * @param gamma the scale per parameter, null for none
     * @param beta the offset per parameter, null for 0; it matters to the activation alone
     * @param x the tensor
     * @param z the residual added before the activation, null for none; it matters to the activation alone
     * @param dy the gradient of the output
     * @return the gradients of all that went in
     * @throws IllegalArgumentException if an array has another size
     */
    public Gradients backward(
            Statistics statistics,
            double @Nullable [] gamma,
            double @Nullable [] beta,
            double[] x,
            double @Nullable [] z,
            double[] dy) {
        requireAll(gamma, beta, x, z);
        require("dy", dy.length, elements.count);
        double[] dz = new double[x.length];
        Sum[] dGamma = Sum.zeros(elements.parameters);
        Sum[] dBeta = Sum.zeros(elements.parameters);
        Sum[] rowG = Sum.zeros(elements.rows);
        Sum[] rowGX = Sum.zeros(elements.rows);
        for (int i = 0; i < x.length; i++) {
            if (counts(i)) {
                int r = elements.rowOf(i);
                int p = elements.parameterOf(i);
                double normalized = normalized(statistics, x, i);
                dz[i] = dy[i] * slope(shifted(statistics, gamma, beta, x, z, i));
                double g = dz[i] * scale(gamma, p);
                dGamma[p].add(dz[i] * normalized);
                dBeta[p].add(dz[i]);
                rowG[r].add(g);
                rowGX[r].add(g * normalized);
            }
        }
        double[] dx = new double[x.length];
        for (int i = 0; i < x.length; i++) {
            if (counts(i)) {
                int r = elements.rowOf(i);
                double g = dz[i] * scale(gamma, elements.parameterOf(i));
                if (!statistics.running) {
                    long m = statistics.count[r];
                    double mean = centered ? rowG[r].value() / m : 0;
                    g = g - mean - normalized(statistics, x, i) * (rowGX[r].value() / m);
                }
                dx[i] = statistics.invStd[r] * g;
            }
        }
        return new Gradients(dx, dz, Sum.values(dGamma), Sum.values(dBeta));
    }

    /**
     * Moves running statistics towards those of a batch, in batch norm and instance norm:
     * {@code running = (1 − w)·running + w·batch}, where the batch's is the mean over a parameter's rows, that is over
     * the samples in instance norm. A row without elements has no say, a row of one element has none in the variance.
     *
     * @param batch the batch's statistics
     * @param weight w, the weight of the batch: PyTorch's momentum
     * @param unbiased whether a variance enters as variance·M/(M − 1), else as it is
     * @param runningMean one mean per parameter, updated
     * @param runningVar one variance per parameter, updated
     * @throws IllegalArgumentException if they have another size, or a row has several parameters
     */
    public void update(Statistics batch, double weight, boolean unbiased, double[] runningMean, double[] runningVar) {
        require("runningMean", runningMean.length, elements.parameters);
        require("runningVar", runningVar.length, elements.parameters);
        int[] parameters = parametersOfRows();
        for (int p = 0; p < elements.parameters; p++) {
            Sum means = new Sum();
            Sum variances = new Sum();
            int meansSeen = 0;
            int variancesSeen = 0;
            for (int r = 0; r < elements.rows; r++) {
                long m = batch.count[r];
                if (parameters[r] == p && m > 0) {
                    means.add(batch.mean[r]);
                    meansSeen++;
                }
                if (parameters[r] == p && m > 1) {
                    variances.add(unbiased ? batch.variance[r] * m / (m - 1) : batch.variance[r]);
                    variancesSeen++;
                }
            }
            if (meansSeen > 0) {
                runningMean[p] = (1 - weight) * runningMean[p] + weight * (means.value() / meansSeen);
            }
            if (variancesSeen > 0) {
                runningVar[p] = (1 - weight) * runningVar[p] + weight * (variances.value() / variancesSeen);
            }
        }
    }

    private static Elements rowView(int rows, int d) {
        if (rows < 0 || d < 1) {
            throw new IllegalArgumentException("rows >= 0, D >= 1: rows=" + rows + ", D=" + d);
        }
        return new Elements(Math.multiplyExact(rows, d), rows, d, i -> i / d, i -> i % d);
    }

    private static Elements channelView(int n, int c, int s, boolean channelsLast, int rows, Rows rowOf) {
        if (n < 0 || c < 1 || s < 0) {
            throw new IllegalArgumentException("N >= 0, C >= 1, S >= 0: N=" + n + ", C=" + c + ", S=" + s);
        }
        int count = Math.multiplyExact(Math.multiplyExact(n, c), s);
        IntUnaryOperator channel = channelsLast ? i -> i % c : i -> i / s % c;
        return new Elements(
                count,
                rows,
                c,
                i -> rowOf.of(i / (c * s), channel.applyAsInt(i), place(i, c, s, channelsLast)),
                channel);
    }

    private static int place(int i, int c, int s, boolean channelsLast) {
        return channelsLast ? i / c % s : i % s;
    }

    private static int channelsPerGroup(int c, int groups) {
        if (groups < 1 || c % groups != 0) {
            throw new IllegalArgumentException("groups must divide the channels: C=" + c + ", groups=" + groups);
        }
        return c / groups;
    }

    private boolean counts(int i) {
        return counted == null || counted[i];
    }

    private double invStd(double variance) {
        return flatIsBeta && variance + eps == 0 ? 0 : 1 / Math.sqrt(variance + eps);
    }

    private double normalized(Statistics statistics, double[] x, int i) {
        int r = elements.rowOf(i);
        return (x[i] - statistics.mean[r] - statistics.meanLow[r]) * statistics.invStd[r];
    }

    private double scale(double @Nullable [] gamma, int p) {
        return gamma == null ? 1 : onePlusGamma ? 1 + gamma[p] : gamma[p];
    }

    /** The value before the activation. */
    private double shifted(
            Statistics statistics,
            double @Nullable [] gamma,
            double @Nullable [] beta,
            double[] x,
            double @Nullable [] z,
            int i) {
        int p = elements.parameterOf(i);
        double scaled = normalized(statistics, x, i) * scale(gamma, p);
        return scaled + (beta == null ? 0 : beta[p]) + (z == null ? 0 : z[i]);
    }

    private double activated(double v) {
        return switch (activation.kind()) {
            case NONE -> v;
            case RELU -> v <= 0 ? 0 : v;
            case LEAKY_RELU -> v > 0 ? v : activation.slope() * v;
            case SILU -> v / (1 + Math.exp(-v));
        };
    }

    /** The activation's derivative. */
    private double slope(double v) {
        double sigmoid = 1 / (1 + Math.exp(-v));
        return switch (activation.kind()) {
            case NONE -> 1;
            case RELU -> v <= 0 ? 0 : 1;
            case LEAKY_RELU -> v > 0 ? 1 : activation.slope();
            case SILU -> sigmoid * (1 + v * (1 - sigmoid));
        };
    }

    /** The parameter of each row, −1 where a row has no element. */
    private int[] parametersOfRows() {
        int[] parameters = new int[elements.rows];
        Arrays.fill(parameters, -1);
        for (int i = 0; i < elements.count; i++) {
            int r = elements.rowOf(i);
            int p = elements.parameterOf(i);
            if (parameters[r] >= 0 && parameters[r] != p) {
                throw new IllegalArgumentException("running statistics need one parameter per row: row=" + r
                        + ", parameter=" + parameters[r] + ", other=" + p);
            }
            parameters[r] = p;
        }
        return parameters;
    }

    private void requireAll(double @Nullable [] gamma, double @Nullable [] beta, double[] x, double @Nullable [] z) {
        require("x", x.length, elements.count);
        require("z", z == null ? elements.count : z.length, elements.count);
        require("gamma", gamma == null ? elements.parameters : gamma.length, elements.parameters);
        require("beta", beta == null ? elements.parameters : beta.length, elements.parameters);
    }

    private static void require(String name, int values, int needed) {
        if (values != needed) {
            throw new IllegalArgumentException(
                    name + " must have the size of its layer: values=" + values + ", needed=" + needed);
        }
    }
}
