package io.normcl.tensor;

/**
 * A tensor as batch norm sees it: N samples, C channels and S places, whatever the number of dimensions was.
 *
 * @param n samples
 * @param c channels
 * @param s places of a sample, the product of its spatial dimensions
 * @param channelsLast whether the channel varies fastest; where S is 1 both orders are the same, and this is true
 */
public record ChannelView(long n, long c, long s, boolean channelsLast) {
    /**
     * Checks the sizes and settles the order where S is 1.
     *
     * @param n samples
     * @param c channels
     * @param s places of a sample, the product of its spatial dimensions
     * @param channelsLast whether the channel varies fastest; where S is 1 both orders are the same, and this is true
     */
    public ChannelView {
        if (n < 0 || c < 1 || s < 0) {
            throw new IllegalArgumentException(
                    "a channel view needs N >= 0, C >= 1, S >= 0: N=" + n + ", C=" + c + ", S=" + s);
        }
        Math.multiplyExact(Math.multiplyExact(n, c), s);
        channelsLast |= s == 1;
    }

    /**
     * Collapses a shape.
     *
     * @param layout where the channels stand
     * @param shape the dimensions as stored, at least two
     * @return the view
     * @throws IllegalArgumentException if there are fewer dimensions, or no channel
     */
    public static ChannelView of(Layout layout, long... shape) {
        if (shape.length < 2) {
            throw new IllegalArgumentException("a channel view needs at least (N, C): dimensions=" + shape.length);
        }
        boolean last = layout == Layout.CHANNELS_LAST;
        int channel = last ? shape.length - 1 : 1;
        long s = 1;
        for (int i = 1; i < shape.length; i++) {
            s = i == channel ? s : Math.multiplyExact(s, shape[i]);
        }
        return new ChannelView(shape[0], shape[channel], s, last);
    }

    /**
     * Values of one channel.
     *
     * @return M = N·S
     */
    public long m() {
        return n * s;
    }

    /**
     * Values in all.
     *
     * @return N·C·S
     */
    public long elements() {
        return n * c * s;
    }

    @Override
    public String toString() {
        return "N=" + n + ", C=" + c + ", S=" + s + (channelsLast ? ", channels last" : ", channels first");
    }
}
