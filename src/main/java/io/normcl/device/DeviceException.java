package io.normcl.device;

/** A call that the OpenCL driver refused, or a kernel that did not compile; the message is one line. */
public final class DeviceException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    /** What the driver said in full. */
    private final String details;

    DeviceException(String message) {
        this(message, "");
    }

    DeviceException(String message, String details) {
        super(message);
        this.details = details;
    }

    /**
     * What the driver said in full.
     *
     * @return the compiler's log, or nothing
     */
    public String details() {
        return details;
    }
}
