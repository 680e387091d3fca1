package io.normcl.plan;

import io.normcl.device.Limits;
import io.normcl.device.Limits.ReadsAhead;
import io.normcl.tensor.DataType;

/**
 * How many rows, of which each value has its own gamma, a CPU's work-item takes side by side. Several share one reading of gamma,
 * beta and the columns' sums; few are easier to read ahead, and a first cache holds them. Where one begins to be worth more than
 * the other was measured (kernel-notes.md).
 *
 * @param backward in the backward, where dGamma and dBeta come with dx
 * @param meanwhile whether the backward writes rows while it sums the next
 * @param forward in the forward, which writes several while it sums as many, too
 */
record RowsAtOnce(int backward, boolean meanwhile, int forward) {
    /** Values of a row from which a backward takes four rows of floats. */
    private static final long FOUR_ROWS = 192;

    /** The same from which it takes two, and writes them meanwhile. 16 bits cost more arithmetic than memory. */
    private static final long MEANWHILE = 512;

    /** Values of a row of 16 bits from which it takes fewer than four. */
    private static final long LONG_OF_16_BITS = 1024;

    /** Values of a row of whole vectors of floats from which hardware that reads ahead while it sums is given one row, not two. */
    private static final long ONE_ROW = 320;

    /** Values of a row of floats from which it is given two again. */
    private static final long TWO_LONG_ROWS = 16_384;

    /** Values of rows of 16 bits of which such hardware is given four; from the second on, two if they are whole vectors. */
    private static final long FOUR_OF_16_BITS = 256;

    private static final long TWO_OF_16_BITS = 512;

    /** Values of a row of floats beyond which a forward takes four; the second where the hardware reads ahead while it sums. */
    private static final long ALONE = 2048;

    private static final long ALONE_AHEAD = 4095;

    private static final int BESIDE = 4;

    /**
     * What is best for rows of {@code s} values.
     *
     * @param s values of a row
     * @param whole whether they are whole vectors
     * @param groups rows of a sample, each with gammas of its own; of more than one, none is written meanwhile
     * @param rule whether there is a mean; without one hardware that reads ahead does best with one row in the forward
     * @param type how they are stored
     * @param limits the device
     */
    static RowsAtOnce of(long s, boolean whole, long groups, RowRule rule, DataType type, Limits limits) {
        boolean floats = type == DataType.FLOAT;
        boolean ahead = limits.readsAhead() == ReadsAhead.SUMMING && s > RowPlan.SHORT_ROW && groups == 1;
        int backward = !ahead ? backward(s, floats) : floats ? floatsAhead(s, whole) : of16BitsAhead(s, whole);
        boolean near = 2 * BESIDE * s * Float.BYTES * limits.computeUnits() <= Walk.cache(limits);
        boolean beside =
                groups == 1 && floats && whole && near && (ahead ? rule.centered() && s > ALONE_AHEAD : s > ALONE);
        return new RowsAtOnce(backward, backward == 1 || (floats && s >= MEANWHILE), beside ? BESIDE : 1);
    }

    private static int backward(long s, boolean floats) {
        return (floats ? s < FOUR_ROWS || s >= MEANWHILE : s >= LONG_OF_16_BITS) ? 2 : 4;
    }

    private static int floatsAhead(long s, boolean whole) {
        return s < TWO_LONG_ROWS && (s >= ONE_ROW || !whole) ? 1 : 2;
    }

    private static int of16BitsAhead(long s, boolean whole) {
        if (s >= LONG_OF_16_BITS) {
            return 1;
        }
        return s < FOUR_OF_16_BITS || (s >= TWO_OF_16_BITS && whole) ? 2 : 4;
    }
}
