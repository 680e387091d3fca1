package io.normcl.device;

import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.IntSupplier;

/** Counts the OpenCL handles that this library holds, so that a test can demand none at the end. */
final class Handles {
    static final AtomicInteger LIVE = new AtomicInteger();

    private Handles() {}

    static <T> T opened(T handle) {
        LIVE.incrementAndGet();
        return handle;
    }

    /** Releases a handle; whatever the driver answers, it is gone for us. */
    static void release(IntSupplier release) {
        LIVE.decrementAndGet();
        Status.of(release);
    }
}
