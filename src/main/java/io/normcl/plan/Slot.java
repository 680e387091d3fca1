package io.normcl.plan;

/** An argument that a plan leaves open, filled in when it runs. */
public enum Slot {
    /** Input. */
    X,
    /** Output. */
    Y,
    /** Gradient of the output. */
    DY,
    /** Gradient of the input. */
    DX,
    /** Scale, C floats. */
    GAMMA,
    /** Shift, C floats. */
    BETA,
    /** Gradient of the scale, C floats. */
    D_GAMMA,
    /** Gradient of the shift, C floats. */
    D_BETA,
    /** Running mean, C floats. */
    RUNNING_MEAN,
    /** Running variance, C floats. */
    RUNNING_VAR,
    /** C times (mean high, mean low, invStd, variance). */
    STATS,
    /** C times (dBeta/M, dGamma/M). */
    SUMS,
    /** The workspace. */
    PARTIALS,
    /** A vector of two floats, high and low. */
    EPS,
    /** 1 to add to dGamma and dBeta, 0 to overwrite them. */
    ACCUMULATE,
    /** What the running statistics are multiplied by at a commit. */
    KEEP,
    /** What the batch's mean is multiplied by at a commit. */
    TAKE_MEAN,
    /** What the batch's variance is multiplied by at a commit. */
    TAKE_VAR,
    /** 1 to leave the running variance alone. */
    KEEP_VAR,
    /** 1 to leave channels alone whose statistics are not finite. */
    SKIP_NON_FINITE
}
