package io.normcl;

import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.tensor.Layout;
import io.normcl.tensor.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;

/** A device with memory for one test: what was made is closed with it. */
public final class Rig implements AutoCloseable {
    /** The device that tests run on; {@code -Dnormcl.test.device=...} names another. */
    public static final String SELECTOR = System.getProperty("normcl.test.device", "cpu");

    private final Device device;
    private final List<Buffer> buffers = new ArrayList<>();

    /**
     * @param device stays open
     */
    public Rig(Device device) {
        this.device = device;
    }

    public static Device open() {
        return Device.open(SELECTOR).get(0);
    }

    public Device device() {
        return device;
    }

    /** All that was made so far. */
    public List<Buffer> buffers() {
        return List.copyOf(buffers);
    }

    public Buffer floats(int count) {
        Buffer buffer = device.allocate(4L * count);
        buffers.add(buffer);
        return buffer;
    }

    public Buffer floats(float[] values) {
        Buffer buffer = floats(values.length);
        buffer.write(values);
        return buffer;
    }

    public Tensor tensor(float[] values, Layout layout, long... shape) {
        return Tensor.of(floats(values), layout, shape);
    }

    public static float[] read(Buffer buffer) {
        float[] values = new float[(int) (buffer.bytes() / 4)];
        buffer.read(values);
        return values;
    }

    public static float[] read(Tensor tensor) {
        return read(tensor.buffer());
    }

    /** Normal values, each channel with a mean and a standard deviation of its own. */
    public static float[] perChannel(Random random, int n, int c, int s, Layout layout) {
        float[] values = new float[n * c * s];
        double[] mean = random.doubles(c, -5, 5).toArray();
        double[] deviation = random.doubles(c, 0.1, 3).toArray();
        for (int i = 0; i < values.length; i++) {
            int channel = layout == Layout.CHANNELS_LAST ? i % c : i / s % c;
            values[i] = (float) (mean[channel] + deviation[channel] * random.nextGaussian());
        }
        return values;
    }

    public static float[] normal(Random random, int count) {
        float[] values = new float[count];
        for (int i = 0; i < count; i++) {
            values[i] = (float) random.nextGaussian();
        }
        return values;
    }

    public static double[] doubles(float[] values) {
        double[] doubles = new double[values.length];
        for (int i = 0; i < values.length; i++) {
            doubles[i] = values[i];
        }
        return doubles;
    }

    public static long[] shape(Layout layout, long n, long c, long s) {
        return layout == Layout.CHANNELS_LAST ? new long[] {n, s, c} : new long[] {n, c, s};
    }

    @Override
    public void close() {
        buffers.forEach(Buffer::close);
    }
}
