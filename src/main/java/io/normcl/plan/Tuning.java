package io.normcl.plan;

import io.normcl.device.Limits;
import org.jspecify.annotations.Nullable;

/**
 * What overrides the plan's own choice; null leaves it to the plan.
 *
 * @param family the kernel family
 * @param fused true to take channels or rows whole, in one launch; false for launches of their own for a pass's steps
 * @param streams whether the wide family's outputs go past the caches
 * @param items work-items of a group of the cooperative family at most, a power of two; no more than the device has
 * @param width neighbouring values that a work-item takes at a time, 1, 2, 4, 8 or 16; 1 where the cooperative family's
 *     lines are no multiple of it
 * @param splits parts into which the sums of a channel or row are cut where several steps make a pass; parts among which
 *     whole rows are shared out where one does
 */
public record Tuning(
        @Nullable Family family,
        @Nullable Boolean fused,
        @Nullable Boolean streams,
        @Nullable Integer items,
        @Nullable Integer width,
        @Nullable Integer splits) {
    /** Overrides nothing. */
    public static final Tuning NONE = new Tuning(null, null, null, null, null, null);

    /**
     * Overrides the family alone.
     *
     * @param family the kernel family
     * @return the override
     */
    public static Tuning of(Family family) {
        return NONE.withFamily(family);
    }

    /**
     * Overrides the family too.
     *
     * @param family the kernel family
     * @return the override
     */
    public Tuning withFamily(@Nullable Family family) {
        return new Tuning(family, fused, streams, items, width, splits);
    }

    /**
     * Overrides the form too.
     *
     * @param fused true to take channels or rows whole, in one launch; false for launches of their own for a pass's steps
     * @return the override
     */
    public Tuning withFused(@Nullable Boolean fused) {
        return new Tuning(family, fused, streams, items, width, splits);
    }

    /**
     * Overrides the stores too.
     *
     * @param streams whether the wide family's outputs go past the caches
     * @return the override
     */
    public Tuning withStreams(@Nullable Boolean streams) {
        return new Tuning(family, fused, streams, items, width, splits);
    }

    /**
     * Overrides the groups too.
     *
     * @param items work-items of a group of the cooperative family at most, a power of two
     * @return the override
     */
    public Tuning withItems(@Nullable Integer items) {
        return new Tuning(family, fused, streams, items, width, splits);
    }

    /**
     * Overrides the vectors too.
     *
     * @param width neighbouring values that a work-item takes at a time, 1, 2, 4, 8 or 16
     * @return the override
     */
    public Tuning withWidth(@Nullable Integer width) {
        return new Tuning(family, fused, streams, items, width, splits);
    }

    /**
     * Overrides the cut too.
     *
     * @param splits parts into which the sums of a channel or row are cut
     * @return the override
     */
    public Tuning withSplits(@Nullable Integer splits) {
        return new Tuning(family, fused, streams, items, width, splits);
    }

    /**
     * The family that runs: on a CPU the wide one, elsewhere the cooperative one, unless overridden.
     *
     * @param limits the device
     * @return the family
     */
    public Family family(Limits limits) {
        return family != null ? family : limits.cpu() ? Family.WIDE : Family.COOPERATIVE;
    }

    /**
     * The width that runs: 16 in the wide family, less where a line is shorter, and 4 without double, since compilers take
     * minutes for sixteen pairs of floats; in the cooperative one 4, or 1 where lines are no multiple; unless overridden.
     *
     * @param limits the device
     * @param line neighbouring values
     * @return the width
     */
    int width(Limits limits, long line) {
        if (family(limits) == Family.WIDE) {
            return width != null ? width : (int) Long.highestOneBit(Walk.clamp(line, 1, limits.fp64() ? 16 : 4));
        }
        int wanted = width != null ? width : 4;
        return line % wanted == 0 ? wanted : 1;
    }

    /** Work-items of a group at most: 1 in the wide family, in the cooperative one 256 unless overridden; {@link HeldRows} has its own. */
    int mostItems(Limits limits) {
        long wanted = items != null ? items : 256;
        return family(limits) == Family.WIDE
                ? 1
                : (int) Long.highestOneBit(Math.min(wanted, limits.maxWorkGroupSize()));
    }
}
