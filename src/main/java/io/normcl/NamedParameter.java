package io.normcl;

import io.normcl.device.Buffer;

/**
 * What a network learns, one tensor of it, as an optimizer needs to know it.
 *
 * @param name by which it is told from the others: PyTorch's, {@code "layer1.bn.weight"}
 * @param kind what it does
 * @param value its values; retained
 */
public record NamedParameter(String name, Kind kind, Buffer value) {
    /** What a parameter does in its layer. */
    public enum Kind {
        /** Multiplies inputs that it also sums: of a linear layer, a convolution, an embedding. */
        WEIGHT,
        /** Is added to such a sum. */
        BIAS,
        /** Scales what a norm gives. */
        GAMMA,
        /** Shifts what a norm gives. */
        BETA
    }
}
