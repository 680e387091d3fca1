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
    /** What is added before the activation. */
    Z,
    /** Gradient of what is added before the activation. */
    DZ,
    /** What is added to the input of a row norm. */
    ADDEND,
    /** The sum of the input and the addend, written by the forward. */
    SUM,
    /** For each sample how many places along the last spatial dimension count, N ints. */
    LENGTHS,
    /** Values per channel that the statistics are of, a long. */
    COUNT,
    /** Scale, C floats, or as many as a row view has. */
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
    /** C times, or for each row, (mean high, mean low, invStd, variance). */
    STATS,
    /** C times (dBeta/M, dGamma/M), or for each row the means of dy·gamma and dy·gamma·xHat. */
    SUMS,
    /** C times (mean high, mean low, 0, variance), averaged over samples. */
    AVERAGES,
    /** The workspace. */
    PARTIALS,
    /** {@link ChannelPlan#ticketInts} ints, by which the stages in one launch are shared out and wait for one another. */
    TICKETS,
    /** A vector of two floats, high and low. */
    EPS,
    /** 1 to add to dGamma and dBeta, 0 to overwrite them. */
    ACCUMULATE,
    /** What the running statistics are multiplied by at a commit, a vector of two floats. */
    KEEP,
    /** What the batch's mean is multiplied by at a commit, a vector of two floats. */
    TAKE_MEAN,
    /** What the batch's variance is multiplied by at a commit, a vector of two floats. */
    TAKE_VAR,
    /** 1 to leave the running variance alone. */
    KEEP_VAR,
    /** 1 to leave channels alone whose statistics are not finite. */
    SKIP_NON_FINITE
}
