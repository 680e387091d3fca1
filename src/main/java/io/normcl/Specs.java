package io.normcl;

import io.normcl.tensor.Tensor;
import java.util.List;

/** What the specs of several layers demand alike. */
final class Specs {
    private Specs() {}

    static void requireEps(double eps) {
        if (!(eps >= 0) || Double.isInfinite(eps)) {
            throw new IllegalArgumentException("eps must be finite and not negative: eps=" + eps);
        }
    }

    static void requireShape(List<Long> shape) {
        if (shape.isEmpty() || shape.stream().anyMatch(size -> size < 1)) {
            throw new IllegalArgumentException(
                    "a normalized shape needs at least one dimension, each at least 1: shape=" + shape);
        }
    }

    /** The number of values of a row. */
    static int size(List<Long> shape) {
        return Math.toIntExact(shape.stream().reduce(1L, Math::multiplyExact));
    }

    /** How many rows a tensor has that ends in a shape. */
    static long rows(Tensor x, List<Long> shape) {
        long[] all = x.shape();
        int outer = all.length - shape.size();
        boolean fits = outer >= 0;
        for (int i = 0; fits && i < shape.size(); i++) {
            fits = all[outer + i] == shape.get(i);
        }
        if (!fits) {
            throw new IllegalArgumentException(
                    "the tensor's trailing dimensions must be the layer's: x=" + x + ", layer's shape=" + shape);
        }
        long rows = 1;
        for (int i = 0; i < outer; i++) {
            rows *= all[i];
        }
        return rows;
    }
}
