package io.normcl.tensor;

/**
 * What is applied to each value after scale and shift.
 *
 * @param kind which function
 * @param slope of leaky ReLU, what negative values are multiplied by; else 0
 */
public record Activation(Kind kind, float slope) {
    /** The functions. */
    public enum Kind {
        /** The value as it is. */
        NONE,
        /** max(v, 0), with gradient 0 at 0; a NaN stays one. */
        RELU,
        /** v where v is positive, else slope·v, with gradient slope at 0. */
        LEAKY_RELU,
        /** v/(1 + exp(−v)), also called swish (Ramachandran 2017). */
        SILU
    }

    /** No activation. */
    public static final Activation NONE = new Activation(Kind.NONE, 0);

    /** ReLU. */
    public static final Activation RELU = new Activation(Kind.RELU, 0);

    /** SiLU. */
    public static final Activation SILU = new Activation(Kind.SILU, 0);

    /**
     * Checks the slope.
     *
     * @param kind which function
     * @param slope of leaky ReLU, what negative values are multiplied by; else 0
     */
    public Activation {
        if (!Float.isFinite(slope) || (kind != Kind.LEAKY_RELU && slope != 0)) {
            throw new IllegalArgumentException(
                    "a slope must be finite, and 0 except for leaky ReLU: kind=" + kind + ", slope=" + slope);
        }
    }

    /**
     * Leaky ReLU.
     *
     * @param slope what negative values are multiplied by; PyTorch's default is 0.01
     * @return the activation
     */
    public static Activation leakyRelu(double slope) {
        return new Activation(Kind.LEAKY_RELU, (float) slope);
    }
}
