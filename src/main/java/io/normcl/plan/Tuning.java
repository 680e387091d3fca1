package io.normcl.plan;

import io.normcl.device.Limits;
import org.jspecify.annotations.Nullable;

/**
 * What overrides the plan's own choice; null leaves it to the plan.
 *
 * @param family the kernel family
 * @param fused whether a pass runs in one launch
 */
public record Tuning(@Nullable Family family, @Nullable Boolean fused) {
    /** Overrides nothing. */
    public static final Tuning NONE = new Tuning(null, null);

    /**
     * Overrides the family alone.
     *
     * @param family the kernel family
     * @return the override
     */
    public static Tuning of(Family family) {
        return new Tuning(family, null);
    }

    /**
     * Overrides the form too.
     *
     * @param fused whether a pass runs in one launch
     * @return the override
     */
    public Tuning withFused(boolean fused) {
        return new Tuning(family, fused);
    }

    Family family(Limits limits) {
        return family != null ? family : limits.cpu() ? Family.WIDE : Family.COOPERATIVE;
    }
}
