package io.normcl.bench;

import io.normcl.bench.BenchLayer.Tensors;
import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.device.DeviceException;
import io.normcl.device.Limits;
import io.normcl.tensor.DataType;
import io.normcl.tensor.Tensor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Random;
import java.util.function.Consumer;

/** The tensors of a case, several times over, so that a pass that takes them in turn finds none of them in a cache. */
public final class TensorSets implements AutoCloseable {
    private static final long LEAST_ROTATED = 128L << 20;
    private static final int CACHES = 4;
    private static final int MOST_SETS = 1024;
    private static final long CALLS_BYTES = 64L << 20;
    private static final int MOST_CALLS = 8;
    private static final int CHUNK_BYTES = 1 << 20;

    private final List<Buffer> buffers = new ArrayList<>();
    private final List<Tensors> sets = new ArrayList<>();

    private TensorSets() {}

    /**
     * How many sets a case takes: so many that what a forward reads and writes of all of them is {@value #CACHES} times the last
     * cache, at most {@value #MOST_SETS}; one where the caches may hold it.
     *
     * @param timed the case
     * @param limits the device
     * @param cached whether the caches may hold it
     * @param cases how many cases of such sets are there at once
     * @return the number, no more than half the device's memory holds of all cases but at least 1
     */
    public static int count(BenchCase timed, Limits limits, boolean cached, int cases) {
        if (cached) {
            return 1;
        }
        long setBytes = tensors(timed) * timed.tensorBytes();
        long rotated = Math.max(LEAST_ROTATED, CACHES * limits.cacheBytes());
        long forwardBytes = setBytes / 2; // the rest are gradients
        long wanted = Math.max(2, Math.min(MOST_SETS, (rotated + forwardBytes - 1) / forwardBytes));
        return (int) Math.max(1, Math.min(wanted, limits.globalMemoryBytes() / 2 / cases / setBytes));
    }

    /**
     * How many calls of a case are timed together: as many as pass over {@value #CALLS_BYTES} bytes of a tensor, at most
     * {@value #MOST_CALLS}; so many in any case where the device is no CPU, since to wait for it takes longer.
     *
     * @param timed the case
     * @param limits the device
     * @return the number, at least 1
     */
    public static int calls(BenchCase timed, Limits limits) {
        if (!limits.cpu()) {
            return MOST_CALLS;
        }
        return (int) Math.max(1, Math.min(MOST_CALLS, CALLS_BYTES / Math.max(1, timed.tensorBytes())));
    }

    private static int tensors(BenchCase timed) {
        return timed.residual() ? 6 : 4;
    }

    /**
     * Allocates the sets and fills them with normal values, or with any of a like size where they are halves.
     *
     * @param device where
     * @param timed the case
     * @param count how many
     * @return the sets; the caller closes them
     * @throws DeviceException if the device has not enough memory
     */
    static TensorSets allocate(Device device, BenchCase timed, int count) {
        TensorSets all = new TensorSets();
        try {
            ByteBuffer values = values(timed.type());
            for (int i = 0; i < count; i++) {
                List<Tensor> of = new ArrayList<>();
                for (int t = 0; t < tensors(timed); t++) {
                    Buffer buffer = device.allocate(timed.tensorBytes());
                    all.buffers.add(buffer);
                    fill(buffer, values, t);
                    of.add(Tensor.of(buffer, timed.type(), timed.layout(), timed.stored()));
                }
                boolean residual = timed.residual();
                all.sets.add(new Tensors(
                        of.get(0),
                        of.get(1),
                        of.get(2),
                        of.get(3),
                        residual ? of.get(4) : null,
                        residual ? of.get(5) : null));
            }
            return all;
        } catch (RuntimeException e) {
            all.close();
            throw e;
        }
    }

    /**
     * Allocates the sets that a case takes, if the device can hold them.
     *
     * @param device where
     * @param timed the case
     * @param cached whether the caches may hold it
     * @param cases how many cases of such sets are there at once
     * @param skipped takes a line on a case whose tensors the device can't hold
     * @return the sets, which the caller closes; empty where a line was given
     */
    static Optional<TensorSets> fitting(
            Device device, BenchCase timed, boolean cached, int cases, Consumer<String> skipped) {
        try {
            return Optional.of(allocate(device, timed, count(timed, device.limits(), cached, cases)));
        } catch (DeviceException e) {
            skipped.accept("skipped " + timed + ": " + e.getMessage());
            return Optional.empty();
        }
    }

    /** Another part of the values first in each tensor of a set. */
    private static void fill(Buffer buffer, ByteBuffer values, int tensor) {
        int from = tensor * CHUNK_BYTES / 8;
        for (long done = 0; done < buffer.bytes(); ) {
            values.clear().position(from).limit((int) Math.min(CHUNK_BYTES, from + buffer.bytes() - done));
            buffer.write(done, values);
            done += values.remaining();
            from = 0;
        }
    }

    private static ByteBuffer values(DataType type) {
        Random random = new Random(1);
        ByteBuffer values = ByteBuffer.allocateDirect(CHUNK_BYTES).order(ByteOrder.nativeOrder());
        while (values.hasRemaining()) {
            switch (type) {
                case FLOAT -> values.putFloat((float) random.nextGaussian());
                case BFLOAT16 ->
                    values.putShort((short) (Float.floatToRawIntBits((float) random.nextGaussian()) >>> 16));
                case HALF ->
                    values.putShort((short) (random.nextInt(2) << 15 // sign, exponent of 1/16 to 2, fraction
                            | (11 + random.nextInt(5)) << 10
                            | random.nextInt(1 << 10)));
            }
        }
        return values;
    }

    int size() {
        return sets.size();
    }

    Tensors get(int set) {
        return sets.get(set);
    }

    /** Releases all of them; a second call does nothing. */
    @Override
    public void close() {
        buffers.forEach(Buffer::close);
    }
}
