package io.normcl;

import io.normcl.tensor.Lengths;
import io.normcl.tensor.Tensor;
import org.jspecify.annotations.Nullable;

/**
 * What a layer reads in one pass: a tensor, and what is fused with it.
 *
 * @param x the input; read
 * @param z what is added before the activation, {@code y = act(norm(x) + z)}, as x; read; null for nothing
 * @param addend what is added to x before the norm, {@code y = norm(x + addend)}, as x; read; null for nothing
 * @param sum where {@code x + addend} is written, rounded as it is stored, as x; it may be x's or the addend's memory
 * @param lengths how many places of each sample count; null for all
 */
public record Input(
        Tensor x,
        @Nullable Tensor z,
        @Nullable Tensor addend,
        @Nullable Tensor sum,
        @Nullable Lengths lengths) {
    /**
     * A tensor alone.
     *
     * @param x the input
     * @return the input
     */
    public static Input of(Tensor x) {
        return new Input(x, null, null, null, null);
    }

    /**
     * With a residual added before the activation: {@code y = act(norm(x) + z)}.
     *
     * @param newZ as x; read
     * @return the changed input
     */
    public Input withResidual(Tensor newZ) {
        return new Input(x, newZ, addend, sum, lengths);
    }

    /**
     * With a residual added before the norm: {@code sum = x + addend, y = norm(sum)}. Layer and RMS norm offer it. The
     * backward takes the same input and reads the sum; its dx is the gradient of the sum, and so of both.
     *
     * @param newAddend as x; read
     * @param newSum as x; overwritten
     * @return the changed input
     */
    public Input withAddend(Tensor newAddend, Tensor newSum) {
        return new Input(x, z, newAddend, newSum, lengths);
    }

    /**
     * With lengths: of each sample the first places along the last spatial dimension count, the others are left out of
     * statistics and sums, and are 0 in y, dx and dz. Batch, group and instance norm offer it.
     *
     * @param newLengths one for each sample
     * @return the changed input
     */
    public Input withLengths(Lengths newLengths) {
        return new Input(x, z, addend, sum, newLengths);
    }

    /** What was normalized: the sum, where there is one. */
    Tensor normalized() {
        return sum != null ? sum : x;
    }
}
