package io.normcl.tensor;

/**
 * A tensor as row norms see it: sets of values, called rows, each with statistics of its own. A sample has G groups of K
 * runs, a run being S values of one gamma and beta.
 *
 * @param n samples
 * @param groups groups of a sample, G
 * @param runs runs of a group, K
 * @param s values of a run; 1 where every value of a group has a gamma of its own
 * @param order how the values stand and what a row is
 */
public record RowView(long n, long groups, long runs, long s, Order order) {
    /** How the values stand and what a row is. */
    public enum Order {
        /** Stored (N, G, K, S); a row is the K·S neighbouring values of a group. */
        ROWS,
        /** Stored (N, S, G, K); a row is the K·S values of a group, K neighbours at a time. */
        CHANNELS_LAST,
        /** Stored (N, G, K, S); a row is the K values of a group at one of S places. */
        PER_PLACE
    }

    /**
     * Checks the sizes and settles the order where others are the same as {@link Order#ROWS}.
     *
     * @param n samples
     * @param groups groups of a sample, G
     * @param runs runs of a group, K
     * @param s values of a run; 1 where every value of a group has a gamma of its own
     * @param order how the values stand and what a row is
     */
    public RowView {
        if (n < 0 || groups < 1 || runs < 0 || s < 0) {
            throw new IllegalArgumentException("a row view needs N >= 0, G >= 1, K >= 0, S >= 0: N=" + n + ", G="
                    + groups + ", K=" + runs + ", S=" + s);
        }
        long channels = Math.multiplyExact(groups, runs);
        Math.multiplyExact(Math.multiplyExact(n, channels), s);
        if (s == 1 || (order == Order.CHANNELS_LAST && channels == 1)) {
            order = Order.ROWS;
        }
    }

    /**
     * Rows, each with statistics of its own.
     *
     * @return N·G, or N·G·S per place
     */
    public long rows() {
        return n * groups * (order == Order.PER_PLACE ? s : 1);
    }

    /**
     * Values of a row.
     *
     * @return D = K·S, or K per place
     */
    public long d() {
        return runs * (order == Order.PER_PLACE ? 1 : s);
    }

    /**
     * Values of gamma and of beta; run k of group g takes number g·K + k.
     *
     * @return G·K
     */
    public long affine() {
        return groups * runs;
    }

    /**
     * Values in all.
     *
     * @return N·G·K·S
     */
    public long elements() {
        return n * groups * runs * s;
    }

    @Override
    public String toString() {
        return "N=" + n + ", G=" + groups + ", K=" + runs + ", S=" + s + (order == Order.ROWS ? "" : ", " + order);
    }
}
