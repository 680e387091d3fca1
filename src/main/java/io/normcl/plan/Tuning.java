package io.normcl.plan;

import io.normcl.device.Limits;
import org.jspecify.annotations.Nullable;

/**
 * What overrides the plan's own choice; null leaves it to the plan.
 *
 * @param family the kernel family
 * @param fused whether a pass runs in one launch
 * @param streams whether the wide family's outputs go past the caches
 */
public record Tuning(
        @Nullable Family family,
        @Nullable Boolean fused,
        @Nullable Boolean streams) {
    /** Overrides nothing. */
    public static final Tuning NONE = new Tuning(null, null, null);

    /**
     * Overrides the family alone.
     *
     * @param family the kernel family
     * @return the override
     */
    public static Tuning of(Family family) {
        return new Tuning(family, null, null);
    }

    /**
     * Overrides the form too.
     *
     * @param fused whether a pass runs in one launch
     * @return the override
     */
    public Tuning withFused(boolean fused) {
        return new Tuning(family, fused, streams);
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
}
