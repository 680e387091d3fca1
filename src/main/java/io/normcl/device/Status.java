package io.normcl.device;

import java.util.function.Function;
import java.util.function.IntSupplier;
import java.util.function.Supplier;
import org.jocl.CL;
import org.jocl.CLException;
import org.jspecify.annotations.Nullable;

/**
 * Statuses told as exceptions. JOCL's own switch for exceptions belongs to the application: where it is set, its
 * exception is taken for the status that it carries.
 */
final class Status {
    private Status() {}

    static int of(IntSupplier call) {
        try {
            return call.getAsInt();
        } catch (CLException e) {
            return e.getStatus();
        }
    }

    static void check(String call, IntSupplier of, Supplier<String> where) {
        int status = of(of);
        if (status != CL.CL_SUCCESS) {
            throw failed(call, status, where);
        }
    }

    /** Makes a handle; {@code make} puts the status into the array that it is given. */
    static <T> T create(String call, Function<int[], @Nullable T> make, Supplier<String> where) {
        int[] status = new int[1];
        T made = null;
        try {
            made = make.apply(status);
        } catch (CLException e) {
            status[0] = e.getStatus();
        }
        if (status[0] != CL.CL_SUCCESS || made == null) {
            throw failed(call, status[0], where);
        }
        return made;
    }

    static DeviceException failed(String call, int status, Supplier<String> where) {
        return new DeviceException(call + " failed: status=" + CL.stringFor_errorCode(status) + ", " + where.get());
    }
}
