package io.normcl.plan;

import static io.normcl.plan.Walk.ceilDiv;
import static io.normcl.plan.Walk.clamp;
import static io.normcl.plan.Walk.powerOfTwo;

import io.normcl.device.Limits;
import io.normcl.device.Range;
import io.normcl.tensor.ChannelView;
import java.util.List;
import java.util.Map;

/** The launches of {@code channels_first.cl}. */
record ChannelsFirst(
        ChannelView view,
        Limits limits,
        Family family,
        int localSize,
        int width,
        int span,
        long piece,
        long splits,
        long applyGroups)
        implements Walk {

    /** Planes longer than this are cut, so that work can be shared out where there are few of them. */
    private static final long LONGEST_PIECE = 16384;

    static ChannelsFirst of(ChannelView view, Limits limits, Tuning tuning) {
        Family family = tuning.family(limits);
        boolean wide = family == Family.WIDE;
        int width = wide ? 16 : view.s() % 4 == 0 ? 4 : 1;
        int most = wide ? 1 : Walk.mostItems(limits);
        int localSize = wide ? 1 : Math.max(Math.min(64, most), powerOfTwo(ceilDiv(view.m(), 4L * width), most));
        int span = powerOfTwo(ceilDiv(view.s(), width), localSize);
        long piece = Math.min(view.s(), LONGEST_PIECE);
        long pieces = view.n() * ceilDiv(view.s(), piece);
        long wanted = wide ? 8L * limits.computeUnits() : 4L * limits.computeUnits();
        long worthwhile = clamp(view.m() / (wide ? 4096 : 8L * localSize * width), 1, Math.min(pieces, 256));
        return new ChannelsFirst(
                view,
                limits,
                family,
                localSize,
                width,
                span,
                piece,
                clamp(ceilDiv(wanted, view.c()), 1, worthwhile),
                clamp(ceilDiv(pieces * view.c(), localSize / span), 1, (wide ? 16L : 32L) * limits.computeUnits()));
    }

    /** One group per channel must occupy the device, and what the groups in flight hold must fit half its cache. */
    @Override
    public boolean holds(int tensors) {
        long units = limits.computeUnits();
        long groups = family == Family.WIDE ? 4 * units : units;
        long channelBytes = view.m() * Float.BYTES * tensors;
        boolean small = view.elements() <= 32_768;
        return small || (view.c() >= groups && channelBytes * Math.min(view.c(), units) <= limits.cacheBytes() / 2);
    }

    @Override
    public KernelCall statsPartial() {
        return call(
                "first_stats_partial",
                view.c() * splits,
                List.of(Slot.X, Slot.PARTIALS, view.n(), view.c(), view.s(), piece, splits));
    }

    @Override
    public KernelCall apply() {
        return call(
                "first_apply",
                applyGroups,
                List.of(Slot.X, Slot.Y, Slot.STATS, Slot.GAMMA, Slot.BETA, view.n(), view.c(), view.s(), piece));
    }

    @Override
    public KernelCall forwardFused() {
        return call(
                "first_forward_fused",
                view.c(),
                List.of(Slot.X, Slot.Y, Slot.STATS, Slot.GAMMA, Slot.BETA, view.n(), view.c(), view.s(), Slot.EPS));
    }

    @Override
    public KernelCall backwardPartial() {
        return call(
                "first_backward_partial",
                view.c() * splits,
                List.of(Slot.X, Slot.DY, Slot.STATS, Slot.PARTIALS, view.n(), view.c(), view.s(), piece, splits));
    }

    @Override
    public KernelCall backwardApply(boolean batchStats) {
        return new KernelCall(
                "channels_first.cl",
                name("first_backward_apply"),
                Defines.with(defines(), "BATCH_STATS", batchStats ? 1 : 0),
                Range.of(applyGroups * localSize, localSize),
                List.of(
                        Slot.X,
                        Slot.DY,
                        Slot.DX,
                        Slot.STATS,
                        Slot.SUMS,
                        Slot.GAMMA,
                        view.n(),
                        view.c(),
                        view.s(),
                        piece));
    }

    @Override
    public KernelCall backwardFused() {
        return call(
                "first_backward_fused",
                view.c(),
                List.of(
                        Slot.X,
                        Slot.DY,
                        Slot.DX,
                        Slot.STATS,
                        Slot.GAMMA,
                        Slot.D_GAMMA,
                        Slot.D_BETA,
                        view.n(),
                        view.c(),
                        view.s(),
                        Slot.ACCUMULATE));
    }

    private KernelCall call(String kernel, long groups, List<Object> args) {
        return new KernelCall(
                "channels_first.cl", name(kernel), defines(), Range.of(groups * localSize, localSize), args);
    }

    private String name(String kernel) {
        return (localSize == 1 ? "wide_" : "cooperative_") + kernel;
    }

    private Map<String, String> defines() {
        return Defines.of(
                limits,
                "LOCAL_SIZE",
                localSize,
                "WIDTH",
                width,
                "SPAN",
                span,
                "STREAM",
                Walk.streams(view, limits, family));
    }
}
