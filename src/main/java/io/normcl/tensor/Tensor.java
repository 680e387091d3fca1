package io.normcl.tensor;

import io.normcl.device.Buffer;
import java.util.Arrays;

/** A buffer with a data type and a shape; a view that owns nothing. */
public final class Tensor {
    private final Buffer buffer;
    private final DataType type;
    private final Layout layout;
    private final long[] shape;
    private final long elements;

    private Tensor(Buffer buffer, DataType type, Layout layout, long[] shape, long elements) {
        this.buffer = buffer;
        this.type = type;
        this.layout = layout;
        this.shape = shape;
        this.elements = elements;
    }

    /**
     * Gives a buffer of floats a shape.
     *
     * @param buffer floats in the shape's order from its start; retained, not owned; it may be larger
     * @param layout where the channels stand
     * @param shape the dimensions as stored, each at least 0
     * @return the tensor
     * @throws IllegalArgumentException if a dimension is negative or the buffer is too small
     */
    public static Tensor of(Buffer buffer, Layout layout, long... shape) {
        return of(buffer, DataType.FLOAT, layout, shape);
    }

    /**
     * Gives a buffer a data type and a shape.
     *
     * @param buffer values in the shape's order from its start; retained, not owned; it may be larger
     * @param type how they are stored
     * @param layout where the channels stand
     * @param shape the dimensions as stored, each at least 0
     * @return the tensor
     * @throws IllegalArgumentException if a dimension is negative or the buffer is too small
     */
    public static Tensor of(Buffer buffer, DataType type, Layout layout, long... shape) {
        long elements = 1;
        for (long size : shape) {
            if (size < 0) {
                throw new IllegalArgumentException("a dimension must not be negative: shape=" + Arrays.toString(shape));
            }
            elements = Math.multiplyExact(elements, size);
        }
        if (buffer.bytes() / type.bytes() < elements) {
            throw new IllegalArgumentException("a tensor must fit its buffer: shape=" + Arrays.toString(shape)
                    + ", type=" + type + ", bytes needed=" + Math.multiplyExact(elements, type.bytes()) + ", bytes="
                    + buffer.bytes());
        }
        return new Tensor(buffer, type, layout, shape.clone(), elements);
    }

    /**
     * The memory.
     *
     * @return the buffer
     */
    public Buffer buffer() {
        return buffer;
    }

    /**
     * How the values are stored.
     *
     * @return the data type
     */
    public DataType type() {
        return type;
    }

    /**
     * Where the channels stand.
     *
     * @return the layout
     */
    public Layout layout() {
        return layout;
    }

    /**
     * The dimensions.
     *
     * @return a copy of the shape
     */
    public long[] shape() {
        return shape.clone();
    }

    /**
     * The number of values.
     *
     * @return the product of the dimensions
     */
    public long elements() {
        return elements;
    }

    /**
     * The tensor as batch norm sees it.
     *
     * @return N, C, S and their order
     * @throws IllegalArgumentException if it has fewer than two dimensions, or no channel
     */
    public ChannelView channelView() {
        return ChannelView.of(layout, shape);
    }

    @Override
    public String toString() {
        return Arrays.toString(shape) + " " + layout + (type == DataType.FLOAT ? "" : " " + type);
    }
}
