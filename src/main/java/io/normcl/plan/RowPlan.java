package io.normcl.plan;

import static io.normcl.plan.Walk.ceilDiv;
import static io.normcl.plan.Walk.clamp;
import static io.normcl.plan.Walk.powerOfTwo;

import io.normcl.device.Limits;
import io.normcl.device.Range;
import io.normcl.tensor.ChannelView;
import io.normcl.tensor.DataType;
import io.normcl.tensor.RowView;
import io.normcl.tensor.RowView.Order;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/**
 * The passes of layer, RMS, group and instance norm over a row view.
 *
 * <p>A pass takes one launch of {@code held.cl} where a GPU's registers hold rows of which each value has its own gamma;
 * one of {@code rows.cl} where rows stay near the compute units, whose work-groups take a block of rows each; one of {@code
 * channels_last.cl}, sample by sample, where channels stand last and a CPU's caches hold a sample. Else rows pass through
 * batch norm's kernels: partial results, their merge per row, and the pass that uses it. A norm per place takes the fused
 * kernels of {@code channels_last.cl}, to which places are channels. The sums for dGamma and dBeta come out of the
 * backward's pass where a GPU's registers hold rows or a CPU has rows enough, else out of one of their own.
 */
public final class RowPlan {
    /** Values of a row, of all tensors that are read, that one work-group of several work-items takes at most. */
    private static final long MOST_OF_A_ROW = 131_072;

    /** Values of a row up to which the compiler is told its lengths, and sixteen are taken together. */
    static final long SHORT_ROW = 64;

    /** The same of planes that are no whole vectors, which are better written together. */
    private static final long SHORT_PLANES = 384;

    /** Values that are worth a work-group; of a CPU's forward, once its cores have one each. */
    private static final long VALUES_OF_A_GROUP = 1024;

    private static final long VALUES_OF_A_GROUP_FORWARD_WIDE = 16_384;

    /** Samples that are worth sums of their own down the columns, which are four times as wide. */
    private static final long ROWS_OF_SUMS = 32;

    /** Columns that a CPU's work-item takes in such a pass, as long as its second cache holds their sums. */
    private static final long LONGEST_TILE = 4096;

    private static final long SHORTEST_TILE = 1024;

    /** Rows of a block in a pass of its own down the columns, on a CPU and on a GPU. */
    private static final long COLUMN_HEIGHT_WIDE = 8;

    private static final long COLUMN_HEIGHT = 4;

    private final RowView view;
    private final RowRule rule;
    private final Form form;
    private final Limits limits;
    private final Tuning tuning;
    private final boolean wide;
    private final boolean elementwise;
    private final Map<String, String> defines;
    private final long k;
    private final long c;
    private final long s;
    private final long planes;
    private final int width;
    private final int span;
    private final int localSize;
    private final long atOnce;
    private final RowsAtOnce abreast;

    private RowPlan(RowView view, RowRule rule, Form form, Limits limits, Tuning tuning) {
        this.view = view;
        this.rule = rule;
        this.form = form;
        this.limits = limits;
        this.tuning = tuning;
        wide = tuning.family(limits) == Family.WIDE;
        elementwise = view.s() == 1 && !form.masked(); // sums down the columns know no lengths
        defines = Defines.with(rule.defines(), "ELEMENTWISE", elementwise ? 1 : 0);
        k = elementwise ? 1 : view.runs();
        c = elementwise ? view.groups() : view.affine();
        s = elementwise ? view.runs() : view.s();
        planes = view.n() * c;
        width = tuning.width(limits, s);
        int most = tuning.mostItems(limits);
        long along = Math.max(s, Math.min(view.d(), 32));
        span = Math.max(
                powerOfTwo(ceilDiv(along, width), Math.min(32, most)), powerOfTwo(ceilDiv(along, 4L * width), most));
        localSize = Math.max(span, Math.min(64, most));
        atOnce = localSize / span;
        abreast = RowsAtOnce.of(s, s % width == 0, c, rule, form.type(), limits);
    }

    /**
     * The forward.
     *
     * @param view the tensor, not empty
     * @param rule the norm
     * @param form how it is stored and what is fused
     * @param limits the device
     * @param tuning what to override
     * @return one call, or three: partial, finalize, apply
     */
    public static Plan forward(RowView view, RowRule rule, Form form, Limits limits, Tuning tuning) {
        return new RowPlan(view, rule, form, limits, tuning).forward();
    }

    /**
     * The backward. The finalize of dGamma and dBeta uses {@link Slot#SUMS} too, which therefore holds as many pairs as
     * there are rows and as there are values of gamma.
     *
     * @param view the tensor, not empty
     * @param rule the norm
     * @param form how it is stored and what is fused
     * @param limits the device
     * @param tuning what to override
     * @param dx whether the gradient of the input is wanted
     * @param parameters whether the gradient of gamma or beta is wanted
     * @return the calls, without those that nothing needs
     */
    public static Plan backward(
            RowView view, RowRule rule, Form form, Limits limits, Tuning tuning, boolean dx, boolean parameters) {
        return new RowPlan(view, rule, form, limits, tuning).backward(dx, parameters);
    }

    /**
     * The mean and the unbiased variance of each channel, averaged over the samples, where a row is a channel of a
     * sample.
     *
     * @param view the tensor
     * @param form whether it has lengths
     * @param limits the device
     * @return one call; it writes {@link Slot#AVERAGES}
     */
    public static Plan average(RowView view, Form form, Limits limits) {
        KernelCall call = ChannelPlan.perChannel(
                "channel_stats_average",
                form.masked() ? Map.of("MASKED", "1") : Map.of(),
                view.groups(),
                limits,
                List.of(Slot.STATS, Slot.LENGTHS, Slot.AVERAGES, view.groups(), view.n(), lines(view.d(), form)));
        return new Plan(List.of(call), 1, 0, 16 * view.rows());
    }

    /** What a sample's length is multiplied by to give the values of a row; without lengths, the values. */
    private static long lines(long d, Form form) {
        return form.masked() ? d / form.line() : d;
    }

    private Plan forward() {
        if (view.order() == Order.PER_PLACE) {
            return new Plan(List.of(perPlace().forwardFused()), 1, 0, form.forwardBytes(view.elements(), 2));
        }
        if (inRegisters()) {
            return new Plan(List.of(heldRows().forward()), 1, 0, form.forwardBytes(view.elements(), 2));
        }
        if (held(1)) {
            KernelCall call = rows(
                    "rows_forward_fused",
                    false,
                    forwardGroups(),
                    List.of(
                            Slot.X,
                            Slot.ADDEND,
                            Slot.SUM,
                            Slot.Z,
                            Slot.Y,
                            Slot.STATS,
                            Slot.GAMMA,
                            Slot.BETA,
                            view.rows(),
                            c,
                            k,
                            s,
                            Slot.EPS));
            return new Plan(List.of(call), 1, 0, form.forwardBytes(view.elements(), 2));
        }
        boolean last = view.order() == Order.CHANNELS_LAST;
        if (last && fusedSamples(1)) {
            int passes = last().nearSample(1) ? 2 : 3;
            return new Plan(List.of(last().rowsForwardFused()), 1, 0, form.forwardBytes(view.elements(), passes));
        }
        Walk stats = last
                ? last()
                : ChannelsFirst.of(
                        new ChannelView(1, view.rows(), view.d(), false),
                        1,
                        view.groups(),
                        defines,
                        form,
                        limits,
                        tuning);
        long parts = last ? k : 1;
        KernelCall merge = ChannelPlan.merged(
                "channel_stats_finalize",
                rule.defines(),
                view.rows(),
                parts * stats.splits(),
                limits,
                tuning,
                List.of(Slot.PARTIALS, Slot.STATS, view.rows(), parts, stats.splits(), Slot.EPS));
        return new Plan(
                List.of(stats.statsPartial(), merge, (last ? stats : inPlanes()).apply()),
                stats.splits(),
                8L * ChannelPlan.FORWARD_PARTIAL * stats.splits() * view.rows() * parts,
                form.forwardBytes(view.elements(), 3));
    }

    private Plan backward(boolean dx, boolean parameters) {
        if (view.order() == Order.PER_PLACE) {
            return perPlaceBackward(dx, parameters);
        }
        if (dx && view.order() == Order.CHANNELS_LAST && fusedSamples(2)) {
            return withParameterSums(last().rowsBackwardFused(), view.n(), parameters, last().nearSample(2));
        }
        if (dx && inRegisters() && (c == 1 || !parameters)) {
            HeldRows rows = heldRows();
            return withParameterSums(rows.backward(parameters), parameters ? rows.splits() : 0, parameters, true);
        }
        boolean held = held(2);
        if (dx && held && (!elementwise || (parameters && inOnePass()))) {
            return heldTogether(parameters);
        }
        List<KernelCall> calls = new ArrayList<>();
        long workspace = 0;
        int passes = 0;
        int reads = 0;
        if (elementwise && parameters) {
            workspace = columns(calls);
            passes += 2;
            reads++;
        }
        if (dx && (held || inRegisters())) {
            calls.add(inRegisters() ? heldRows().backward(false) : backwardFused(false, groups(wantedGroups(1))));
            passes += 3;
            reads++;
        } else if (dx || (parameters && !elementwise)) {
            Walk sums = view.order() == Order.CHANNELS_LAST ? last() : eachPlane(defines);
            workspace = Math.max(workspace, partials(sums.splits() * planes));
            calls.add(sums.backwardPartial());
            if (parameters && !elementwise) {
                calls.add(parameterSums(sums.splits() * view.n()));
            }
            if (dx) {
                calls.add(rowSums(sums.splits()));
                calls.add((view.order() == Order.CHANNELS_LAST ? sums : inPlanes()).backwardApply(true));
            }
            passes += dx ? 5 : 2;
            reads += dx ? 2 : 1;
        }
        return new Plan(calls, 1, workspace, form.backwardBytes(view.elements(), passes, reads));
    }

    private Plan perPlaceBackward(boolean dx, boolean parameters) {
        List<KernelCall> calls = new ArrayList<>();
        long workspace = 0;
        if (parameters) {
            Walk sums = eachPlane(Defines.with(defines, "PER_PLACE", 1));
            workspace = partials(sums.splits() * planes);
            calls.add(sums.backwardPartial());
            calls.add(parameterSums(sums.splits() * view.n()));
        }
        if (dx) {
            calls.add(perPlace().backwardFused());
        }
        return new Plan(
                calls,
                1,
                workspace,
                form.backwardBytes(
                        view.elements(), (parameters ? 2 : 0) + (dx ? 3 : 0), (parameters ? 1 : 0) + (dx ? 1 : 0)));
    }

    /** dx and the partial sums for dGamma and dBeta in one pass; where gamma is per run, the pass has them anyway. */
    private Plan heldTogether(boolean parameters) {
        long groups = elementwise ? columnGroups() : groups(wantedGroups(1));
        long splits = elementwise ? groups : view.n();
        long inFlight = elementwise ? 2 * abreast.backward() : 1; // rows that are written, and those that come next
        boolean near = inFlight * 2 * view.d() * form.type().bytes() * limits.computeUnits() <= Walk.cache(limits) / 2;
        return withParameterSums(backwardFused(true, groups), splits, parameters, near);
    }

    /** A backward in one launch, and the merge of its partial sums for dGamma and dBeta where they are wanted. */
    private Plan withParameterSums(KernelCall pass, long splits, boolean parameters, boolean near) {
        long partials = partials(splits * view.affine());
        boolean floats =
                wide && elementwise && limits.fp64() && form.type() != DataType.FLOAT; // behind them, half as wide
        return new Plan(
                parameters ? List.of(pass, parameterSums(splits)) : List.of(pass),
                1,
                floats ? partials / 2 * 3 : partials,
                form.backwardBytes(view.elements(), near ? 3 : 5, near ? 1 : 2));
    }

    /** Whether channels that stand last are taken sample by sample. */
    private boolean fusedSamples(int tensors) {
        return tuning.fused() != null ? tuning.fused() && wide && !form.masked() : last().holdsSamples(tensors);
    }

    /** A CPU's cores must have blocks of rows each. */
    private boolean inOnePass() {
        return wide && view.n() / abreast.backward() >= limits.computeUnits();
    }

    /** Sums down the columns: dGamma and dBeta where each value of a row has its own. */
    private long columns(List<KernelCall> calls) {
        long wanted = ceilDiv((wide ? 8L : 4L) * limits.computeUnits(), c);
        long vector = (long) span * width;
        long tiles = wide ? Math.max(ceilDiv(s, LONGEST_TILE), Math.min(wanted, s / SHORTEST_TILE)) : 1;
        long most = clamp(view.n() / (columnHeight() * atOnce), 1, 4096);
        long cut = tuning.splits() != null ? tuning.splits() : ceilDiv(wanted, tiles);
        long splits = clamp(Math.max(cut, Walk.leastGroups(view.elements(), limits)), 1, most);
        long tile = ceilDiv(ceilDiv(s, Math.max(tiles, ceilDiv(wanted, splits))), vector) * vector;
        calls.add(rows(
                "rows_columns_partial",
                false,
                ceilDiv(s, tile) * c * splits,
                List.of(
                        Slot.X,
                        Slot.Z,
                        Slot.DY,
                        Slot.STATS,
                        Slot.GAMMA,
                        Slot.BETA,
                        Slot.PARTIALS,
                        view.rows(),
                        c,
                        s,
                        tile,
                        splits)));
        calls.add(parameterSums(splits * atOnce));
        return partials(splits * atOnce * view.affine());
    }

    private long columnHeight() {
        return wide ? COLUMN_HEIGHT_WIDE : COLUMN_HEIGHT;
    }

    private KernelCall backwardFused(boolean parameters, long groups) {
        return rows(
                "rows_backward_fused",
                parameters,
                groups,
                List.of(
                        Slot.X,
                        Slot.Z,
                        Slot.DY,
                        Slot.DX,
                        Slot.DZ,
                        Slot.STATS,
                        Slot.GAMMA,
                        Slot.BETA,
                        Slot.PARTIALS,
                        view.rows(),
                        c,
                        k,
                        s));
    }

    private KernelCall parameterSums(long splits) {
        return ChannelPlan.merged(
                "channel_backward_finalize",
                Map.of(),
                view.affine(),
                splits,
                limits,
                tuning,
                List.of(
                        Slot.PARTIALS,
                        Slot.SUMS,
                        Slot.D_GAMMA,
                        Slot.D_BETA,
                        view.affine(),
                        splits,
                        view.d(),
                        Slot.ACCUMULATE));
    }

    private KernelCall rowSums(long splits) {
        return ChannelPlan.merged(
                "row_backward_finalize",
                form.masked() ? Defines.with(defines, "MASKED", 1) : defines,
                view.rows(),
                splits * k,
                limits,
                tuning,
                List.of(
                        Slot.PARTIALS,
                        Slot.GAMMA,
                        Slot.LENGTHS,
                        Slot.SUMS,
                        view.rows(),
                        c,
                        k,
                        splits,
                        lines(view.d(), form)));
    }

    /** Rows must be neighbouring values and occupy the device, and one for each unit must fit half its cache. */
    private boolean held(int tensors) {
        Boolean wanted = tuning.fused();
        if (view.order() != Order.ROWS || form.masked() || wanted != null) {
            return view.order() == Order.ROWS && !form.masked() && wanted != null && wanted;
        }
        long units = limits.computeUnits();
        long rowBytes = view.d() * form.type().bytes() * tensors;
        boolean small = view.elements() <= 32_768;
        return Walk.steps(view.d(), width, span) <= Walk.mostSteps(limits)
                && (small
                        || (view.rows() >= (wide ? 4L : 1L) * units
                                && rowBytes * Math.min(view.rows(), units) <= Walk.cache(limits) / 2
                                && (wide || view.d() * tensors <= MOST_OF_A_ROW)));
    }

    /**
     * Among how many work-groups a forward's rows are shared out. A CPU's are small, since its second core often wakes up late,
     * but each begins with sums alone, ends with writing alone, and takes a lock of PoCL's.
     */
    private long forwardGroups() {
        long worthwhile = Math.max(limits.computeUnits(), view.elements() / VALUES_OF_A_GROUP_FORWARD_WIDE);
        return groups(wide ? Math.min(wantedGroups(4), worthwhile) : wantedGroups(1));
    }

    private long groups(long wanted) {
        return Walk.groups(wanted, ceilDiv(view.rows(), atOnce), view.elements(), limits, tuning);
    }

    private long wantedGroups(int times) {
        return Math.min((wide ? 8L : 32L) * times * limits.computeUnits(), view.elements() / VALUES_OF_A_GROUP);
    }

    /** Those of a backward that each keep sums of their own down the columns, few beside the rows: as many for each core. */
    private long columnGroups() {
        long units = limits.computeUnits();
        long wanted = Math.max(1, view.n() / ROWS_OF_SUMS / units) * units;
        return Walk.groups(
                Math.min(wantedGroups(1), wanted), view.n() / abreast.backward(), view.elements(), limits, tuning);
    }

    /** Whether a GPU's registers hold rows of which each value has its own gamma. */
    private boolean inRegisters() {
        return !wide
                && elementwise
                && view.order() == Order.ROWS
                && !Boolean.FALSE.equals(tuning.fused())
                && heldRows().fits();
    }

    private HeldRows heldRows() {
        return HeldRows.of(view.rows(), c, s, defines, form, limits, tuning);
    }

    /** Every plane, or row, as a channel of its own. */
    private Walk eachPlane(Map<String, String> more) {
        return ChannelsFirst.of(new ChannelView(1, planes, s, false), k, c, more, form, limits, tuning);
    }

    private Walk inPlanes() {
        return ChannelsFirst.of(new ChannelView(view.n(), c, s, false), k, c, defines, form, limits, tuning);
    }

    private ChannelsLast last() {
        return ChannelsLast.of(new ChannelView(1, c, s, true), view.n(), k, defines, form, limits, tuning);
    }

    /** Each group of a sample as a tensor (K, S) of its own. */
    private Walk perPlace() {
        return ChannelsLast.of(
                new ChannelView(1, s, k, true),
                view.n() * view.groups(),
                view.groups(),
                Defines.with(defines, "ROW_AFFINE", 1),
                form,
                limits,
                tuning);
    }

    private KernelCall rows(String kernel, boolean parameters, long groups, List<Object> args) {
        Map<String, String> own = Defines.of(
                limits,
                "LOCAL_SIZE",
                localSize,
                "WIDTH",
                width,
                "SPAN",
                span,
                "HEIGHT",
                parameters ? abreast.backward() : columnHeight(),
                "PARAMETERS",
                parameters ? 1 : 0,
                "MEANWHILE",
                abreast.meanwhile() ? 1 : 0,
                "BESIDE",
                localSize == 1 && elementwise ? abreast.forward() : 1,
                "STREAM",
                Walk.streams(view.elements(), s % 16 == 0 || (!elementwise && s > 16), form, limits, tuning));
        if (isShort()) {
            own = Defines.with(
                    own, Defines.of(limits, "SHORT", 1, "GROUPS", elementwise ? c : 1, "PLANES", k, "PLANE", s));
        }
        String name = (localSize == 1 ? "wide_" : "cooperative_") + kernel;
        return new KernelCall(
                "rows.cl",
                name,
                Defines.with(Defines.with(own, form.defines()), defines),
                Range.of(groups * localSize, localSize),
                args);
    }

    /** Whether one work-item alone takes rows, with doubles, that are worth kernels of their own. */
    private boolean isShort() {
        long most = elementwise || s % width == 0 ? SHORT_ROW : SHORT_PLANES;
        return localSize == 1 && limits.fp64() && k * s <= most;
    }

    private static long partials(long count) {
        return 8L * ChannelPlan.BACKWARD_PARTIAL * count;
    }
}
