package io.normcl;

import io.normcl.device.Buffer;
import io.normcl.tensor.Tensor;
import org.jspecify.annotations.Nullable;

/**
 * Where a backward writes; what is null is not computed.
 *
 * @param dx the gradient of the input, in its shape and layout; overwritten; it may be dy's memory
 * @param dGamma the gradient of gamma, C floats
 * @param dBeta the gradient of beta, C floats
 * @param accumulate whether to add to dGamma and dBeta instead of overwriting them
 */
public record Gradients(
        @Nullable Tensor dx,
        @Nullable Buffer dGamma,
        @Nullable Buffer dBeta,
        boolean accumulate) {
    /**
     * Overwrites each.
     *
     * @param dx the gradient of the input
     * @param dGamma the gradient of gamma
     * @param dBeta the gradient of beta
     * @return where to write
     */
    public static Gradients of(@Nullable Tensor dx, @Nullable Buffer dGamma, @Nullable Buffer dBeta) {
        return new Gradients(dx, dGamma, dBeta, false);
    }
}
