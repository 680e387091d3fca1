package io.normcl;

import io.normcl.tensor.Activation;
import java.util.Arrays;
import java.util.List;

/**
 * What a layer norm is. It can't change; the {@code with} methods give changed copies.
 *
 * @param shape the trailing dimensions that are normalized together, at least one, each at least 1
 * @param eps added to the variance inside the root; finite, at least 0
 * @param gamma whether there is a learnable scale, one value for each element of a row
 * @param beta whether there is a learnable shift, one value for each element of a row
 * @param activation what follows
 */
public record LayerNormSpec(List<Long> shape, double eps, boolean gamma, boolean beta, Activation activation) {
    /**
     * Checks each value.
     *
     * @param shape the trailing dimensions that are normalized together, at least one, each at least 1
     * @param eps added to the variance inside the root; finite, at least 0
     * @param gamma whether there is a learnable scale, one value for each element of a row
     * @param beta whether there is a learnable shift, one value for each element of a row
     * @param activation what follows
     */
    public LayerNormSpec {
        shape = List.copyOf(shape);
        Specs.requireShape(shape);
        Specs.requireEps(eps);
    }

    /**
     * PyTorch's defaults: eps 1e-5, gamma and beta, no activation.
     *
     * @param shape the trailing dimensions that are normalized together
     * @return the spec
     */
    public static LayerNormSpec of(long... shape) {
        return new LayerNormSpec(Arrays.stream(shape).boxed().toList(), 1e-5, true, true, Activation.NONE);
    }

    /**
     * With another eps.
     *
     * @param newEps finite, at least 0
     * @return the changed spec
     */
    public LayerNormSpec withEps(double newEps) {
        return new LayerNormSpec(shape, newEps, gamma, beta, activation);
    }

    /**
     * With or without gamma and beta.
     *
     * @param withGamma whether there is a learnable scale
     * @param withBeta whether there is a learnable shift
     * @return the changed spec
     */
    public LayerNormSpec withAffine(boolean withGamma, boolean withBeta) {
        return new LayerNormSpec(shape, eps, withGamma, withBeta, activation);
    }

    /**
     * With another activation.
     *
     * @param newActivation what follows
     * @return the changed spec
     */
    public LayerNormSpec withActivation(Activation newActivation) {
        return new LayerNormSpec(shape, eps, gamma, beta, newActivation);
    }
}
