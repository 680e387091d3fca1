package io.normcl.sync;

/**
 * Averages of each channel over instances: of their means and of their unbiased variances, which are the running
 * statistics of instance norm.
 */
public final class ChannelAverages {
    private final double[] mean;
    private final double[] variance;
    private final long[] count;

    /**
     * Starts with nothing.
     *
     * @param channels the number of channels
     */
    public ChannelAverages(int channels) {
        mean = new double[channels];
        variance = new double[channels];
        count = new long[channels];
    }

    /**
     * Adds an instance's statistics to a channel.
     *
     * @param channel the channel
     * @param ofMean the instance's mean
     * @param ofVariance its unbiased variance
     */
    public void add(int channel, double ofMean, double ofVariance) {
        mean[channel] += ofMean;
        variance[channel] += ofVariance;
        count[channel]++;
    }

    /**
     * Adds all channels of others: every instance weighs the same.
     *
     * @param others of as many channels; read
     * @throws IllegalArgumentException if the channels differ
     */
    public void add(ChannelAverages others) {
        if (others.channels() != channels()) {
            throw new IllegalArgumentException("averages must be of the same channels: channels=" + channels()
                    + ", others' channels=" + others.channels());
        }
        for (int c = 0; c < mean.length; c++) {
            mean[c] += others.mean[c];
            variance[c] += others.variance[c];
            count[c] += others.count[c];
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
     * The number of instances.
     *
     * @param channel the channel
     * @return how many were added
     */
    public long count(int channel) {
        return count[channel];
    }

    /**
     * All averages of the means.
     *
     * @return a new array; NaN where there are no instances
     */
    public double[] means() {
        double[] means = new double[mean.length];
        for (int c = 0; c < means.length; c++) {
            means[c] = mean(c);
        }
        return means;
    }

    /**
     * All averages of the unbiased variances.
     *
     * @return a new array; NaN where there are no instances
     */
    public double[] variances() {
        double[] variances = new double[mean.length];
        for (int c = 0; c < variances.length; c++) {
            variances[c] = variance(c);
        }
        return variances;
    }

    /**
     * The average of the means.
     *
     * @param channel the channel
     * @return NaN where there are no instances
     */
    public double mean(int channel) {
        return mean[channel] / count[channel];
    }

    /**
     * The average of the unbiased variances.
     *
     * @param channel the channel
     * @return NaN where there are no instances
     */
    public double variance(int channel) {
        return variance[channel] / count[channel];
    }
}
