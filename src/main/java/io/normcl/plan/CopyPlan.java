package io.normcl.plan;

import io.normcl.device.Limits;
import io.normcl.device.Limits.ReadsAhead;
import io.normcl.device.Range;
import java.util.List;

/** The streaming copy, as fast as memory goes; what every other pass is measured against. */
public final class CopyPlan {
    private CopyPlan() {}

    /**
     * A copy of floats from {@link Slot#X} to {@link Slot#Y}.
     *
     * @param count how many
     * @param limits the device
     * @param stream whether stores go past the caches
     * @return one call
     */
    public static Plan of(long count, Limits limits, boolean stream) {
        boolean wide = Tuning.NONE.family(limits) == Family.WIDE;
        int localSize = Tuning.NONE.mostItems(limits);
        int width = wide ? 16 : 4;
        long groups =
                Walk.clamp(Walk.ceilDiv(count, 4L * localSize * width), 1, (wide ? 8L : 32L) * limits.computeUnits());
        KernelCall call = new KernelCall(
                "copy.cl",
                wide ? "wide_copy" : "cooperative_copy",
                Defines.of(
                        limits,
                        "LOCAL_SIZE",
                        localSize,
                        "WIDTH",
                        width,
                        "STREAM",
                        stream ? 1 : 0,
                        "FETCH",
                        Walk.fetches(ReadsAhead.STRAIGHT, 1, count, Form.PLAIN, limits)),
                Range.of(groups * localSize, localSize),
                List.of(Slot.X, Slot.Y, count));
        return new Plan(List.of(call), 1, 0, 2 * count * Float.BYTES);
    }
}
