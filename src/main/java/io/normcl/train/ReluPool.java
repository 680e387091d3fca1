package io.normcl.train;

import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.device.Kernel;
import java.util.Map;
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
        return blocks() * channels;
    }

    @Override
    void forward(Buffer x, Buffer y, int n) {
        int items = n * blocks();
        launch(device, kernel("train_relu_pool"), items, x, y, items, side, side, channels, order());
    }

    @Override
    void backward(Buffer x, Buffer dy, @Nullable Buffer dx, int n) {
        if (dx != null) {
            int items = n * blocks();
            launch(device, kernel("train_relu_pool_backward"), items, x, dy, dx, items, side, side, channels, order());
        }
    }

    private Kernel kernel(String name) {
        return device.kernel("train/pool.cl", name, Map.of("WINDOW", Integer.toString(window)));
    }

    private int blocks() {
        return (side / window) * (side / window);
    }

    private int order() {
        return channelsFirst ? 1 : 0;
    }
}
