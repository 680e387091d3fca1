package io.normcl.plan;

import static io.normcl.plan.Walk.ceilDiv;
import static io.normcl.plan.Walk.clamp;
import static io.normcl.plan.Walk.powerOfTwo;

import io.normcl.device.Limits;
import io.normcl.device.Limits.ReadsAhead;
import io.normcl.device.Range;
import io.normcl.tensor.ChannelView;
import java.util.List;
import java.util.Map;

/** The launches of {@code channels_first.cl}. */
record ChannelsFirst(
        ChannelView view,
        Form form,
        Limits limits,
        Family family,
        int stream,
        int localSize,
        int width,
        int span,
        int channels,
        long piece,
        long splits,
        long applyGroups,
        long k,
        long planes,
        Map<String, String> more)
        implements Walk {

    /** Planes longer than this are cut, so that work can be shared out where there are few of them. */
    private static final long LONGEST_PIECE = 16384;

    /** Neighbouring values that are worth a walk of their own. */
    private static final long LONG_RUN = 1024;

    private static final int MOST_NEIGHBOURS = 32;

    /** Bytes of a plane up to which, and planes of a channel from which on, no hardware sees a walk over them. */
    private static final long SHORT_PLANE = 8192;

    private static final long MANY_PLANES = 4;

    /** Bytes that a walk asks ahead: FETCH_AHEAD of {@code family.clh}. */
    private static final long AHEAD = 4096;

    static ChannelsFirst of(ChannelView view, Form form, Limits limits, Tuning tuning) {
        return of(view, 1, view.c(), Map.of(), form, limits, tuning);
    }

    /** The same walk for rows: planes of one statistic, planes (or rows) of a sample, the norm's defines. */
    static ChannelsFirst of(
            ChannelView view, long k, long planes, Map<String, String> more, Form form, Limits limits, Tuning tuning) {
        Family family = tuning.family(limits);
        boolean wide = family == Family.WIDE;
        int width = tuning.width(limits, view.s());
        int most = tuning.mostItems(limits);
        int localSize = wide ? 1 : Math.max(Math.min(64, most), powerOfTwo(ceilDiv(view.m(), 4L * width), most));
        long piece = form.masked() ? form.line() : Math.min(view.s(), LONGEST_PIECE);
        boolean whole = piece % 16 == 0;
        boolean flat = view.s() > 16 && piece == view.s() && !form.masked() && !varies(more); // FLAT of run.clh
        int span = powerOfTwo(ceilDiv(piece, width), localSize);
        long pieces = view.n() * ceilDiv(view.s(), piece);
        long pieceSteps = Walk.steps(piece, width, span);
        long mostSteps = Walk.mostSteps(limits) / span * localSize;
        long wanted = wide ? 8L * limits.computeUnits() : 4L * limits.computeUnits();
        long worthwhile = clamp(view.m() / (wide ? 4096 : 8L * localSize * width), 1, Math.min(pieces, 256));
        long cut = tuning.splits() != null
                ? Math.min(tuning.splits(), pieces)
                : clamp(ceilDiv(wanted, view.c()), 1, worthwhile);
        return new ChannelsFirst(
                view,
                form,
                limits,
                family,
                Walk.streams(view.elements(), whole || flat, form, limits, tuning),
                localSize,
                width,
                span,
                wide ? neighbours(view, limits) : 1,
                piece,
                Math.max(cut, ceilDiv(pieces * pieceSteps, mostSteps)),
                Math.max(
                        clamp(
                                ceilDiv(pieces * view.c(), localSize / span),
                                1,
                                (wide ? 16L : 32L) * limits.computeUnits()),
                        ceilDiv(pieces * view.c() * pieceSteps, mostSteps)),
                k,
                planes,
                more);
    }

    /** Whether gamma or the statistics vary along a plane. */
    private static boolean varies(Map<String, String> more) {
        return "1".equals(more.get("ELEMENTWISE")) || "1".equals(more.get("PER_PLACE"));
    }

    /** Channels with short planes are taken side by side, for a walk over memory that is worth the name. */
    private static int neighbours(ChannelView view, Limits limits) {
        int channels = 1;
        while (channels < MOST_NEIGHBOURS
                && view.s() * channels < LONG_RUN
                && view.c() % (2L * channels) == 0
                && view.c() / (2L * channels) >= 4L * limits.computeUnits()) {
            channels *= 2;
        }
        return channels;
    }

    /**
     * One group per channel must occupy the device. A CPU's core gains by one launch even where it holds a part of its
     * channel alone, since it goes back over it from the end; a GPU's groups in flight must fit half its cache.
     */
    @Override
    public boolean holds(int tensors) {
        long units = limits.computeUnits();
        boolean wide = family == Family.WIDE;
        long groups = wide ? 4 * units : units;
        long steps = channels * view.n() * Walk.steps(view.s(), width, span) / (localSize / span);
        boolean small = view.elements() <= 32_768;
        if (steps > Walk.mostSteps(limits)) {
            return false;
        }
        return small || (view.c() >= groups && (wide || near(tensors)));
    }

    @Override
    public boolean near(int tensors) {
        long bytes = channels * view.m() * form.type().bytes() * tensors;
        return family == Family.WIDE
                ? 2 * bytes <= Walk.NEAR_A_CORE
                : bytes * Math.min(view.c(), limits.computeUnits()) <= Walk.cache(limits) / 2;
    }

    /** Whether the caches hold the next channel beside the own, so that it can be asked for meanwhile. */
    private int both(int tensors) {
        return 2L * channels * view.m() * form.type().bytes() * tensors <= Walk.NEAR_A_CORE / 8 * 7 ? 1 : 0;
    }

    @Override
    public KernelCall statsPartial() {
        return call(
                "first_stats_partial",
                defines(),
                view.c() * splits,
                List.of(
                        Slot.X,
                        Slot.ADDEND,
                        Slot.SUM,
                        Slot.LENGTHS,
                        Slot.PARTIALS,
                        view.n(),
                        view.c(),
                        view.s(),
                        piece,
                        splits,
                        planes));
    }

    @Override
    public KernelCall apply() {
        return call(
                "first_apply",
                straight(1),
                applyGroups,
                List.of(
                        form.addend() ? Slot.SUM : Slot.X,
                        Slot.Z,
                        Slot.Y,
                        Slot.STATS,
                        Slot.GAMMA,
                        Slot.BETA,
                        Slot.LENGTHS,
                        view.n(),
                        view.c(),
                        view.s(),
                        piece,
                        k));
    }

    @Override
    public KernelCall forwardFused() {
        return call(
                "first_forward_fused",
                Defines.with(defines(), "CHANNELS", channels),
                view.c() / channels,
                List.of(
                        Slot.X,
                        Slot.Z,
                        Slot.Y,
                        Slot.STATS,
                        Slot.GAMMA,
                        Slot.BETA,
                        view.n(),
                        view.c(),
                        view.s(),
                        Slot.EPS,
                        both(1)));
    }

    @Override
    public KernelCall running() {
        return call(
                "first_running_tickets",
                straight(1),
                limits.computeUnits(),
                List.of(
                        Slot.X,
                        Slot.Z,
                        Slot.Y,
                        Slot.STATS,
                        Slot.RUNNING_MEAN,
                        Slot.RUNNING_VAR,
                        Slot.GAMMA,
                        Slot.BETA,
                        Slot.LENGTHS,
                        Slot.TICKETS,
                        view.n(),
                        view.c(),
                        view.s(),
                        piece,
                        applyGroups,
                        Slot.EPS));
    }

    @Override
    public KernelCall backwardPartial() {
        return call(
                "first_backward_partial",
                defines(),
                view.c() * splits,
                List.of(
                        Slot.X,
                        Slot.Z,
                        Slot.DY,
                        Slot.STATS,
                        Slot.GAMMA,
                        Slot.BETA,
                        Slot.LENGTHS,
                        Slot.PARTIALS,
                        view.n(),
                        view.c(),
                        view.s(),
                        piece,
                        splits,
                        k,
                        planes));
    }

    @Override
    public KernelCall backwardApply(boolean batchStats) {
        return call(
                "first_backward_apply",
                Defines.with(
                        Defines.with(straight(2), "BATCH_STATS", batchStats ? 1 : 0),
                        "STREAM",
                        stream == 1 && piece % 16 != 0 ? 2 : stream),
                applyGroups,
                List.of(
                        Slot.X,
                        Slot.Z,
                        Slot.DY,
                        Slot.DX,
                        Slot.DZ,
                        Slot.STATS,
                        Slot.SUMS,
                        Slot.GAMMA,
                        Slot.BETA,
                        Slot.LENGTHS,
                        view.n(),
                        view.c(),
                        view.s(),
                        piece,
                        k));
    }

    @Override
    public KernelCall backwardFused() {
        return call(
                "first_backward_fused",
                Defines.with(defines(), "CHANNELS", channels),
                view.c() / channels,
                List.of(
                        Slot.X,
                        Slot.Z,
                        Slot.DY,
                        Slot.DX,
                        Slot.DZ,
                        Slot.STATS,
                        Slot.GAMMA,
                        Slot.BETA,
                        Slot.D_GAMMA,
                        Slot.D_BETA,
                        view.n(),
                        view.c(),
                        view.s(),
                        Slot.ACCUMULATE,
                        both(2)));
    }

    private KernelCall call(String kernel, Map<String, String> defines, long groups, List<Object> args) {
        String name = (localSize == 1 ? "wide_" : "cooperative_") + kernel;
        return new KernelCall("channels_first.cl", name, defines, Range.of(groups * localSize, localSize), args);
    }

    /** Those of a kernel that walks straight through its inputs. */
    private Map<String, String> straight(int inputs) {
        return Defines.with(
                defines(), "FETCH", Walk.fetches(ReadsAhead.STRAIGHT, inputs, view.elements(), form, limits));
    }

    /** Whether a channel's planes are short and many, and what is asked for ahead is of the tensor. */
    private boolean apart() {
        long plane = view.s() * form.type().bytes();
        return view.n() >= MANY_PLANES && plane <= SHORT_PLANE && (channels > 1 || (view.n() - 1) * plane > AHEAD);
    }

    private Map<String, String> defines() {
        Map<String, String> own = Defines.of(
                limits,
                "LOCAL_SIZE",
                localSize,
                "WIDTH",
                width,
                "SPAN",
                span,
                "STREAM",
                stream,
                "FETCH",
                family == Family.WIDE && apart() ? 2 : 1);
        return Defines.with(Defines.with(own, form.defines()), more);
    }
}
