package io.normcl.train;

import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.device.Kernel;
import io.normcl.device.Range;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** One layer of one replica. Everything it does is enqueued; nothing is allocated after it is made. */
abstract class Layer {
    private static final int GROUP = 64;

    final Device device;

    Layer(Device device) {
        this.device = device;
    }

    /** Floats of a sample's output. */
    abstract int outputs();

    /** From n samples x to y; keeps what backward needs. */
    abstract void forward(Buffer x, Buffer y, int n);

    /** The same with nothing kept, and running statistics where there are any. */
    void infer(Buffer x, Buffer y, int n) {
        forward(x, y, n);
    }

    /** The parameters' gradients and, unless this is the first layer, dx, for the n samples of the last forward. */
    abstract void backward(Buffer x, Buffer dy, @Nullable Buffer dx, int n);

    List<Parameter> parameters() {
        return List.of();
    }

    static void launch(Device device, String file, String kernel, int items, Object... args) {
        launch(device, device.kernel("train/" + file, kernel, Map.of()), items, args);
    }

    static void launch(Device device, Kernel kernel, int items, Object... args) {
        device.enqueue(kernel, Range.of((items + GROUP - 1L) / GROUP * GROUP, GROUP), args);
    }
}
