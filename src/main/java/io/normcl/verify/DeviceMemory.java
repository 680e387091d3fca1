package io.normcl.verify;

import io.normcl.device.Buffer;
import io.normcl.device.Device;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.jspecify.annotations.Nullable;

/** The buffers of one call, of doubles that are floats there. */
final class DeviceMemory implements AutoCloseable {
    private final List<Buffer> buffers = new ArrayList<>();

    Buffer written(Device device, double[] values) {
        Buffer buffer = device.allocate((long) Float.BYTES * values.length);
        buffers.add(buffer);
        write(buffer, values);
        return buffer;
    }

    @Nullable
    Buffer optional(Device device, double @Nullable [] values) {
        return values == null ? null : written(device, values);
    }

    /** Memory full of NaN, so that what an operation leaves out shows. */
    Buffer unwritten(Device device, int count) {
        Buffer buffer = device.allocate((long) Float.BYTES * count);
        buffers.add(buffer);
        buffer.fill(Float.NaN);
        return buffer;
    }

    @Override
    public void close() {
        buffers.forEach(Buffer::close);
    }

    static void write(@Nullable Buffer buffer, double @Nullable [] values) {
        if (buffer != null && values != null) {
            float[] floats = new float[values.length];
            for (int i = 0; i < floats.length; i++) {
                floats[i] = (float) values[i];
            }
            buffer.write(floats);
        }
    }

    static double @Nullable [] optional(@Nullable Buffer buffer) {
        return buffer == null ? null : read(buffer);
    }

    static double[] read(Buffer buffer) {
        float[] floats = new float[(int) (buffer.bytes() / Float.BYTES)];
        buffer.read(floats);
        return doubles(floats);
    }

    static double[] doubles(float[] floats) {
        double[] doubles = new double[floats.length];
        Arrays.setAll(doubles, i -> floats[i]);
        return doubles;
    }
}
