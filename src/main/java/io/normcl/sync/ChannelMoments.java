package io.normcl.sync;

/**
 * Statistics of each channel over all values merged so far: how many, their mean, and the sum of squared distances
 * from it.
 *
 * <p>The result depends on the order of the merges, in the last place; a fixed order gives the same bits everywhere.
 */
public final class ChannelMoments {
    private final double[] count;
    private final double[] mean;
    private final double[] m2;

    /**
     * Starts with nothing.
     *
     * @param channels the number of channels
     */
    public ChannelMoments(int channels) {
        count = new double[channels];
        mean = new double[channels];
        m2 = new double[channels];
    }

    /**
     * Adds a set of values to a channel (Chan, Golub and LeVeque 1983, equations 2.1).
     *
     * @param channel the channel
     * @param otherCount how many values; 0 changes nothing
     * @param otherMean their mean
     * @param otherM2 the sum of their squared distances from that mean
     */
    public void merge(int channel, double otherCount, double otherMean, double otherM2) {
        if (otherCount == 0) {
            return;
        }
        if (count[channel] == 0) {
            count[channel] = otherCount;
            mean[channel] = otherMean;
            m2[channel] = otherM2;
            return;
        }
        double all = count[channel] + otherCount;
        double delta = otherMean - mean[channel];
        double share = otherCount / all;
        mean[channel] += delta * share;
        m2[channel] += otherM2 + delta * delta * (count[channel] * share);
        count[channel] = all;
    }

    /**
     * Adds what others merged, after what is here.
     *
     * @param others of as many channels; read
     * @throws IllegalArgumentException if the channels differ
     */
    public void merge(ChannelMoments others) {
        if (others.channels() != channels()) {
            throw new IllegalArgumentException("moments must be of the same channels: channels=" + channels()
                    + ", others' channels=" + others.channels());
        }
        for (int c = 0; c < mean.length; c++) {
            merge(c, others.count[c], others.mean[c], others.m2[c]);
        }
    }

    /**
     * The number of channels.
     *
     * @return C
     */
    public int channels() {
        return mean.length;
    }

    /**
     * The number of values.
     *
     * @param channel the channel
     * @return how many were merged
     */
    public double count(int channel) {
        return count[channel];
    }

    /**
     * All means.
     *
     * @return a copy
     */
    public double[] means() {
        return mean.clone();
    }

    /**
     * All population variances.
     *
     * @return a new array; NaN where there are no values
     */
    public double[] variances() {
        double[] variances = new double[mean.length];
        for (int c = 0; c < variances.length; c++) {
            variances[c] = variance(c);
        }
        return variances;
    }

    /**
     * The mean.
     *
     * @param channel the channel
     * @return the mean of its values
     */
    public double mean(int channel) {
        return mean[channel];
    }

    /**
     * The population variance.
     *
     * @param channel the channel
     * @return m2 / count
     */
    public double variance(int channel) {
        return m2[channel] / count[channel];
    }
}
