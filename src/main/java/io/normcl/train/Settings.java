package io.normcl.train;

/**
 * What a run's result depends on, besides the pictures.
 *
 * @param norm over what the batch norms take their statistics
 * @param devices how many devices share a batch
 * @param batchPerDevice samples of a batch on each device
 * @param samples how many pictures to train on, the first ones of the training set
 * @param seed of the initial weights and of the samples' order
 * @param rate the learning rate
 * @param momentum how much of the last change each change keeps
 * @param decay the weight decay; gamma, beta and biases stay out of it
 */
public record Settings(
        Norm norm, int devices, int batchPerDevice, int samples, long seed, float rate, float momentum, float decay) {
    private static final int MOST_PER_DEVICE = 1 << 16;

    /**
     * Checks that there is at least one whole batch.
     *
     * @param norm over what the batch norms take their statistics
     * @param devices how many devices share a batch
     * @param batchPerDevice samples of a batch on each device
     * @param samples how many pictures to train on, the first ones of the training set
     * @param seed of the initial weights and of the samples' order
     * @param rate the learning rate
     * @param momentum how much of the last change each change keeps
     * @param decay the weight decay; gamma, beta and biases stay out of it
     */
    public Settings {
        if (devices < 1 || batchPerDevice < 1 || batchPerDevice > MOST_PER_DEVICE) {
            throw new IllegalArgumentException("a batch needs at least one device and from 1 to " + MOST_PER_DEVICE
                    + " samples on each: devices=" + devices + ", batch per device=" + batchPerDevice);
        }
        if (samples < (long) devices * batchPerDevice) {
            throw new IllegalArgumentException("a run needs at least one whole batch: samples=" + samples + ", batch="
                    + (long) devices * batchPerDevice);
        }
    }

    /**
     * Settings with the learning rate, momentum and weight decay that suit the network.
     *
     * @param norm over what the batch norms take their statistics
     * @param devices how many devices share a batch
     * @param batchPerDevice samples of a batch on each device
     * @param samples how many pictures to train on
     * @param seed of the initial weights and of the samples' order
     * @return the settings
     */
    public static Settings of(Norm norm, int devices, int batchPerDevice, int samples, long seed) {
        return new Settings(norm, devices, batchPerDevice, samples, seed, 0.01f, 0.9f, 5e-4f);
    }

    /**
     * Samples of a step.
     *
     * @return the sum over the devices
     */
    public int batch() {
        return devices * batchPerDevice;
    }

    /**
     * Steps of an epoch; samples that fill no whole batch are left out of it, others each time.
     *
     * @return at least 1
     */
    public long stepsPerEpoch() {
        return samples / batch();
    }

    /**
     * Checks that there are as many pictures as the settings ask for.
     *
     * @param pictures the pictures
     * @throws IllegalArgumentException if there are fewer
     */
    public void requireSamplesOf(FashionMnist pictures) {
        if (samples > pictures.train().size()) {
            throw new IllegalArgumentException("a run can't have more samples than there are pictures: samples="
                    + samples + ", pictures=" + pictures.train().size());
        }
    }
}
