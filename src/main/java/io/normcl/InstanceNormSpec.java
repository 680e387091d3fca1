package io.normcl;

import io.normcl.tensor.Activation;

/**
 * What an instance norm is. It can't change; the {@code with} methods give changed copies.
 *
 * @param channels C, at least 1
 * @param eps added to the variance inside the root; finite, at least 0
 * @param momentum how far a commit moves the running statistics
 * @param gamma whether there is a learnable scale, one value for each channel
 * @param beta whether there is a learnable shift, one value for each channel
 * @param runningStatistics whether there are running statistics, which evaluation takes
 * @param activation what follows
 */
public record InstanceNormSpec(
        int channels,
        double eps,
        Momentum momentum,
        boolean gamma,
        boolean beta,
        boolean runningStatistics,
        Activation activation) {
    /**
     * Checks each value.
     *
     * @param channels C, at least 1
     * @param eps added to the variance inside the root; finite, at least 0
     * @param momentum how far a commit moves the running statistics
     * @param gamma whether there is a learnable scale, one value for each channel
     * @param beta whether there is a learnable shift, one value for each channel
     * @param runningStatistics whether there are running statistics, which evaluation takes
     * @param activation what follows
     */
    public InstanceNormSpec {
        if (channels < 1) {
            throw new IllegalArgumentException("instance norm needs at least one channel: channels=" + channels);
        }
        Specs.requireEps(eps);
    }

    /**
     * PyTorch's defaults: eps 1e-5, momentum 0.1 of the new, no gamma and beta, no running statistics, no activation.
     *
     * @param channels C
     * @return the spec
     */
    public static InstanceNormSpec of(int channels) {
        return new InstanceNormSpec(channels, 1e-5, Momentum.ofNew(0.1), false, false, false, Activation.NONE);
    }

    /**
     * With another eps.
     *
     * @param newEps finite, at least 0
     * @return the changed spec
     */
    public InstanceNormSpec withEps(double newEps) {
        return new InstanceNormSpec(channels, newEps, momentum, gamma, beta, runningStatistics, activation);
    }

    /**
     * With another momentum.
     *
     * @param newMomentum how far a commit moves the running statistics
     * @return the changed spec
     */
    public InstanceNormSpec withMomentum(Momentum newMomentum) {
        return new InstanceNormSpec(channels, eps, newMomentum, gamma, beta, runningStatistics, activation);
    }

    /**
     * With or without gamma and beta.
     *
     * @param withGamma whether there is a learnable scale
     * @param withBeta whether there is a learnable shift
     * @return the changed spec
     */
    public InstanceNormSpec withAffine(boolean withGamma, boolean withBeta) {
        return new InstanceNormSpec(channels, eps, momentum, withGamma, withBeta, runningStatistics, activation);
    }

    /**
     * With or without running statistics.
     *
     * @param with whether there are running statistics
     * @return the changed spec
     */
    public InstanceNormSpec withRunningStatistics(boolean with) {
        return new InstanceNormSpec(channels, eps, momentum, gamma, beta, with, activation);
    }

    /**
     * With another activation.
     *
     * @param newActivation what follows
     * @return the changed spec
     */
    public InstanceNormSpec withActivation(Activation newActivation) {
        return new InstanceNormSpec(channels, eps, momentum, gamma, beta, runningStatistics, newActivation);
    }
}
