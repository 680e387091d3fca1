package io.normcl.reference;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Batch norm in plain loops over doubles, of one tensor or of the shards of one (synchronized batch norm): the oracle.
 *
 * <p>Per channel, over the M = N·S values of all shards together:
 *
 * <pre>
 * mean     = Σx / M
 * variance = Σ(x − mean)² / M                        the population's; enters the normalization
 * invStd   = 1 / √(variance + eps)                   0 where variance and eps are both 0
 * x̂        = (x − mean)·invStd
 * y        = gamma·x̂ + beta
 *
 * dBeta    = Σdy        dGamma = Σdy·x̂               of each shard alone
 * dx       = gamma·invStd·(dy − Σdy/M − x̂·Σ(dy·x̂)/M)  batch statistics; both sums over all shards
 * dx       = gamma·invStd·dy                          running statistics
 * </pre>
 *
 * <p>Sources: Ioffe and Szegedy 2015, algorithm 1 and the gradients of its section 3; two passes for the variance, as
 * in Chan, Golub and LeVeque 1983, section 1. Sums are compensated (Neumaier 1974) and the mean keeps the low part
 * that rounding it to one double would lose, so that values of 10⁸ with a standard deviation of 10⁻⁴ lose nothing.
 *
 * <p>Tensors are arrays in the order they are stored in, (N, C, S) or (N, S, C); arrays per channel have C values.
 */
public final class BatchNormReference {
    private final int channels;
    private final int spatial;
    private final boolean channelsLast;

    /**
     * A reference for tensors of these sizes and any number of samples.
     *
     * @param channels C, at least 1
     * @param spatial S, the places of a sample
     * @param channelsLast whether tensors are (N, S, C), not (N, C, S)
     * @throws IllegalArgumentException if C or S is out of range
     */
    public BatchNormReference(int channels, int spatial, boolean channelsLast) {
        if (channels < 1 || spatial < 0) {
            throw new IllegalArgumentException("C >= 1, S >= 0: C=" + channels + ", S=" + spatial);
        }
        this.channels = channels;
        this.spatial = spatial;
        this.channelsLast = channelsLast;
    }

    /**
     * What a normalization uses, per channel.
     *
     * @param count M, the values of a channel
     * @param mean the mean, rounded
     * @param meanLow what rounding took off the mean
     * @param variance the variance to normalize with
     */
    @SuppressWarnings("ArrayRecordComponent") // a name for three arrays
    public record Statistics(long count, double[] mean, double[] meanLow, double[] variance) {
        /**
         * Running statistics as the statistics to normalize with.
         *
         * @param runningMean one mean per channel
         * @param runningVar one variance per channel
         * @return statistics of no batch
         */
        public static Statistics running(double[] runningMean, double[] runningVar) {
            return new Statistics(0, runningMean.clone(), new double[runningMean.length], runningVar.clone());
        }

        /**
         * The factors that bring each channel to variance 1.
         *
         * @param eps added to the variance
         * @return 1/√(variance + eps) per channel, 0 where both are 0
         */
        public double[] invStd(double eps) {
            return Arrays.stream(variance)
                    .map(v -> v == 0 && eps == 0 ? 0 : 1 / Math.sqrt(v + eps))
                    .toArray();
        }
    }

    /**
     * What backward gives for one shard.
     *
     * @param dx the gradient of x, in x's order
     * @param dGamma the shard's own Σdy·x̂ per channel
     * @param dBeta the shard's own Σdy per channel
     */
    @SuppressWarnings("ArrayRecordComponent") // a name for three arrays
    public record Gradients(double[] dx, double[] dGamma, double[] dBeta) {}

    /**
     * The statistics of a batch.
     *
     * @param shards its parts, of any number of samples each, none included
     * @return count, mean and population variance over all parts; zeros where the batch is empty
     * @throws IllegalArgumentException if a part is not whole samples
     */
    public Statistics statistics(List<double[]> shards) {
        Sum[] sums = Sum.zeros(channels);
        long count = 0;
        for (double[] x : shards) {
            count += samples(x) * spatial;
            for (int i = 0; i < x.length; i++) {
                sums[channel(i)].add(x[i]);
            }
        }
        double[] mean = new double[channels];
        double[] meanLow = new double[channels];
        double[] variance = new double[channels];
        if (count > 0) {
            for (int c = 0; c < channels; c++) {
                mean[c] = sums[c].value() / count;
                meanLow[c] = sums[c].remainder(mean[c], count) / count;
            }
            Sum[] squares = Sum.zeros(channels);
            for (double[] x : shards) {
                for (int i = 0; i < x.length; i++) {
                    int c = channel(i);
                    double d = x[i] - mean[c] - meanLow[c];
                    squares[c].add(d * d);
                }
            }
            for (int c = 0; c < channels; c++) {
                variance[c] = squares[c].value() / count;
            }
        }
        return new Statistics(count, mean, meanLow, variance);
    }

    /**
     * Normalizes one shard.
     *
     * @param statistics of the whole batch in training, {@link Statistics#running running} in evaluation
     * @param eps added to the variance
     * @param gamma the scale per channel, null for 1
     * @param beta the offset per channel, null for 0
     * @param x the shard
     * @return y, in x's order
     * @throws IllegalArgumentException if an array has not the size it must have
     */
    public double[] forward(
            Statistics statistics, double eps, double @Nullable [] gamma, double @Nullable [] beta, double[] x) {
        check(statistics, gamma);
        requireChannels("beta", beta);
        samples(x);
        double[] invStd = statistics.invStd(eps);
        double[] y = new double[x.length];
        for (int i = 0; i < x.length; i++) {
            int c = channel(i);
            double scaled = normalized(statistics, invStd, c, x[i]) * (gamma == null ? 1 : gamma[c]);
            y[i] = scaled + (beta == null ? 0 : beta[c]);
        }
        return y;
    }

    /**
     * The gradients of a batch.
     *
     * @param statistics those that the forward normalized with
     * @param batchStatistics whether they came from these very shards (training) or are constants (evaluation, frozen)
     * @param eps added to the variance
     * @param gamma the scale per channel, null for 1
     * @param xs the shards
     * @param dys the gradients of their outputs
     * @return the gradients of each shard; dGamma and dBeta are not summed over the shards
     * @throws IllegalArgumentException if an array has not the size it must have
     */
    public List<Gradients> backward(
            Statistics statistics,
            boolean batchStatistics,
            double eps,
            double @Nullable [] gamma,
            List<double[]> xs,
            List<double[]> dys) {
        check(statistics, gamma);
        double[] invStd = statistics.invStd(eps);
        Sum[] sumDy = Sum.zeros(channels);
        Sum[] sumDyX = Sum.zeros(channels);
        List<Gradients> gradients = new ArrayList<>();
        for (int shard = 0; shard < xs.size(); shard++) {
            double[] x = xs.get(shard);
            double[] dy = dys.get(shard);
            if (samples(x) != samples(dy)) {
                throw new IllegalArgumentException(
                        "dy has the size of x: shard=" + shard + ", x=" + x.length + ", dy=" + dy.length);
            }
            Sum[] localDy = Sum.zeros(channels);
            Sum[] localDyX = Sum.zeros(channels);
            for (int i = 0; i < x.length; i++) {
                int c = channel(i);
                double dyX = dy[i] * normalized(statistics, invStd, c, x[i]);
                localDy[c].add(dy[i]);
                localDyX[c].add(dyX);
                sumDy[c].add(dy[i]);
                sumDyX[c].add(dyX);
            }
            gradients.add(new Gradients(new double[x.length], Sum.values(localDyX), Sum.values(localDy)));
        }
        double[] meanDy = Sum.values(sumDy);
        double[] meanDyX = Sum.values(sumDyX);
        for (int c = 0; c < channels; c++) {
            meanDy[c] = batchStatistics ? meanDy[c] / statistics.count() : 0;
            meanDyX[c] = batchStatistics ? meanDyX[c] / statistics.count() : 0;
        }
        for (int shard = 0; shard < xs.size(); shard++) {
            double[] x = xs.get(shard);
            double[] dy = dys.get(shard);
            double[] dx = gradients.get(shard).dx();
            for (int i = 0; i < x.length; i++) {
                int c = channel(i);
                double scale = invStd[c] * (gamma == null ? 1 : gamma[c]);
                // Apart from the batch's: 0·x̂ is no 0 where x̂ is infinite.
                dx[i] = !batchStatistics
                        ? scale * dy[i]
                        : scale * (dy[i] - meanDy[c] - normalized(statistics, invStd, c, x[i]) * meanDyX[c]);
            }
        }
        return gradients;
    }

    /**
     * Moves running statistics towards those of a batch: {@code running = (1 − w)·running + w·batch}. An empty batch
     * moves nothing; a batch of one value per channel has no variance to tell of and moves the mean alone.
     *
     * @param batch the batch's statistics
     * @param weight w, the weight of the batch: 0.1 is PyTorch's momentum, 1/batches seen the cumulative average
     * @param unbiased whether the variance enters as variance·M/(M − 1), else as it is
     * @param runningMean one mean per channel, updated
     * @param runningVar one variance per channel, updated
     */
    public static void update(
            Statistics batch, double weight, boolean unbiased, double[] runningMean, double[] runningVar) {
        long m = batch.count();
        for (int c = 0; c < runningMean.length; c++) {
            if (m > 0) {
                runningMean[c] = (1 - weight) * runningMean[c] + weight * batch.mean()[c];
            }
            if (m > 1) {
                double variance = unbiased ? batch.variance()[c] * m / (m - 1) : batch.variance()[c];
                runningVar[c] = (1 - weight) * runningVar[c] + weight * variance;
            }
        }
    }

    private int channel(int i) {
        return channelsLast ? i % channels : i / spatial % channels;
    }

    private static double normalized(Statistics statistics, double[] invStd, int c, double x) {
        return (x - statistics.mean()[c] - statistics.meanLow()[c]) * invStd[c];
    }

    private void check(Statistics statistics, double @Nullable [] gamma) {
        requireChannels("mean", statistics.mean());
        requireChannels("variance", statistics.variance());
        requireChannels("gamma", gamma);
    }

    private void requireChannels(String name, double @Nullable [] values) {
        if (values != null && values.length != channels) {
            throw new IllegalArgumentException(
                    name + " has one value per channel: C=" + channels + ", values=" + values.length);
        }
    }

    private long samples(double[] x) {
        long size = (long) channels * spatial;
        if (size == 0 ? x.length != 0 : x.length % size != 0) {
            throw new IllegalArgumentException(
                    "a tensor is whole samples: C=" + channels + ", S=" + spatial + ", values=" + x.length);
        }
        return size == 0 ? 0 : x.length / size;
    }
}
