package io.normcl;

/** Where a layer with running statistics takes its statistics from. */
public enum Mode {
    /** From the batch, unless the layer is frozen. */
    TRAINING,
    /** From the running statistics, where there are any. */
    EVALUATION
}
