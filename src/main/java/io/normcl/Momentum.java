package io.normcl;

/**
 * How far a commit moves the running statistics, in a form that says which side the number weighs.
 *
 * <pre>running = (1 - w)·running + w·batch</pre>
 */
public final class Momentum {
    private static final Momentum CUMULATIVE = new Momentum(Double.NaN, "cumulative");

    private final double ofNew;
    private final String text;

    private Momentum(double ofNew, String text) {
        this.ofNew = ofNew;
        this.text = text;
    }

    /**
     * The number weighs the batch, as in PyTorch and cuDNN: w = momentum.
     *
     * @param momentum any finite number; PyTorch's default is 0.1
     * @return the momentum
     * @throws IllegalArgumentException if it is not finite
     */
    public static Momentum ofNew(double momentum) {
        return new Momentum(finite(momentum), "ofNew(" + momentum + ")");
    }

    /**
     * The number weighs what was there, as in Keras, ONNX and the textbooks: w = 1 − momentum.
     *
     * @param momentum any finite number; Keras' default is 0.99
     * @return the momentum
     * @throws IllegalArgumentException if it is not finite
     */
    public static Momentum ofKept(double momentum) {
        return new Momentum(1 - finite(momentum), "ofKept(" + momentum + ")");
    }

    /**
     * Every batch weighs the same: w = 1 / batches seen, PyTorch's {@code momentum=None}.
     *
     * @return the momentum
     */
    public static Momentum cumulative() {
        return CUMULATIVE;
    }

    /**
     * The weight of a batch.
     *
     * @param batchesTracked batches committed before it
     * @return w
     */
    public double weight(long batchesTracked) {
        return Double.isNaN(ofNew) ? 1.0 / (batchesTracked + 1) : ofNew;
    }

    private static double finite(double momentum) {
        if (!Double.isFinite(momentum)) {
            throw new IllegalArgumentException("momentum must be finite: momentum=" + momentum);
        }
        return momentum;
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof Momentum m && Double.compare(m.ofNew, ofNew) == 0;
    }

    @Override
    public int hashCode() {
        return Double.hashCode(ofNew);
    }

    @Override
    public String toString() {
        return text;
    }
}
