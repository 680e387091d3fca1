package io.normcl;

import io.normcl.tensor.Activation;

/**
 * What a group norm is. It can't change; the {@code with} methods give changed copies.
 *
 * @param channels C, at least 1
 * @param groups G, which divides C
 * @param eps added to the variance inside the root; finite, at least 0
 * @param gamma whether there is a learnable scale, one value for each channel
 * @param beta whether there is a learnable shift, one value for each channel
 * @param perLocation whether statistics are of the C/G channels at each place alone, and not of all places together;
 *     with one group that is the layer norm over channels of convolutional networks
 * @param activation what follows
 */
public record GroupNormSpec(
        int channels, int groups, double eps, boolean gamma, boolean beta, boolean perLocation, Activation activation) {
    /**
     * Checks each value.
     *
     * @param channels C, at least 1
     * @param groups G, which divides C
     * @param eps added to the variance inside the root; finite, at least 0
     * @param gamma whether there is a learnable scale, one value for each channel
     * @param beta whether there is a learnable shift, one value for each channel
     * @param perLocation whether statistics are of the C/G channels at each place alone
     * @param activation what follows
     */
    public GroupNormSpec {
        if (channels < 1 || groups < 1 || channels % groups != 0) {
            throw new IllegalArgumentException(
                    "groups must divide the channels: channels=" + channels + ", groups=" + groups);
        }
        Specs.requireEps(eps);
    }

    /**
     * PyTorch's defaults: eps 1e-5, gamma and beta, statistics over all places, no activation.
     *
     * @param groups G, which divides C
     * @param channels C
     * @return the spec
     */
    public static GroupNormSpec of(int groups, int channels) {
        return new GroupNormSpec(channels, groups, 1e-5, true, true, false, Activation.NONE);
    }

    /**
     * With another eps.
     *
     * @param newEps finite, at least 0
     * @return the changed spec
     */
    public GroupNormSpec withEps(double newEps) {
        return new GroupNormSpec(channels, groups, newEps, gamma, beta, perLocation, activation);
    }

    /**
     * With or without gamma and beta.
     *
     * @param withGamma whether there is a learnable scale
     * @param withBeta whether there is a learnable shift
     * @return the changed spec
     */
    public GroupNormSpec withAffine(boolean withGamma, boolean withBeta) {
        return new GroupNormSpec(channels, groups, eps, withGamma, withBeta, perLocation, activation);
    }

    /**
     * With statistics per place, or over all places.
     *
     * @param atEach whether each place has its own
     * @return the changed spec
     */
    public GroupNormSpec withPerLocation(boolean atEach) {
        return new GroupNormSpec(channels, groups, eps, gamma, beta, atEach, activation);
    }

    /**
     * With another activation.
     *
     * @param newActivation what follows
     * @return the changed spec
     */
    public GroupNormSpec withActivation(Activation newActivation) {
        return new GroupNormSpec(channels, groups, eps, gamma, beta, perLocation, newActivation);
    }
}
