package io.normcl;

/** Which variance enters the running variance. */
public enum RunningVariance {
    /** Divided by M − 1: PyTorch, TensorFlow 1. */
    UNBIASED,
    /** Divided by M: Keras 3, Flax, ONNX, DL4J. */
    BIASED
}
