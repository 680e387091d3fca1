package io.normcl.sync;

/**
 * The sums of each channel that a backward needs, over all that was added so far: of the gradient g, which is dBeta, and
 * of g·xHat, which is dGamma.
 */
public final class ChannelSums {
    private final double[] dBeta;
    private final double[] dGamma;

    /**
     * Starts with zeros.
     *
     * @param channels the number of channels
     */
    public ChannelSums(int channels) {
        dBeta = new double[channels];
        dGamma = new double[channels];
    }

    /**
     * Adds to a channel.
     *
     * @param channel the channel
     * @param otherBeta a sum of g
     * @param otherGamma a sum of g·xHat
     */
    public void add(int channel, double otherBeta, double otherGamma) {
        dBeta[channel] += otherBeta;
        dGamma[channel] += otherGamma;
    }

    /**
     * Adds all channels of others.
     *
     * @param others of as many channels; read
     * @throws IllegalArgumentException if the channels differ
     */
    public void add(ChannelSums others) {
        if (others.channels() != channels()) {
            throw new IllegalArgumentException("sums must be of the same channels: channels=" + channels()
                    + ", others' channels=" + others.channels());
        }
        for (int c = 0; c < dBeta.length; c++) {
            add(c, others.dBeta[c], others.dGamma[c]);
        }
    }

    /**
     * The number of channels.
     *
     * @return C
     */
    public int channels() {
        return dBeta.length;
    }

    /**
     * Σg.
     *
     * @param channel the channel
     * @return the sum
     */
    public double dBeta(int channel) {
        return dBeta[channel];
    }

    /**
     * Σg·xHat.
     *
     * @param channel the channel
     * @return the sum
     */
    public double dGamma(int channel) {
        return dGamma[channel];
    }
}
