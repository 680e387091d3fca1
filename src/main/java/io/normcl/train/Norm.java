package io.normcl.train;

/** Over what the batch norms of a data-parallel run take their statistics. */
public enum Norm {
    /** Each device over its own samples, as data-parallel training does by default. */
    LOCAL,
    /** All devices over the whole batch. */
    SYNC
}
