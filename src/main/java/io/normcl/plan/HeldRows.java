package io.normcl.plan;

import static io.normcl.plan.Walk.ceilDiv;
import static io.normcl.plan.Walk.powerOfTwo;

import io.normcl.device.Limits;
import io.normcl.device.Range;
import java.util.List;
import java.util.Map;

/** The launches of {@code held.cl}, over rows of s values of which each has its own gamma. */
record HeldRows(
        long rows,
        long c,
        long s,
        Form form,
        Limits limits,
        Tuning tuning,
        int width,
        int span,
        int vectors,
        Map<String, String> more) {
    /** Values of a row, of each tensor, that a work-item holds in registers. */
    private static final int HELD = 16;

    /** Work-items that hold a row together, at most, where tuning has no say. */
    private static final int MOST_HOLDING = 512;

    /** Work-items of a group that holds several rows: few, or as many as add up columns together. */
    private static final int ITEMS = 64;

    private static final int ITEMS_ADDING = 256;

    /** Vectors that a compute unit asks for at once where its memory is kept busy. */
    private static final long IN_FLIGHT = 2048;

    /** The walk over rows, the planes of gamma that they take in turn, their values, and the norm's defines. */
    static HeldRows of(long rows, long c, long s, Map<String, String> more, Form form, Limits limits, Tuning tuning) {
        int width = tuning.width(limits, s);
        int most = mostItems(limits, tuning);
        int span = Math.max(powerOfTwo(ceilDiv(s, width), Math.min(32, most)), powerOfTwo(ceilDiv(s, HELD), most));
        int vectors = (int) Math.min(HELD + 1, ceilDiv(s, (long) span * width)); // more don't fit in any case
        return new HeldRows(rows, c, s, form, limits, tuning, width, span, vectors, more);
    }

    private static int mostItems(Limits limits, Tuning tuning) {
        return tuning.items() != null
                ? tuning.mostItems(limits)
                : (int) Long.highestOneBit(Math.min(MOST_HOLDING, limits.maxWorkGroupSize()));
    }

    /** Whether registers hold a row. */
    boolean fits() {
        return vectors * width <= HELD;
    }

    /** Partial results of each column: as many groups as keep the memory busy, each with one. */
    long splits() {
        int items = items(true);
        return groups(items, true);
    }

    KernelCall forward() {
        int items = items(false);
        return call(
                "cooperative_held_forward",
                false,
                items,
                groups(items, false),
                List.of(
                        Slot.X,
                        Slot.ADDEND,
                        Slot.SUM,
                        Slot.Z,
                        Slot.Y,
                        Slot.STATS,
                        Slot.GAMMA,
                        Slot.BETA,
                        rows,
                        c,
                        s,
                        Slot.EPS));
    }

    /** With partial results for dGamma and dBeta, which need c = 1, or without. */
    KernelCall backward(boolean parameters) {
        int items = items(parameters);
        return call(
                "cooperative_held_backward",
                parameters,
                items,
                groups(items, parameters),
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
                        rows,
                        c,
                        s));
    }

    /** Work-items of a group; their columns take half of the local memory at most. */
    private int items(boolean parameters) {
        int items = Math.max(span, Math.min(parameters ? ITEMS_ADDING : ITEMS, mostItems(limits, tuning)));
        while (parameters && items > span && 2 * 16L * items * width > limits.localMemoryBytes()) {
            items /= 2;
        }
        return items;
    }

    private long groups(int items, boolean parameters) {
        long units = limits.computeUnits();
        long wanted = parameters
                ? units * Math.max(1, IN_FLIGHT / ((long) items * vectors))
                : Math.min(32 * units, rows * s / 1024);
        return Walk.groups(wanted, ceilDiv(rows, items / span), rows * s, limits, tuning);
    }

    private KernelCall call(String kernel, boolean parameters, int items, long groups, List<Object> args) {
        Map<String, String> own = Defines.of(
                limits,
                "LOCAL_SIZE",
                items,
                "SPAN",
                span,
                "WIDTH",
                width,
                "VECTORS",
                vectors,
                "PARAMETERS",
                parameters ? 1 : 0);
        return new KernelCall(
                "held.cl",
                kernel,
                Defines.with(Defines.with(own, form.defines()), more),
                Range.of(groups * items, items),
                args);
    }
}
