package io.normcl.plan;

/** The two ways that kernels walk memory. */
public enum Family {
    /** Work-groups of one work-item, each streaming a long run in vectors of 16: what CPUs want. */
    WIDE,
    /** Work-groups of 64 to 256 work-items side by side, or as many as tuning finds, with a tree in local memory: what GPUs want. */
    COOPERATIVE
}
