package io.normcl.train;

import io.normcl.device.Buffer;
import java.util.List;
import org.jspecify.annotations.Nullable;

/** A 3x3 convolution with a border of one zero, channels last: unfolded, then one matrix product. No bias. */
final class Convolution extends Layer {
    private static final int TAPS = 9;

    private final int side;
    private final int in;
    private final Linear product;
    private final Buffer columns;

    Convolution(Memory memory, String name, int side, int in, int out, int capacity) {
        super(memory.device);
        this.side = side;
        this.in = in;
        product = new Linear(memory, name, side * side, in * TAPS, out, false, out, in, 3, 3);
        columns = memory.floats((long) capacity * side * side * in * TAPS);
    }

    @Override
    int outputs() {
        return product.outputs();
    }

    @Override
    void forward(Buffer x, Buffer y, int n) {
        int items = n * side * side;
        launch(device, "convolution.cl", "train_im2col", items, x, columns, items, side, side, in);
        product.forward(columns, y, n);
    }

    @Override
    void backward(Buffer x, Buffer dy, @Nullable Buffer dx, int n) {
        product.backward(columns, dy, dx == null ? null : columns, n); // the columns are done with when overwritten
        if (dx != null) {
            int items = n * side * side;
            launch(device, "convolution.cl", "train_col2im", items, columns, dx, items, side, side, in);
        }
    }

    @Override
    List<Parameter> parameters() {
        return product.parameters();
    }
}
