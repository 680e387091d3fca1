package io.normcl;

/**
 * What a batch norm is, apart from any device.
 *
 * @param channels C, at least 1
 * @param eps added to the variance inside the root; finite, at least 0
 * @param momentum how far a commit moves the running statistics
 * @param runningVariance which variance a commit takes
 * @param gamma whether there is a learnable scale
 * @param beta whether there is a learnable shift
 * @param runningStatistics whether there are running statistics; without, evaluation takes the batch's too
 * @param frozen whether training takes the running statistics and leaves them (fine-tuning with small batches)
 * @param singleValue what training does where a channel has one value
 */
public record BatchNormSpec(
        int channels,
        double eps,
        Momentum momentum,
        RunningVariance runningVariance,
        boolean gamma,
        boolean beta,
        boolean runningStatistics,
        boolean frozen,
        SingleValue singleValue) {

    /** Which variance enters the running variance. */
    public enum RunningVariance {
        /** Divided by M − 1: PyTorch, TensorFlow 1. */
        UNBIASED,
        /** Divided by M: Keras 3, Flax, ONNX, DL4J. */
        BIASED
    }

    /** What training does where a channel has a single value, whose variance is 0 and says nothing. */
    public enum SingleValue {
        /** Refuses, as PyTorch does. */
        REFUSE,
        /** Takes the running statistics, and leaves them. */
        USE_RUNNING,
        /** Takes variance 0, so that y = beta; a commit leaves the running variance. */
        ALLOW
    }

    /**
     * Checks each value.
     *
     * @param channels C, at least 1
     * @param eps added to the variance inside the root; finite, at least 0
     * @param momentum how far a commit moves the running statistics
     * @param runningVariance which variance a commit takes
     * @param gamma whether there is a learnable scale
     * @param beta whether there is a learnable shift
     * @param runningStatistics whether there are running statistics; without, evaluation takes the batch's too
     * @param frozen whether training takes the running statistics and leaves them (fine-tuning with small batches)
     * @param singleValue what training does where a channel has one value
     */
    public BatchNormSpec {
        if (channels < 1) {
            throw new IllegalArgumentException("batch norm needs at least one channel: channels=" + channels);
        }
        if (!(eps >= 0) || Double.isInfinite(eps)) {
            throw new IllegalArgumentException("eps must be finite and not negative: eps=" + eps);
        }
        if (!runningStatistics && (frozen || singleValue == SingleValue.USE_RUNNING)) {
            throw new IllegalArgumentException(
                    "what uses running statistics needs them: runningStatistics=false, frozen=" + frozen
                            + ", singleValue=" + singleValue);
        }
    }

    /**
     * PyTorch's defaults: eps 1e-5, momentum 0.1 of the new, unbiased, gamma and beta, running statistics.
     *
     * @param channels C
     * @return the spec
     */
    public static BatchNormSpec of(int channels) {
        return new BatchNormSpec(
                channels,
                1e-5,
                Momentum.ofNew(0.1),
                RunningVariance.UNBIASED,
                true,
                true,
                true,
                false,
                SingleValue.REFUSE);
    }

    /**
     * With another eps.
     *
     * @param newEps finite, at least 0
     * @return the changed spec
     */
    public BatchNormSpec withEps(double newEps) {
        return new BatchNormSpec(
                channels, newEps, momentum, runningVariance, gamma, beta, runningStatistics, frozen, singleValue);
    }

    /**
     * With another momentum.
     *
     * @param newMomentum how far a commit moves the running statistics
     * @return the changed spec
     */
    public BatchNormSpec withMomentum(Momentum newMomentum) {
        return new BatchNormSpec(
                channels, eps, newMomentum, runningVariance, gamma, beta, runningStatistics, frozen, singleValue);
    }

    /**
     * With another convention for the running variance.
     *
     * @param which the variance a commit takes
     * @return the changed spec
     */
    public BatchNormSpec withRunningVariance(RunningVariance which) {
        return new BatchNormSpec(channels, eps, momentum, which, gamma, beta, runningStatistics, frozen, singleValue);
    }

    /**
     * With or without gamma and beta.
     *
     * @param withGamma whether there is a learnable scale
     * @param withBeta whether there is a learnable shift
     * @return the changed spec
     */
    public BatchNormSpec withAffine(boolean withGamma, boolean withBeta) {
        return new BatchNormSpec(
                channels, eps, momentum, runningVariance, withGamma, withBeta, runningStatistics, frozen, singleValue);
    }

    /**
     * With or without running statistics.
     *
     * @param with whether there are running statistics
     * @return the changed spec
     */
    public BatchNormSpec withRunningStatistics(boolean with) {
        return new BatchNormSpec(channels, eps, momentum, runningVariance, gamma, beta, with, frozen, singleValue);
    }

    /**
     * Frozen or not.
     *
     * @param newFrozen whether training takes the running statistics and leaves them
     * @return the changed spec
     */
    public BatchNormSpec withFrozen(boolean newFrozen) {
        return new BatchNormSpec(
                channels, eps, momentum, runningVariance, gamma, beta, runningStatistics, newFrozen, singleValue);
    }

    /**
     * With another policy for a single value per channel.
     *
     * @param policy what training then does
     * @return the changed spec
     */
    public BatchNormSpec withSingleValue(SingleValue policy) {
        return new BatchNormSpec(
                channels, eps, momentum, runningVariance, gamma, beta, runningStatistics, frozen, policy);
    }
}
