package io.normcl.plan;

import io.normcl.tensor.ChannelView;
import io.normcl.tensor.DataType;
import io.normcl.tensor.RowView;
import java.util.Locale;

/**
 * Shapes so alike that one tuned choice does for them: those whose sizes are nearest to the same powers of two.
 *
 * @param walk how memory is walked
 * @param pass what is computed
 * @param type how tensors are stored
 * @param sets sets of statistics, channels or rows, as a power of two
 * @param values values of a set, as a power of two
 */
public record ShapeClass(Walked walk, Pass pass, DataType type, long sets, long values) {
    /** How memory is walked. */
    public enum Walked {
        /** Batch norm with channels first. */
        CHANNELS_FIRST,
        /** Batch norm with channels last. */
        CHANNELS_LAST,
        /** Rows, each value of which has a gamma of its own. */
        ROWS,
        /** Rows of runs of one gamma. */
        GROUPS_FIRST,
        /** The same with channels last. */
        GROUPS_LAST,
        /** Rows of the channels at one place, with channels first. */
        PER_PLACE
    }

    /** What is computed. */
    public enum Pass {
        /** A forward with the input's own statistics. */
        FORWARD,
        /** A forward with running statistics. */
        FORWARD_RUNNING,
        /** A backward. */
        BACKWARD
    }

    /**
     * The class of a channel view.
     *
     * @param view the tensor
     * @param type how it is stored
     * @param pass what is computed
     * @return the class
     */
    public static ShapeClass of(ChannelView view, DataType type, Pass pass) {
        Walked walk = view.channelsLast() ? Walked.CHANNELS_LAST : Walked.CHANNELS_FIRST;
        return new ShapeClass(walk, pass, type, nearest(view.c()), nearest(view.m()));
    }

    /**
     * The class of a row view.
     *
     * @param view the tensor
     * @param type how it is stored
     * @param pass what is computed
     * @return the class
     */
    public static ShapeClass of(RowView view, DataType type, Pass pass) {
        Walked walk = switch (view.order()) {
            case ROWS -> view.s() == 1 ? Walked.ROWS : Walked.GROUPS_FIRST;
            case CHANNELS_LAST -> Walked.GROUPS_LAST;
            case PER_PLACE -> Walked.PER_PLACE;
        };
        return new ShapeClass(walk, pass, type, nearest(view.rows()), nearest(view.d()));
    }

    /**
     * Reads what {@link #toString} wrote.
     *
     * @param text the class's name
     * @return the class
     * @throws IllegalArgumentException if it is no class's name
     */
    public static ShapeClass parse(String text) {
        String[] parts = text.split("[.x]", -1);
        if (parts.length == 5) {
            try {
                ShapeClass read = new ShapeClass(
                        Walked.valueOf(upper(parts[0])),
                        Pass.valueOf(upper(parts[1])),
                        DataType.valueOf(upper(parts[2])),
                        nearest(Long.parseLong(parts[3])),
                        nearest(Long.parseLong(parts[4])));
                if (read.toString().equals(text)) {
                    return read;
                }
            } catch (IllegalArgumentException e) {
                throw new IllegalArgumentException("there is no such class of shapes: class=" + text, e);
            }
        }
        throw new IllegalArgumentException("there is no such class of shapes: class=" + text);
    }

    private static long nearest(long size) {
        long below = Long.highestOneBit(Math.max(1, size));
        return size > below * Math.sqrt(2) ? 2 * below : below;
    }

    private static String upper(String name) {
        return name.toUpperCase(Locale.ROOT);
    }

    private static String lower(Enum<?> constant) {
        return constant.name().toLowerCase(Locale.ROOT);
    }

    /** The class's name, as {@code channels_first.forward.float.64x262144}. */
    @Override
    public String toString() {
        return lower(walk) + "." + lower(pass) + "." + lower(type) + "." + sets + "x" + values;
    }
}
