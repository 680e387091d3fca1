package io.normcl.plan;

import io.normcl.device.Limits;
import io.normcl.device.Limits.ReadsAhead;

/** One layout's way to walk a channel view with one kernel family: its launches and whether it can do with one. */
sealed interface Walk permits ChannelsFirst, ChannelsLast {
    /** A core's share of a server's caches. */
    long CACHE_OF_A_CORE = 4L << 20;

    /** What of them is the core's own; OpenCL doesn't say, and servers have about that. */
    long NEAR_A_CORE = 2L << 20;

    /** Partial results per channel. */
    long splits();

    /** Whether one launch is best for both passes over a channel of this many tensors. */
    boolean holds(int tensors);

    /** Whether a channel of this many tensors stays near the compute unit between two passes over it. */
    boolean near(int tensors);

    KernelCall statsPartial();

    KernelCall apply();

    KernelCall forwardFused();

    /** The pass that uses running statistics and takes them itself, in one launch, where {@link #takesTickets}. */
    KernelCall running();

    KernelCall backwardPartial();

    KernelCall backwardApply(boolean batchStats);

    KernelCall backwardFused();

    /** The smallest power of two that is not below a number, up to a limit that is one itself. */
    static int powerOfTwo(long atLeast, int limit) {
        int power = 1;
        while (power < atLeast && power < limit) {
            power *= 2;
        }
        return power;
    }

    /** What a device's compute units can count on: a virtual machine reports the cache of the whole socket. */
    static long cache(Limits limits) {
        return limits.cpu()
                ? Math.min(limits.cacheBytes(), limits.computeUnits() * CACHE_OF_A_CORE)
                : limits.cacheBytes();
    }

    /**
     * Outputs go past the caches of a CPU where they don't fit half of them, if it says how large they are, and are
     * stored in whole vectors: STREAM of {@code family.clh}.
     */
    static int streams(long elements, boolean whole, Form form, Limits limits, Tuning tuning) {
        Boolean wanted = tuning.streams();
        long cache = cache(limits);
        boolean large = cache > 0 && elements * form.type().bytes() > cache / 2;
        if (tuning.family(limits) != Family.WIDE || !(wanted != null ? wanted : large)) {
            return 0;
        }
        return whole ? 1 : 2;
    }

    /**
     * Whether such a walk through so many inputs of so many values asks for what it reads next: FETCH of {@code family.clh}.
     * Hardware that reads ahead itself on such walks loses some per cent by it where no cache holds the inputs; other
     * hardware gains a quarter.
     */
    static int fetches(ReadsAhead walk, int inputs, long elements, Form form, Limits limits) {
        boolean beyond = inputs * elements * form.type().bytes() >= limits.cacheBytes();
        return beyond && limits.readsAhead().compareTo(walk) >= 0 ? 0 : 1;
    }

    /**
     * Whether a work-group for each core takes a pass in one launch, drawing its parts, step after step: on a CPU, to which a
     * launch costs as much as a small tensor, if its work-items may loop for as long as that takes.
     */
    static boolean takesTickets(Limits limits, Tuning tuning) {
        return limits.cpu()
                && tuning.family(limits) == Family.WIDE
                && !Boolean.FALSE.equals(tuning.fused())
                && limits.loopSteps() == Long.MAX_VALUE;
    }

    /** Work-groups that blocks of rows are shared out among, as many as are wanted where tuning has no say. */
    static long groups(long wanted, long blocks, long elements, Limits limits, Tuning tuning) {
        long cut = tuning.splits() != null ? tuning.splits() : wanted;
        return clamp(Math.max(cut, leastGroups(elements, limits)), 1, blocks);
    }

    /** Some drivers give up on a work-item that loops for too long. */
    static long leastGroups(long elements, Limits limits) {
        return elements / 2 / limits.loopSteps();
    }

    /** Loop iterations that a work-item may make in one pass over its values; a fused kernel makes up to three. */
    static long mostSteps(Limits limits) {
        return limits.loopSteps() / 4;
    }

    /** Loop iterations that a run of values costs a work-item, its last values one by one. */
    static long steps(long values, int width, int besides) {
        return 2 + values / ((long) width * besides) + 4 * (values % width);
    }

    static long ceilDiv(long a, long b) {
        return (a + b - 1) / b;
    }

    static long clamp(long value, long low, long high) {
        return Math.max(low, Math.min(value, high));
    }
}
