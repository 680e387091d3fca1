package io.normcl.device;

/**
 * What a device says of itself, as far as a plan needs it.
 *
 * @param cpu whether the device is a CPU
 * @param computeUnits compute units (cores of a CPU)
 * @param maxWorkGroupSize the most work-items in a work-group
 * @param localMemoryBytes local memory of a work-group
 * @param maxAllocationBytes the largest single buffer
 * @param globalMemoryBytes global memory in all, as the driver reports it
 * @param cacheBytes the global memory cache, 0 where the driver reports none
 * @param fp64 whether kernels may use {@code double}
 * @param loopSteps how many iterations a work-item's loop may make: Mesa's llvmpipe silently ends a work-item after
 *     65,535 of them; elsewhere {@link Long#MAX_VALUE}
 * @param readsAhead how far the hardware alone reads ahead as fast as memory goes
 */
public record Limits(
        boolean cpu,
        int computeUnits,
        long maxWorkGroupSize,
        long localMemoryBytes,
        long maxAllocationBytes,
        long globalMemoryBytes,
        long cacheBytes,
        boolean fp64,
        long loopSteps,
        ReadsAhead readsAhead) {
    /** Walks on which hardware alone reads ahead as fast as memory goes. */
    public enum ReadsAhead {
        /** None: it stops where a page ends. */
        NEVER,
        /** Such as go straight through a tensor with little else to do: AMD's CPUs. */
        STRAIGHT,
        /** Those too that meanwhile take sums through the first cache: AMD's CPUs from Zen 5 on. */
        SUMMING
    }
}
