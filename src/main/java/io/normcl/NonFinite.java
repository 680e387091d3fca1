package io.normcl;

/** What a commit does with statistics that are NaN or infinite. */
public enum NonFinite {
    /** Takes them, as PyTorch does: they stay for good. */
    PROPAGATE,
    /** Leaves the running statistics of such channels as they are. */
    SKIP,
    /** Reads the statistics and throws before anything has moved; waits for the device. */
    REFUSE
}
