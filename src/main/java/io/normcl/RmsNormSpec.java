package io.normcl;

import io.normcl.tensor.Activation;
import java.util.Arrays;
import java.util.List;

/**
 * What an RMS norm is. It can't change; the {@code with} methods give changed copies.
 *
 * @param shape the trailing dimensions that are normalized together, at least one, each at least 1
 * @param eps added to the mean square inside the root; finite, at least 0
 * @param gamma whether there is a learnable scale, one value for each element of a row
 * @param onePlusGamma whether values are multiplied by 1 + gamma, as in Gemma; gamma then starts at 0
 * @param activation what follows
 */
public record RmsNormSpec(List<Long> shape, double eps, boolean gamma, boolean onePlusGamma, Activation activation) {
    /**
     * Checks each value.
     *
     * @param shape the trailing dimensions that are normalized together, at least one, each at least 1
     * @param eps added to the mean square inside the root; finite, at least 0
     * @param gamma whether there is a learnable scale, one value for each element of a row
     * @param onePlusGamma whether values are multiplied by 1 + gamma, as in Gemma; gamma then starts at 0
     * @param activation what follows
     */
    public RmsNormSpec {
        shape = List.copyOf(shape);
        Specs.requireShape(shape);
        Specs.requireEps(eps);
        if (onePlusGamma && !gamma) {
            throw new IllegalArgumentException("1 + gamma needs a gamma: gamma=false, onePlusGamma=true");
        }
    }

    /**
     * PyTorch's defaults: eps 2⁻²³, the float's own, and gamma; no activation.
     *
     * @param shape the trailing dimensions that are normalized together
     * @return the spec
     */
    public static RmsNormSpec of(long... shape) {
        return new RmsNormSpec(Arrays.stream(shape).boxed().toList(), 0x1p-23, true, false, Activation.NONE);
    }

    /**
     * With another eps.
     *
     * @param newEps finite, at least 0
     * @return the changed spec
     */
    public RmsNormSpec withEps(double newEps) {
        return new RmsNormSpec(shape, newEps, gamma, onePlusGamma, activation);
    }

    /**
     * With or without gamma.
     *
     * @param withGamma whether there is a learnable scale
     * @return the changed spec
     */
    public RmsNormSpec withGamma(boolean withGamma) {
        return new RmsNormSpec(shape, eps, withGamma, onePlusGamma && withGamma, activation);
    }

    /**
     * With 1 + gamma or gamma as the factor.
     *
     * @param plusOne whether values are multiplied by 1 + gamma
     * @return the changed spec
     */
    public RmsNormSpec withOnePlusGamma(boolean plusOne) {
        return new RmsNormSpec(shape, eps, gamma, plusOne, activation);
    }

    /**
     * With another activation.
     *
     * @param newActivation what follows
     * @return the changed spec
     */
    public RmsNormSpec withActivation(Activation newActivation) {
        return new RmsNormSpec(shape, eps, gamma, onePlusGamma, newActivation);
    }
}
