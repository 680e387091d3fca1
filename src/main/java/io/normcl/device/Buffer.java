package io.normcl.device;

import java.nio.ByteBuffer;
import java.nio.FloatBuffer;
import java.util.Objects;
import org.jocl.CL;
import org.jocl.Pointer;
import org.jocl.Sizeof;
import org.jocl.cl_context;
import org.jocl.cl_mem;
import org.jspecify.annotations.Nullable;

/**
 * Memory of one device: either owned (from {@link Device#allocate}) or the caller's own {@code cl_mem}
 * ({@link #wrap}), which is never released. A buffer of zero bytes is legal and has no {@code cl_mem}.
 */
public final class Buffer implements AutoCloseable {
    private static final int STAGING_BYTES = 1 << 20;

    private final Device device;
    private final long bytes;
    private final boolean owned;
    private @Nullable cl_mem mem;
    private boolean closed;

    private Buffer(Device device, @Nullable cl_mem mem, long bytes, boolean owned) {
        this.device = device;
        this.mem = mem;
        this.bytes = bytes;
        this.owned = owned;
    }

    static Buffer allocate(Device device, long bytes) {
        if (bytes == 0) {
            return new Buffer(device, null, 0, true);
        }
        cl_mem mem = Status.create(
                "clCreateBuffer",
                status -> CL.clCreateBuffer(device.context(), CL.CL_MEM_READ_WRITE, bytes, null, status),
                () -> "out of device memory? " + device.memory(bytes));
        return new Buffer(device, Handles.opened(mem), bytes, true);
    }

    /**
     * Makes a caller's {@code cl_mem} usable here; it stays the caller's, who keeps it alive while this is used.
     *
     * @param device the device whose context the memory belongs to
     * @param mem the memory object, retained neither here nor released by {@link #close}
     * @return a buffer of the memory object's size
     * @throws IllegalArgumentException if the memory object belongs to another context
     * @throws DeviceException if the driver does not know the memory object
     */
    public static Buffer wrap(Device device, cl_mem mem) {
        device.requireOpen();
        Objects.requireNonNull(mem, "mem");
        cl_context context = new cl_context();
        long[] size = new long[1];
        Status.check(
                "clGetMemObjectInfo",
                () -> CL.clGetMemObjectInfo(mem, CL.CL_MEM_CONTEXT, Sizeof.cl_context, Pointer.to(context), null),
                () -> "cl_mem=" + mem);
        Status.check(
                "clGetMemObjectInfo",
                () -> CL.clGetMemObjectInfo(mem, CL.CL_MEM_SIZE, Sizeof.size_t, Pointer.to(size), null),
                () -> "cl_mem=" + mem);
        if (!context.equals(device.context())) {
            throw new IllegalArgumentException("a wrapped cl_mem must belong to the device's context: device="
                    + device.name() + ", context=" + device.context() + ", context of the cl_mem=" + context);
        }
        return new Buffer(device, mem, size[0], false);
    }

    /**
     * The device that the memory is on.
     *
     * @return the device
     */
    public Device device() {
        return device;
    }

    /**
     * The size.
     *
     * @return bytes
     */
    public long bytes() {
        return bytes;
    }

    /**
     * Writes floats to the start of this buffer; returns when they have been taken.
     *
     * @param values read; as many floats as fit
     * @throws IllegalArgumentException if they do not fit
     */
    public void write(float[] values) {
        requireInside(0, 4L * values.length);
        ByteBuffer staging = device.staging((int) Math.min(STAGING_BYTES, 4L * values.length));
        for (int done = 0; done < values.length; ) {
            int count = Math.min(values.length - done, staging.capacity() / 4);
            staging.clear().limit(4 * count);
            staging.asFloatBuffer().put(values, done, count);
            write(4L * done, staging);
            done += count;
        }
    }

    /**
     * Reads floats from the start of this buffer; waits for all that was enqueued before.
     *
     * @param values overwritten; at most as many floats as there are
     * @throws IllegalArgumentException if there are fewer
     */
    public void read(float[] values) {
        requireInside(0, 4L * values.length);
        ByteBuffer staging = device.staging((int) Math.min(STAGING_BYTES, 4L * values.length));
        for (int done = 0; done < values.length; ) {
            int count = Math.min(values.length - done, staging.capacity() / 4);
            staging.clear().limit(4 * count);
            read(4L * done, staging);
            FloatBuffer floats = staging.asFloatBuffer();
            floats.get(values, done, count);
            done += count;
        }
    }

    /**
     * Writes what remains of a direct buffer; returns when it has been taken.
     *
     * @param offset where in this buffer, in bytes
     * @param source direct, in native order; read from its position to its limit, which do not move
     * @throws IllegalArgumentException if it is not direct or does not fit
     */
    public void write(long offset, ByteBuffer source) {
        transfer(offset, source, true, true);
    }

    /**
     * Fills what remains of a direct buffer; waits for all that was enqueued before.
     *
     * @param offset where in this buffer, in bytes
     * @param target direct; written from its position to its limit, which do not move
     * @throws IllegalArgumentException if it is not direct or asks for more than there is
     */
    public void read(long offset, ByteBuffer target) {
        transfer(offset, target, false, true);
    }

    /**
     * Starts a read; the target holds the values once {@link Device#finish()} has returned.
     *
     * @param offset where in this buffer, in bytes
     * @param target direct; written from its position to its limit, which do not move
     * @throws IllegalArgumentException if it is not direct or asks for more than there is
     */
    public void enqueueRead(long offset, ByteBuffer target) {
        transfer(offset, target, false, false);
    }

    /**
     * Starts a write; the source must not change until the device has taken it, at the latest when
     * {@link Device#finish()} has returned.
     *
     * @param offset where in this buffer, in bytes
     * @param source direct; read from its position to its limit, which do not move
     * @throws IllegalArgumentException if it is not direct or does not fit
     */
    public void enqueueWrite(long offset, ByteBuffer source) {
        transfer(offset, source, true, false);
    }

    private void transfer(long offset, ByteBuffer host, boolean write, boolean blocking) {
        requireTransfer(offset, host);
        if (!host.hasRemaining()) {
            return;
        }
        if (!blocking) {
            device.keepUntilFinished(host);
        }
        Pointer pointer = Pointer.to(host).withByteOffset(host.position());
        Status.check(
                write ? "clEnqueueWriteBuffer" : "clEnqueueReadBuffer",
                () -> write
                        ? CL.clEnqueueWriteBuffer(
                                device.queue(), handle(), blocking, offset, host.remaining(), pointer, 0, null, null)
                        : CL.clEnqueueReadBuffer(
                                device.queue(), handle(), blocking, offset, host.remaining(), pointer, 0, null, null),
                () -> "offset=" + offset + ", bytes=" + host.remaining() + ", device=" + device.name());
    }

    /**
     * Sets every float of this buffer; returns before the device is done.
     *
     * @param value the value
     * @throws IllegalArgumentException if the size is not a multiple of four bytes
     */
    public void fill(float value) {
        requireOpen();
        if (bytes % 4 != 0) {
            throw new IllegalArgumentException("a buffer of floats must hold whole floats: bytes=" + bytes);
        }
        if (bytes != 0) {
            Status.check(
                    "clEnqueueFillBuffer",
                    () -> CL.clEnqueueFillBuffer(
                            device.queue(), handle(), Pointer.to(new float[] {value}), 4, 0, bytes, 0, null, null),
                    () -> "bytes=" + bytes + ", device=" + device.name());
        }
    }

    /** Releases the memory if it is owned; a second call does nothing. */
    @Override
    public void close() {
        if (!closed) {
            closed = true;
            device.forget(this);
            cl_mem release = mem;
            mem = null;
            if (owned && release != null) {
                Handles.release(() -> CL.clReleaseMemObject(release));
            }
        }
    }

    cl_mem handle() {
        requireOpen();
        if (mem == null) {
            throw new IllegalArgumentException("a buffer of zero bytes has no cl_mem: device=" + device.name());
        }
        return mem;
    }

    void requireUsableOn(Device other, String kernel, int argument) {
        requireOpen();
        if (device != other) {
            throw new IllegalArgumentException("a kernel's buffers must be on its device: kernel=" + kernel
                    + ", argument=" + argument + ", device=" + other.name() + ", buffer on=" + device.name());
        }
        if (mem == null) {
            throw new IllegalArgumentException("a kernel's buffers must not be empty: kernel=" + kernel + ", argument="
                    + argument + ", device=" + device.name());
        }
    }

    private void requireTransfer(long offset, ByteBuffer host) {
        if (!host.isDirect()) {
            throw new IllegalArgumentException("a transfer must be from or to a direct buffer: buffer=" + host);
        }
        requireInside(offset, host.remaining());
    }

    private void requireInside(long offset, long count) {
        requireOpen();
        if (offset < 0 || count > bytes - offset) {
            throw new IllegalArgumentException("a transfer must lie inside the buffer: offset=" + offset + ", bytes="
                    + count + ", size=" + bytes + ", device=" + device.name());
        }
    }

    private void requireOpen() {
        if (closed) {
            throw new IllegalStateException("the buffer is closed: bytes=" + bytes + ", device=" + device.name());
        }
        device.requireOpen();
    }
}
