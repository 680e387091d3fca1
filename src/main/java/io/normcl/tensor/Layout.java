package io.normcl.tensor;

/** Where the channels stand in a tensor as stored. A tensor of two dimensions (N, C) is the same in both. */
public enum Layout {
    /** (N, C), (N, C, L), (N, C, H, W) or (N, C, D, H, W). */
    CHANNELS_FIRST,
    /** (N, C), (N, L, C), (N, H, W, C) or (N, D, H, W, C). */
    CHANNELS_LAST
}
