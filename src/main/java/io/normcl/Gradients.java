package io.normcl;

import io.normcl.device.Buffer;
import io.normcl.tensor.Tensor;
import org.jspecify.annotations.Nullable;

/**
 * Where a backward writes; what is null is not computed.
 *
 * @param dx the gradient of the input, in its shape, layout and type; overwritten; it may be dy's memory
 * @param dz the gradient of what was added before the activation, as dx; overwritten; only together with dx
 * @param dGamma the gradient of gamma, as many floats
 * @param dBeta the gradient of beta, as many floats
 * @param accumulate whether to add to dGamma and dBeta instead of overwriting them
 */
public record Gradients(
        @Nullable Tensor dx,
        @Nullable Tensor dz,
        @Nullable Buffer dGamma,
        @Nullable Buffer dBeta,
        boolean accumulate) {
    /**
     * Checks that dz comes with dx.
     *
     * @param dx the gradient of the input, in its shape, layout and type; overwritten; it may be dy's memory
     * @param dz the gradient of what was added before the activation, as dx; overwritten; only together with dx
     * @param dGamma the gradient of gamma, as many floats
     * @param dBeta the gradient of beta, as many floats
     * @param accumulate whether to add to dGamma and dBeta instead of overwriting them
     */
    public Gradients {
        if (dz != null && dx == null) {
            throw new IllegalArgumentException("dz is written together with dx: dx=null, dz=" + dz);
        }
    }

    /**
     * Overwrites each.
     *
     * @param dx the gradient of the input
     * @param dGamma the gradient of gamma
     * @param dBeta the gradient of beta
     * @return where to write
     */
    public static Gradients of(@Nullable Tensor dx, @Nullable Buffer dGamma, @Nullable Buffer dBeta) {
        return new Gradients(dx, null, dGamma, dBeta, false);
    }

    /**
     * With the gradient of what was added before the activation.
     *
     * @param newDz as dx; overwritten
     * @return the changed gradients
     */
    public Gradients withDz(Tensor newDz) {
        return new Gradients(dx, newDz, dGamma, dBeta, accumulate);
    }

    /**
     * With or without adding to dGamma and dBeta.
     *
     * @param add whether to add instead of overwriting
     * @return the changed gradients
     */
    public Gradients withAccumulate(boolean add) {
        return new Gradients(dx, dz, dGamma, dBeta, add);
    }

    boolean ofParameters() {
        return dGamma != null || dBeta != null;
    }
}
