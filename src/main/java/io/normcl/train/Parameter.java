package io.normcl.train;

import io.normcl.device.Buffer;

/**
 * What one layer of one replica learns.
 *
 * @param name PyTorch's name of it
 * @param shape PyTorch's shape of it
 * @param value its values
 * @param gradient its gradient over this replica's samples
 * @param decays whether the weight decay pulls on it
 */
@SuppressWarnings("ArrayRecordComponent") // compared by nobody
record Parameter(String name, long[] shape, Buffer value, Buffer gradient, boolean decays) {
    int count() {
        return (int) (value.bytes() / Float.BYTES);
    }
}
