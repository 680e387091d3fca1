package io.normcl.plan;

import static io.normcl.plan.Walk.ceilDiv;
import static io.normcl.plan.Walk.clamp;
import static io.normcl.plan.Walk.powerOfTwo;

import io.normcl.device.Limits;
import io.normcl.device.Limits.ReadsAhead;
import io.normcl.device.Range;
import io.normcl.tensor.ChannelView;
import io.normcl.tensor.DataType;
import java.util.List;
import java.util.Map;

/** The launches of {@code channels_last.cl}. */
record ChannelsLast(
        ChannelView view,
        Form form,
        Limits limits,
        int stream,
        int localSize,
        int width,
        int lanes,
        int vectors,
        long columns,
        long rowSplits,
        long applySplits,
        long samples,
        long k,
        boolean tickets,
        Map<String, String> more)
        implements Walk {

    /** What so many vectors of columns are summed in and normalized with leaves room in a CPU's first cache. */
    private static final int MOST_VECTORS = 64;

    /** So many stay in registers, sums and what they are normalized with. */
    private static final int FEW_VECTORS = 4;

    /** Tiles of at least so many are worth being taken in one launch, as many by each of a CPU's cores. */
    private static final int LEAST_VECTORS = 40;

    /** The same where few columns make a tensor: they are shared out. */
    private static final int MOST_VECTORS_FUSED = 32;

    /** The same where nothing is summed. */
    private static final int MOST_VECTORS_RUNNING = 128;

    /** Bytes of a tensor that are worth a part, for which what it is normalized with may be computed anew. */
    private static final long LEAST_PART = 65_536;

    /** Rows of so many bytes may be taken in tiles of so many, so that the caches hold a tile's channels until they are written. */
    private static final long LONG_ROW = 8192;

    private static final long NARROW_TILE = 1024;

    /** Columns that make a row worth a CPU's work-item. */
    private static final long ROW = 256;

    /** Channels that stand last, or first with few places, which are a channel's neighbouring columns. */
    static ChannelsLast of(ChannelView view, Form form, Limits limits, Tuning tuning) {
        return of(view, 1, view.channelsLast() ? 1 : view.s(), Map.of(), form, limits, tuning);
    }

    /** Whether channels that stand first, with at most so many places, may be walked as columns: by a CPU. */
    static boolean takesPlaces(long most, ChannelView view, Form form, Limits limits, Tuning tuning) {
        return view.s() <= most
                && tuning.family(limits) == Family.WIDE
                && !Boolean.TRUE.equals(tuning.fused())
                && !form.masked();
    }

    /** The same walk for rows: a sample's view, how many there are, the channels that share statistics, defines. */
    static ChannelsLast of(
            ChannelView view, long samples, long k, Map<String, String> more, Form form, Limits limits, Tuning tuning) {
        boolean wide = tuning.family(limits) == Family.WIDE;
        long c = view.channelsLast() ? view.c() : view.c() * view.s();
        int width = tuning.width(limits, wide && !form.masked() ? ROW : c); // few channels are repeated side by side
        int most = (int) Math.min(tuning.mostItems(limits), Math.max(1, itemsOfTrees(width, limits)));
        boolean large = view.elements() >= 64 * ROW * ceilDiv(4L * limits.computeUnits(), samples);
        long columns = form.masked() ? c : c * repeats(c, view.elements() / c, wide, large ? ROW : 64);
        int lanes = powerOfTwo(ceilDiv(columns, width), Math.min(64, most));
        int vectors = wide ? vectors(ceilDiv(columns, width), limits.computeUnits()) : 1;
        long rows = ceilDiv(view.elements(), columns);
        long tiles = ceilDiv(columns, (long) lanes * width * vectors);
        long atOnce = Math.max(1, most / lanes);
        long wanted = ceilDiv(4L * limits.computeUnits(), tiles * samples);
        long wantedApply = wide ? ceilDiv(16L * limits.computeUnits(), tiles * samples) : 4 * wanted;
        long least = ceilDiv(ceilDiv(rows, atOnce), Math.max(1, Walk.mostSteps(limits) / vectors));
        long cut = tuning.splits() != null
                ? Math.min(tuning.splits(), ceilDiv(rows, atOnce))
                : clamp(wanted, 1, clamp(rows / (16 * atOnce), 1, 256));
        return new ChannelsLast(
                view,
                form,
                limits,
                Walk.streams(view.elements() * samples, columns % 16 == 0, form, limits, tuning),
                most,
                width,
                wide ? 1 : lanes,
                wide ? vectors : 1,
                columns,
                Math.max(cut, least),
                Math.max(clamp(wantedApply, 1, Math.max(1, rows / (2 * atOnce))), least),
                samples,
                k,
                samples == 1 && Walk.takesTickets(limits, tuning),
                more);
    }

    /** Vectors of a tile, of so many in a row: equal tiles, and as many for each core if that makes them no narrower than is good. */
    private static int vectors(long all, int cores) {
        if (all <= MOST_VECTORS) {
            return all <= FEW_VECTORS ? (int) all : powerOfTwo(all, MOST_VECTORS);
        }
        long least = ceilDiv(all, MOST_VECTORS);
        for (long tiles = ceilDiv(least, cores) * cores; all >= tiles * LEAST_VECTORS; tiles += cores) {
            if (all % tiles == 0) {
                return (int) (all / tiles);
            }
        }
        return (int) ceilDiv(all, least);
    }

    /** Work-items whose trees take half of the local memory: two reals for each value of a vector. */
    private static long itemsOfTrees(int width, Limits limits) {
        return Long.highestOneBit(limits.localMemoryBytes() / 2 / (16L * width));
    }

    /**
     * How often C channels are repeated side by side: as often as makes few whole vectors, else until a row is long enough; 1
     * where rows are too few.
     */
    private static long repeats(long c, long rows, boolean wide, long enough) {
        long repeats = wide ? FEW_VECTORS * 16 / c : 0;
        while (repeats > 0 && c * repeats % 16 != 0) {
            repeats--;
        }
        if (repeats == 0) {
            long least = wide ? enough : 32;
            do {
                repeats++;
            } while (c * repeats < least || (c < Math.min(least, 64) && c * repeats % 16 != 0));
        }
        return rows < 8 * repeats ? 1 : repeats;
    }

    @Override
    public long splits() {
        return rowSplits * (columns / view.c());
    }

    /**
     * Small enough that a launch costs more than the work, and not so narrow that most of a vector would idle; or whole
     * tiles, about a page of floats of each row, equally many for each of a CPU's cores, whose caches hold them in part. Those of
     * half a page or less take up to twice as long as rows, but where rows are long ({@link #narrow}).
     */
    @Override
    public boolean holds(int tensors) {
        if (!view.channelsLast()) {
            return false;
        }
        boolean small = view.elements() * tensors <= 65_536 && (view.c() >= width || view.m() <= 256);
        return small || wholeVectors(tensors) > 0;
    }

    /** Vectors of the tiles of which each core takes equally many, from sums to what is written; 0 where that doesn't pay. */
    private int wholeVectors(int tensors) {
        int narrow = (int) vectorsOf(bytes(2) < lastCache() ? NARROW_TILE : NARROW_TILE / 2);
        int own = narrow(tensors) && forEachCore(narrow) ? narrow : wide(tensors) && forEachCore(vectors) ? vectors : 0;
        return localSize == 1 && view.m() * own <= Walk.mostSteps(limits) ? own : 0;
    }

    private boolean forEachCore(int own) {
        return view.c() % (limits.computeUnits() * tile(own)) == 0;
    }

    /** A forward gains by wide ones beyond the caches too; a backward of larger tensors goes by steps. */
    private boolean wide(int tensors) {
        long atOnce = limits.computeUnits() * tile();
        return vectors >= LEAST_VECTORS
                && (tensors == 1 || atOnce * view.m() * form.type().bytes() * tensors < lastCache());
    }

    /**
     * A backward of floats gains by narrow ones where a core's caches hold what it reads of one, and the last cache just holds
     * the tensors; by tiles of half the width where it doesn't. Forwards don't gain, nor do 16 bits.
     */
    private boolean narrow(int tensors) {
        return tensors == 2
                && tickets
                && form.type() == DataType.FLOAT
                && longRows()
                && 2 * NARROW_TILE * view.m() * limits.computeUnits() <= Walk.cache(limits)
                && 2 * bytes(2) >= lastCache();
    }

    private long vectorsOf(long bytes) {
        return bytes / ((long) width * form.type().bytes());
    }

    /** Rows of whole vectors that are worth being cut into narrow tiles. */
    private boolean longRows() {
        return columns == view.c()
                && columns % width == 0
                && columns * form.type().bytes() >= LONG_ROW;
    }

    @Override
    public boolean near(int tensors) {
        return bytes(tensors) <= Walk.cache(limits) / 2;
    }

    @Override
    public KernelCall statsPartial() {
        return call(
                "last_stats_partial",
                defines(1),
                tiles() * rowSplits * samples,
                List.of(
                        Slot.X,
                        Slot.LENGTHS,
                        Slot.PARTIALS,
                        view.elements(),
                        columns,
                        view.c(),
                        k,
                        samples,
                        rowSplits,
                        line(),
                        places()));
    }

    @Override
    public KernelCall apply() {
        return call(
                "last_apply",
                defines(1),
                tiles() * applySplits * samples,
                List.of(
                        Slot.X,
                        Slot.Z,
                        Slot.Y,
                        Slot.STATS,
                        Slot.GAMMA,
                        Slot.BETA,
                        Slot.LENGTHS,
                        view.elements(),
                        columns,
                        view.c(),
                        k,
                        applySplits,
                        line(),
                        places()));
    }

    @Override
    public KernelCall forwardFused() {
        return fused(
                "last_forward_fused",
                1,
                List.of(
                        Slot.X,
                        Slot.Z,
                        Slot.Y,
                        Slot.STATS,
                        Slot.GAMMA,
                        Slot.BETA,
                        Slot.TICKETS,
                        view.elements(),
                        view.c(),
                        k,
                        Slot.EPS));
    }

    @Override
    public KernelCall running() {
        long all = ceilDiv(columns, width);
        int own = all <= MOST_VECTORS ? vectors : (int) ceilDiv(all, ceilDiv(all, MOST_VECTORS_RUNNING));
        long worth = ceilDiv(bytes(1), LEAST_PART * tiles(own));
        long parts = Math.min(ceilDiv(applySplits * tiles(), tiles(own)), worth);
        return call(
                "last_running_fused",
                Defines.with(defines(1, own), "LOW_MEANS", 0),
                Math.min(limits.computeUnits(), tiles(own) * parts),
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
                        view.elements(),
                        columns,
                        view.c(),
                        k,
                        parts,
                        line(),
                        places(),
                        Slot.EPS,
                        Slot.TICKETS));
    }

    /** All steps of a forward in one launch, of tensors that no compute unit holds a part of. */
    KernelCall forwardTickets() {
        return call(
                "last_forward_tickets",
                defines(1),
                limits.computeUnits(),
                List.of(
                        Slot.X,
                        Slot.Z,
                        Slot.Y,
                        Slot.STATS,
                        Slot.GAMMA,
                        Slot.BETA,
                        Slot.LENGTHS,
                        Slot.PARTIALS,
                        Slot.TICKETS,
                        view.elements(),
                        columns,
                        view.c(),
                        k,
                        rowSplits,
                        applySplits,
                        line(),
                        places(),
                        Slot.COUNT,
                        Slot.EPS));
    }

    /** How a backward's steps follow each other: tiles of so many vectors, so many of them at once, each in so many parts. */
    private record Blocks(int vectors, long beside, long splits, long applies) {}

    /** Long rows of whole vectors, many of them: the channels of as many narrow tiles at once as the caches hold; else all tiles. */
    private Blocks blocks() {
        if (k != 1 || !longRows() || bytes(2) < lastCache()) {
            return new Blocks(vectors, tiles(), rowSplits, applySplits);
        }
        int own = (int) vectorsOf(NARROW_TILE);
        long all = tiles(own);
        long beside = clamp(Walk.cache(limits) / 2 / (2 * NARROW_TILE * view.m()), 1, all);
        while (all % beside != 0) {
            beside--;
        }
        return new Blocks(
                own, beside, shared(rowSplits, beside, view.m() / 16), shared(applySplits, beside, view.m() / 2));
    }

    /** So many parts of all tiles shared out among as many as are taken at once. */
    private long shared(long parts, long beside, long most) {
        return Math.max(parts, Math.min(ceilDiv(parts * tiles(), beside), most));
    }

    /** The same of a backward. */
    KernelCall backwardTickets() {
        Blocks blocks = blocks();
        return call(
                "last_backward_tickets",
                defines(2, blocks.vectors()),
                limits.computeUnits(),
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
                        Slot.D_GAMMA,
                        Slot.D_BETA,
                        Slot.LENGTHS,
                        Slot.PARTIALS,
                        Slot.TICKETS,
                        view.elements(),
                        columns,
                        view.c(),
                        k,
                        blocks.beside(),
                        blocks.splits(),
                        blocks.applies(),
                        line(),
                        places(),
                        Slot.COUNT,
                        Slot.ACCUMULATE));
    }

    long forwardTicketBytes() {
        return ticketBytes(vectors, rowSplits);
    }

    long backwardTicketBytes() {
        Blocks blocks = blocks();
        return ticketBytes(blocks.vectors(), blocks.splits());
    }

    /** Bytes of the sums that such steps hand on: two reals for each column of a whole tile. */
    private long ticketBytes(int vectors, long splits) {
        return 8 * 2 * splits * tiles(vectors) * tile(vectors);
    }

    @Override
    public KernelCall backwardPartial() {
        return call(
                "last_backward_partial",
                defines(2),
                tiles() * rowSplits * samples,
                List.of(
                        Slot.X,
                        Slot.Z,
                        Slot.DY,
                        Slot.STATS,
                        Slot.GAMMA,
                        Slot.BETA,
                        Slot.LENGTHS,
                        Slot.PARTIALS,
                        view.elements(),
                        columns,
                        view.c(),
                        k,
                        samples,
                        rowSplits,
                        line(),
                        places()));
    }

    @Override
    public KernelCall backwardApply(boolean batchStats) {
        return call(
                "last_backward_apply",
                Defines.with(defines(2), "BATCH_STATS", batchStats ? 1 : 0),
                tiles() * applySplits * samples,
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
                        view.elements(),
                        columns,
                        view.c(),
                        k,
                        applySplits,
                        line(),
                        places()));
    }

    @Override
    public KernelCall backwardFused() {
        return fused(
                "last_backward_fused",
                2,
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
                        Slot.D_GAMMA,
                        Slot.D_BETA,
                        Slot.TICKETS,
                        view.elements(),
                        view.c(),
                        k,
                        Slot.ACCUMULATE));
    }

    /** Each sample by a work-group of its own, which needs {@link #holdsSamples}. */
    KernelCall rowsForwardFused() {
        return call(
                "last_rows_forward_fused",
                defines(1),
                samples,
                List.of(
                        Slot.X,
                        Slot.Z,
                        Slot.Y,
                        Slot.STATS,
                        Slot.GAMMA,
                        Slot.BETA,
                        view.elements(),
                        columnsOfATile(),
                        view.c(),
                        k,
                        Slot.EPS));
    }

    /** The same; the partial results are a sample's. */
    KernelCall rowsBackwardFused() {
        return call(
                "last_rows_backward_fused",
                defines(2),
                samples,
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
                        Slot.PARTIALS,
                        view.elements(),
                        columnsOfATile(),
                        view.c(),
                        k));
    }

    /** The channels that are repeated side by side must be of one tile, whose columns are added up channel by channel. */
    private long columnsOfATile() {
        return columns <= tile() ? columns : view.c();
    }

    /**
     * Whether there are samples enough for a CPU's cores, and the caches hold one for each core. A core gains even by what it
     * finds in the last cache.
     */
    boolean holdsSamples(int tensors) {
        long units = limits.computeUnits();
        return localSize == 1
                && !form.masked()
                && samples >= 4 * units
                && bytes(tensors) * units <= Walk.cache(limits)
                && ceilDiv(view.elements(), width) <= Walk.mostSteps(limits);
    }

    /** Whether a sample stays in a core's own cache between two passes over it. */
    boolean nearSample(int tensors) {
        return 2 * bytes(tensors) <= Walk.NEAR_A_CORE;
    }

    private long bytes(int tensors) {
        return view.elements() * form.type().bytes() * tensors;
    }

    /** Bytes of tensors of which a server's last cache still holds much when they are read again. */
    private long lastCache() {
        return 4 * Walk.cache(limits);
    }

    private long line() {
        return Math.max(1, form.line());
    }

    private long places() {
        return Math.max(1, view.s());
    }

    /** Where tiles are whole, each core draws those that it had in the launch before, which its last-level cache may still hold. */
    private KernelCall fused(String kernel, int tensors, List<Object> args) {
        int whole = wholeVectors(tensors);
        boolean drawn = whole > 0 && tickets;
        int own = whole > 0 ? whole : Math.min(vectors, powerOfTwo(ceilDiv(view.c(), width), MOST_VECTORS_FUSED));
        Map<String, String> defines = defines(tensors, own);
        return call(
                kernel,
                drawn ? Defines.with(defines, "DRAWN", 1) : defines,
                drawn ? limits.computeUnits() : ceilDiv(view.c(), tile(own)) * samples,
                args);
    }

    private long tile() {
        return tile(vectors);
    }

    private long tile(int vectors) {
        return (long) lanes * width * vectors;
    }

    private long tiles() {
        return tiles(vectors);
    }

    private long tiles(int vectors) {
        return ceilDiv(columns, tile(vectors));
    }

    private KernelCall call(String kernel, Map<String, String> defines, long groups, List<Object> args) {
        String name = (localSize == 1 ? "wide_" : "cooperative_") + kernel;
        return new KernelCall("channels_last.cl", name, defines, Range.of(groups * localSize, localSize), args);
    }

    private Map<String, String> defines(int inputs) {
        return defines(inputs, vectors);
    }

    private Map<String, String> defines(int inputs, int vectors) {
        boolean straight = columns <= tile(vectors);
        ReadsAhead walk = vectors <= FEW_VECTORS ? ReadsAhead.STRAIGHT : ReadsAhead.SUMMING;
        Map<String, String> own = Defines.of(
                limits,
                "LOCAL_SIZE",
                localSize,
                "WIDTH",
                width,
                "LANES",
                lanes,
                "VECTORS",
                vectors,
                "FEW_VECTORS",
                FEW_VECTORS,
                "STREAM",
                stream,
                "FETCH",
                straight ? Walk.fetches(walk, inputs, view.elements() * samples, form, limits) : 1);
        return Defines.with(Defines.with(own, form.defines()), more);
    }
}
