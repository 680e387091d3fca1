package io.normcl.plan;

import io.normcl.device.Limits;
import io.normcl.device.Range;
import io.normcl.tensor.ChannelView;
import java.util.List;
import java.util.Map;

/**
 * The passes of batch norm over a channel view.
 *
 * <p>On a CPU the wide family runs, elsewhere the cooperative one. A pass runs in one launch where its channels can be
 * held near the compute units, on a CPU in part ({@code holds} of the layout's launches has the rule), else in three: partial results,
 * their merge per channel, and the pass that uses it. A CPU takes these steps in one launch where channels are walked as
 * columns ({@link Walk#takesTickets}), and the evaluation's in any layout. Synchronized batch norm is the plan of three with the
 * host's merge in place of the middle one.
 */
public final class ChannelPlan {
    /** Work-items of a group in the per-channel kernels, where the device has so many. */
    private static final int CHANNELS = 32;

    /** Partial results of a channel from which a GPU's work-items share them. */
    private static final long SHARED = 16;

    /** How many work-items then share them at most, and how many channels a group has at least. */
    private static final int MOST_SHARING = 32;

    private static final int LEAST_CHANNELS = 8;

    /** Places of channels that stand first up to which a CPU walks them as columns, where so many samples are summed. */
    private static final long PLACES_TO_SUM = 9;

    private static final long SAMPLES_TO_SUM = 256;

    /** The same of the evaluation, where a sample has the same bits in any batch. */
    private static final long PLACES_TO_APPLY = 4;

    /** Reals, 8 bytes each, in a partial result of the forward: count, mean, m2. */
    public static final int FORWARD_PARTIAL = 3;

    /** Reals, 8 bytes each, in a partial result of the backward: sum of dy, sum of dy·xHat. */
    public static final int BACKWARD_PARTIAL = 2;

    /** Ints of a cache line: LINE of {@code tickets.clh}. */
    private static final int LINE = 16;

    private ChannelPlan() {}

    /**
     * What {@link Slot#TICKETS} takes.
     *
     * @param limits the device
     * @return ints, 0 before the first launch; a launch leaves them so
     */
    public static int ticketInts(Limits limits) {
        return LINE * (1 + limits.computeUnits());
    }

    /**
     * The forward that takes its statistics from the batch.
     *
     * @param view the tensor, not empty
     * @param form how it is stored and what is fused
     * @param limits the device
     * @param tuning what to override
     * @return one call, or three: partial, finalize, apply; three in any case where the tuning wants no fused pass
     */
    public static Plan forward(ChannelView view, Form form, Limits limits, Tuning tuning) {
        Walk walk = walk(view, form, limits, tuning);
        if (fused(walk, form, 1, tuning)) {
            return new Plan(
                    List.of(walk.forwardFused()), 1, 0, form.forwardBytes(view.elements(), walk.near(1) ? 2 : 3));
        }
        if (walk instanceof ChannelsLast last && last.tickets()) {
            return new Plan(
                    List.of(last.forwardTickets()),
                    1,
                    last.forwardTicketBytes(),
                    form.forwardBytes(view.elements(), 3));
        }
        KernelCall merge = merged(
                "channel_stats_finalize",
                Map.of(),
                view.c(),
                walk.splits(),
                limits,
                tuning,
                List.of(Slot.PARTIALS, Slot.STATS, view.c(), 1L, walk.splits(), Slot.EPS));
        return new Plan(
                List.of(walk.statsPartial(), merge, walk.apply()),
                walk.splits(),
                8L * FORWARD_PARTIAL * walk.splits() * view.c(),
                form.forwardBytes(view.elements(), 3));
    }

    /**
     * The forward that takes the running statistics.
     *
     * @param view the tensor, not empty
     * @param form how it is stored and what is fused
     * @param limits the device
     * @param tuning what to override
     * @return one call, or two: statistics, apply
     */
    public static Plan forwardRunning(ChannelView view, Form form, Limits limits, Tuning tuning) {
        Walk walk = walk(PLACES_TO_APPLY, view, form, limits, tuning);
        return new Plan(
                Walk.takesTickets(limits, tuning)
                        ? List.of(walk.running())
                        : List.of(runningStats(view.c(), limits), walk.apply()),
                1,
                0,
                form.forwardBytes(view.elements(), 2));
    }

    /**
     * The backward.
     *
     * @param view the tensor, not empty
     * @param form how it is stored and what is fused
     * @param limits the device
     * @param tuning what to override
     * @param batchStats whether the forward took its statistics from the batch
     * @param dx whether the gradient of the input is wanted
     * @param parameters whether the gradient of gamma or beta is wanted
     * @return one call, or up to three: partial, finalize, apply, without those that nothing needs
     */
    public static Plan backward(
            ChannelView view,
            Form form,
            Limits limits,
            Tuning tuning,
            boolean batchStats,
            boolean dx,
            boolean parameters) {
        Walk walk = walk(view, form, limits, tuning);
        if (dx && batchStats && fused(walk, form, 2, tuning)) {
            boolean near = walk.near(2);
            return new Plan(
                    List.of(walk.backwardFused()),
                    1,
                    0,
                    form.backwardBytes(view.elements(), near ? 3 : 5, near ? 1 : 2));
        }
        if (dx && batchStats && walk instanceof ChannelsLast last && last.tickets()) {
            return new Plan(
                    List.of(last.backwardTickets()),
                    1,
                    last.backwardTicketBytes(),
                    form.backwardBytes(view.elements(), 5, 2));
        }
        List<KernelCall> sums = List.of(
                walk.backwardPartial(),
                merged(
                        "channel_backward_finalize",
                        Map.of(),
                        view.c(),
                        walk.splits(),
                        limits,
                        tuning,
                        List.of(
                                Slot.PARTIALS,
                                Slot.SUMS,
                                Slot.D_GAMMA,
                                Slot.D_BETA,
                                view.c(),
                                walk.splits(),
                                Slot.COUNT,
                                Slot.ACCUMULATE)));
        List<KernelCall> apply = List.of(walk.backwardApply(batchStats));
        boolean summed = parameters || (dx && batchStats);
        return new Plan(
                dx && summed ? List.of(sums.get(0), sums.get(1), apply.get(0)) : dx ? apply : summed ? sums : List.of(),
                walk.splits(),
                summed ? 8L * BACKWARD_PARTIAL * walk.splits() * view.c() : 0,
                form.backwardBytes(
                        view.elements(),
                        (summed ? 2 : 0) + (dx ? batchStats ? 3 : 2 : 0),
                        (summed ? 1 : 0) + (dx ? 1 : 0)));
    }

    /**
     * The running statistics as statistics to normalize with.
     *
     * @param c channels
     * @param limits the device
     * @return the call
     */
    public static KernelCall runningStats(long c, Limits limits) {
        return perChannel(
                "channel_stats_running",
                Map.of(),
                c,
                limits,
                List.of(Slot.RUNNING_MEAN, Slot.RUNNING_VAR, Slot.STATS, c, Slot.EPS));
    }

    /**
     * The move of the running statistics.
     *
     * @param c channels
     * @param limits the device
     * @return the call
     */
    public static KernelCall commit(long c, Limits limits) {
        return perChannel(
                "channel_running_commit",
                Map.of(),
                c,
                limits,
                List.of(
                        Slot.STATS,
                        Slot.RUNNING_MEAN,
                        Slot.RUNNING_VAR,
                        c,
                        Slot.KEEP,
                        Slot.TAKE_MEAN,
                        Slot.TAKE_VAR,
                        Slot.KEEP_VAR,
                        Slot.SKIP_NON_FINITE));
    }

    /** The kernels of one launch know no lengths. */
    private static boolean fused(Walk walk, Form form, int tensors, Tuning tuning) {
        Boolean wanted = tuning.fused();
        return !form.masked() && (wanted != null ? wanted : walk.holds(tensors));
    }

    /** For sums, which each place of a channel has by itself then; without doubles those of columns overflow sooner. */
    private static Walk walk(ChannelView view, Form form, Limits limits, Tuning tuning) {
        boolean many = view.n() >= SAMPLES_TO_SUM && limits.fp64();
        return walk(many ? PLACES_TO_SUM : 0, view, form, limits, tuning);
    }

    private static Walk walk(long places, ChannelView view, Form form, Limits limits, Tuning tuning) {
        return view.channelsLast() || ChannelsLast.takesPlaces(places, view, form, limits, tuning)
                ? ChannelsLast.of(view, form, limits, tuning)
                : ChannelsFirst.of(view, form, limits, tuning);
    }

    static KernelCall perChannel(String kernel, Map<String, String> more, long c, Limits limits, List<Object> args) {
        Range range = Range.covering(c, Math.min(CHANNELS, limits.maxWorkGroupSize()));
        return new KernelCall("channel.cl", kernel, Defines.with(Defines.of(limits), more), range, args);
    }

    /** A kernel that merges so many partial results of each channel: one after the other on a CPU, by a tree elsewhere. */
    static KernelCall merged(
            String kernel,
            Map<String, String> more,
            long c,
            long parts,
            Limits limits,
            Tuning tuning,
            List<Object> args) {
        int items = tuning.mostItems(limits);
        int share = Walk.powerOfTwo(parts / 4, Math.min(MOST_SHARING, items / LEAST_CHANNELS));
        if (parts < SHARED || share < 2) {
            return perChannel(kernel, more, c, limits, args);
        }
        Map<String, String> defines = Defines.of(limits, "LOCAL_SIZE", items, "SHARE", share);
        Range range = Range.covering(c * share, items);
        return new KernelCall("channel.cl", kernel, Defines.with(defines, more), range, args);
    }
}
