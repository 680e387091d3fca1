package io.normcl.train;

import io.normcl.NamedParameter.Kind;
import io.normcl.device.Buffer;
import io.normcl.device.MatrixProduct;
import java.util.List;
import org.jspecify.annotations.Nullable;

/** y = x·weightᵀ + bias, where weight is (out, in) as in PyTorch and x has a fixed number of rows a sample. */
final class Linear extends Layer {
    /** Rows of a batch that one product adds up: the rounding of a longer sum of floats begins to show. */
    private static final int SUMMED = 8192;

    private final int rows;
    private final int in;
    private final int out;
    private final Parameter weight;
    private final @Nullable Parameter bias;

    Linear(Memory memory, String name, int rows, int in, int out, boolean bias, long... shape) {
        super(memory.device);
        this.rows = rows;
        this.in = in;
        this.out = out;
        weight = memory.parameter(name + ".weight", Kind.WEIGHT, shape);
        this.bias = bias ? memory.parameter(name + ".bias", Kind.BIAS, out) : null;
    }

    @Override
    int outputs() {
        return rows * out;
    }

    @Override
    void forward(Buffer x, Buffer y, int n) {
        int m = n * rows;
        if (bias != null) {
            launch(device, "bias.cl", "train_bias_rows", m * out, bias.value(), y, m * out, out);
        }
        product(false, true, m, out, in, x, 0, in, weight.value(), 0, in, bias == null ? 0 : 1, y, out);
    }

    @Override
    void backward(Buffer x, Buffer dy, @Nullable Buffer dx, int n) {
        int m = n * rows;
        for (int first = 0; first < m; first += SUMMED) {
            int count = Math.min(SUMMED, m - first);
            float beta = first == 0 ? 0 : 1;
            Buffer dw = weight.gradient();
            product(true, false, out, in, count, dy, (long) first * out, out, x, (long) first * in, in, beta, dw, in);
        }
        if (bias != null) {
            launch(device, "bias.cl", "train_bias_sums", out, dy, bias.gradient(), m, out);
        }
        if (dx != null) {
            product(false, false, m, in, out, dy, 0, out, weight.value(), 0, in, 0, dx, in);
        }
    }

    private void product(
            boolean transposeA,
            boolean transposeB,
            int m,
            int n,
            int k,
            Buffer a,
            long offsetA,
            int lda,
            Buffer b,
            long offsetB,
            int ldb,
            float beta,
            Buffer c,
            int ldc) {
        MatrixProduct.enqueue(
                device, transposeA, transposeB, m, n, k, 1, a, offsetA, lda, b, offsetB, ldb, beta, c, 0, ldc);
    }

    @Override
    List<Parameter> parameters() {
        return bias == null ? List.of(weight) : List.of(weight, bias);
    }
}
