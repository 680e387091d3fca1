package io.normcl.train;

import io.normcl.device.Buffer;
import io.normcl.device.Device;
import org.jspecify.annotations.Nullable;

/** ReLU and max pooling in one pass; with a window of 1 it is ReLU. */
final class ReluPool extends Layer {
    private final int side;
    private final int channels;
    private final int window;
    private final boolean channelsFirst;

    ReluPool(Device device, int side, int channels, int window, boolean channelsFirst) {
        super(device);
        this.side = side;
        this.channels = channels;
        this.window = window;
        this.channelsFirst = channelsFirst;
    }

    @Override
    int outputs() {
        return side / window * (side / window) * channels;
    }

    @Override
    void forward(Buffer x, Buffer y, int n) {
        int items = n * outputs();
        launch(device, "pool.cl", "train_relu_pool", items, x, y, items, side, side, channels, window, first());
    }

    @Override
    void backward(Buffer x, Buffer dy, @Nullable Buffer dx, int n) {
        if (dx != null) {
            int items = n * outputs();
            String kernel = "train_relu_pool_backward";
            launch(device, "pool.cl", kernel, items, x, dy, dx, items, side, side, channels, window, first());
        }
    }

    private int first() {
        return channelsFirst ? 1 : 0;
    }
}
