package io.normcl.train;

import io.normcl.device.Buffer;
import io.normcl.device.MatrixProduct;
import java.util.List;
import org.jspecify.annotations.Nullable;

/** y = x·weightᵀ + bias, where weight is (out, in) as in PyTorch and x has a fixed number of rows a sample. */
final class Linear extends Layer {
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
        weight = memory.parameter(name + ".weight", true, shape);
        this.bias = bias ? memory.parameter(name + ".bias", false, out) : null;
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
        product(false, true, m, out, in, x, in, weight.value(), in, bias == null ? 0 : 1, y, out);
    }

    @Override
    void backward(Buffer x, Buffer dy, @Nullable Buffer dx, int n) {
        int m = n * rows;
        product(true, false, out, in, m, dy, out, x, in, 0, weight.gradient(), in);
        if (bias != null) {
            launch(device, "bias.cl", "train_bias_sums", out, dy, bias.gradient(), m, out);
        }
        if (dx != null) {
            product(false, false, m, in, out, dy, out, weight.value(), in, 0, dx, in);
        }
    }

    private void product(
            boolean transposeA,
            boolean transposeB,
            int m,
            int n,
            int k,
            Buffer a,
            int lda,
            Buffer b,
            int ldb,
            float beta,
            Buffer c,
            int ldc) {
        MatrixProduct.enqueue(device, transposeA, transposeB, m, n, k, 1, a, 0, lda, b, 0, ldb, beta, c, 0, ldc);
    }

    @Override
    List<Parameter> parameters() {
        return bias == null ? List.of(weight) : List.of(weight, bias);
    }
}
