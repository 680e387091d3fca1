package io.normcl.train;

import io.normcl.NamedParameter;
import io.normcl.device.Buffer;

/**
 * What one layer of one replica learns.
 *
 * @param named PyTorch's name of it, its kind and its values
 * @param shape PyTorch's shape of it
 * @param gradient its gradient over this replica's samples
 */
@SuppressWarnings("ArrayRecordComponent") // compared by nobody
record Parameter(NamedParameter named, long[] shape, Buffer gradient) {
    String name() {
        return named.name();
    }

    Buffer value() {
        return named.value();
    }

    int count() {
        return (int) (value().bytes() / Float.BYTES);
    }
}
