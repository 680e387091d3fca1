package io.normcl.tensor;

import io.normcl.device.Buffer;
import io.normcl.device.Device;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;

/**
 * How many places of each sample count along the last spatial dimension, from its start; the rest is padding. The host
 * keeps them too, so that nothing waits for a count.
 */
public final class Lengths implements AutoCloseable {
    private final Buffer buffer;
    private final int[] lengths;

    private Lengths(Buffer buffer, int[] lengths) {
        this.buffer = buffer;
        this.lengths = lengths.clone();
    }

    /**
     * Copies lengths to a device.
     *
     * @param device where the tensors are
     * @param lengths one for each sample, at least 0; read
     * @return the lengths, which the caller closes
     * @throws IllegalArgumentException if one is negative
     */
    public static Lengths of(Device device, int... lengths) {
        for (int n = 0; n < lengths.length; n++) {
            if (lengths[n] < 0) {
                throw new IllegalArgumentException(
                        "a length must not be negative: sample=" + n + ", length=" + lengths[n]);
            }
        }
        Buffer buffer = device.allocate(4L * lengths.length);
        ByteBuffer host = ByteBuffer.allocateDirect(4 * lengths.length).order(ByteOrder.nativeOrder());
        host.asIntBuffer().put(lengths);
        buffer.write(0, host);
        return new Lengths(buffer, lengths);
    }

    /**
     * The lengths on the device.
     *
     * @return N ints
     */
    public Buffer buffer() {
        return buffer;
    }

    /**
     * Samples.
     *
     * @return N
     */
    public int samples() {
        return lengths.length;
    }

    /**
     * A sample's length.
     *
     * @param sample its number
     * @return the places that count
     */
    public int get(int sample) {
        return lengths[sample];
    }

    /**
     * The longest sample.
     *
     * @return its length
     */
    public int longest() {
        return Arrays.stream(lengths).max().orElse(0);
    }

    /**
     * All lengths together.
     *
     * @return their sum
     */
    public long total() {
        return Arrays.stream(lengths).asLongStream().sum();
    }

    /** Releases the device's copy; a second call does nothing. */
    @Override
    public void close() {
        buffer.close();
    }

    @Override
    public String toString() {
        return "samples=" + samples() + ", longest=" + longest();
    }
}
