package io.normcl.tensor;

/** How the values of a tensor are stored; arithmetic, statistics and parameters are float in any case. */
public enum DataType {
    /** IEEE 754 binary32. */
    FLOAT(4),
    /** IEEE 754 binary16. */
    HALF(2),
    /** The upper half of a binary32. */
    BFLOAT16(2);

    private final int bytes;

    DataType(int bytes) {
        this.bytes = bytes;
    }

    /**
     * The size of a value.
     *
     * @return bytes
     */
    public int bytes() {
        return bytes;
    }
}
