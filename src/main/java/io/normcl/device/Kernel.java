package io.normcl.device;

import java.util.Arrays;
import org.jocl.CL;
import org.jocl.Pointer;
import org.jocl.Sizeof;
import org.jocl.cl_kernel;
import org.jspecify.annotations.Nullable;

/** A compiled kernel of one device; the device owns it. Arguments are handed over at {@link Device#enqueue}. */
public final class Kernel {
    private final Device device;
    private final String name;
    private final cl_kernel handle;
    private @Nullable Object[] set = new Object[0];
    private boolean spare;

    Kernel(Device device, String name, cl_kernel handle) {
        this.device = device;
        this.name = name;
        this.handle = handle;
    }

    /**
     * The kernel's name, as a profiler shows it.
     *
     * @return its name in the kernel file
     */
    public String name() {
        return name;
    }

    /** Ends a {@link Device#lend}: whoever is lent it next launches it. */
    public void handBack() {
        spare = true;
    }

    /**
     * Takes it out of those that were handed back.
     *
     * @return whether it was one
     */
    boolean lend() {
        boolean was = spare;
        spare = false;
        return was;
    }

    Device device() {
        return device;
    }

    cl_kernel handle() {
        return handle;
    }

    /**
     * Sets the arguments that differ from those of this object's last launch. A buffer is the same only as one object:
     * another at the address of one that is closed is set.
     *
     * @return how many were set
     */
    int arguments(Object[] args) {
        int changed = 0;
        if (set.length != args.length) {
            set = new Object[args.length];
        }
        for (int i = 0; i < args.length; i++) {
            Object arg = args[i];
            if (arg instanceof Buffer buffer) {
                buffer.requireUsableOn(device, name, i);
            }
            if (!same(arg, set[i])) {
                set[i] = null;
                set(i, arg);
                set[i] = arg instanceof float[] vector ? vector.clone() : arg;
                changed++;
            }
        }
        return changed;
    }

    private static boolean same(Object arg, @Nullable Object last) {
        return arg == last
                || (arg instanceof float[] a && last instanceof float[] b && Arrays.equals(a, b))
                || (!(arg instanceof Buffer) && arg.equals(last));
    }

    private void set(int index, Object arg) {
        if (arg instanceof Buffer buffer) {
            set(index, Sizeof.cl_mem, Pointer.to(buffer.handle()));
        } else if (arg instanceof Integer value) {
            set(index, Sizeof.cl_int, Pointer.to(new int[] {value}));
        } else if (arg instanceof Long value) {
            set(index, Sizeof.cl_long, Pointer.to(new long[] {value}));
        } else if (arg instanceof Float value) {
            set(index, Sizeof.cl_float, Pointer.to(new float[] {value}));
        } else if (arg instanceof float[] vector) {
            set(index, (long) Sizeof.cl_float * vector.length, Pointer.to(vector));
        } else {
            throw new IllegalArgumentException(
                    "a kernel's argument must be a Buffer, Integer, Long, Float or float[]: kernel=" + name
                            + ", argument=" + index + ", type=" + arg.getClass().getSimpleName());
        }
    }

    private void set(int index, long size, Pointer value) {
        Status.check(
                "clSetKernelArg",
                () -> CL.clSetKernelArg(handle, index, size, value),
                () -> "kernel=" + name + ", argument=" + index + ", device=" + device.name());
    }
}
