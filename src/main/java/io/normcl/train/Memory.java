package io.normcl.train;

import io.normcl.BatchNorm;
import io.normcl.BatchNormSpec;
import io.normcl.NamedParameter;
import io.normcl.NamedParameter.Kind;
import io.normcl.device.Buffer;
import io.normcl.device.Device;
import java.util.ArrayList;
import java.util.List;

/** What one replica has on its device, to be released together, also where there is not enough for all of it. */
final class Memory implements AutoCloseable {
    final Device device;
    private final List<Runnable> releases = new ArrayList<>();

    Memory(Device device) {
        this.device = device;
    }

    /** Four bytes each, for floats or for ints. */
    Buffer floats(long count) {
        Buffer buffer = device.allocate(Float.BYTES * count);
        releases.add(buffer::close);
        return buffer;
    }

    Parameter parameter(String name, Kind kind, long... shape) {
        long count = 1;
        for (long size : shape) {
            count *= size;
        }
        return new Parameter(new NamedParameter(name, kind, floats(count)), shape, floats(count));
    }

    BatchNorm batchNorm(int channels) {
        BatchNorm norm = BatchNorm.open(device, BatchNormSpec.of(channels));
        releases.add(norm::close);
        return norm;
    }

    @Override
    public void close() {
        releases.forEach(Runnable::run);
    }
}
