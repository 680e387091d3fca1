/* Batch norm over a tensor stored (N, S, C): statistics for each channel, the mathematics of channels_first.cl.
 *
 * The tensor is walked as rows of `columns` neighbouring values, a multiple of C: a few channels are repeated side by
 * side until a row is worth a work-item; the last row may then be short, and the channel of a column is column % C. Without
 * ROW_STATS a channel may have K neighbouring columns, those of a tensor stored (N, C, K): channel column / K % C. A
 * work-group takes a tile of LANES*VECTORS*WIDTH columns, LANES work-items side by side, LOCAL_SIZE/LANES rows at a
 * time. The wide family's tiles are as wide as rows where that can be and sums stay in the first cache, so that memory is
 * read as it lies. The fused kernels go back from the last row, which the caches still hold.
 *
 *   <family>_last_stats_partial     tiles*splits groups  reads x            writes partials        1R
 *   <family>_last_apply             tiles*any groups     reads x            writes y               1R + 1W
 *   <family>_last_forward_fused     tiles groups         reads x twice      writes y, stats        2R + 1W, or 1R + 1W
 *   <family>_last_backward_partial  tiles*splits groups  reads x, dy        writes partials        2R
 *   <family>_last_backward_apply    tiles*any groups     reads dy (and x)   writes dx              2R + 1W (1R + 1W)
 *   <family>_last_backward_fused    tiles groups         reads x, dy twice  writes dx, gradients   4R + 1W, or 2R + 1W
 *
 * Partials are [split][column], so a finalize that takes splits*columns/C splits of C channels merges the repeated
 * channels too. The two fused kernels of channels need columns = C, K = 1. y may be x, dx may be dy.
 *
 * Group and instance norm take the kernels that are not fused, with ROW_STATS 1: each of `samples` samples is walked as
 * a tensor of its own, with as many groups, and K neighbouring channels of it share their statistics; partials are
 * [split][sample][C], for a finalize that takes samples*C channels.
 * Where the caches hold a sample, a work-item of the wide family takes all of it, tile after tile, in one launch:
 *
 *   wide_last_rows_forward_fused    samples groups       reads x twice      writes y, stats        2R + 1W, or 1R + 1W
 *   wide_last_rows_backward_fused   samples groups       reads x, dy twice  writes dx, partials    4R + 1W, or 2R + 1W
 *
 * These need columns of one tile, or columns = C.
 *
 * In the wide family a work-group for each core draws parts of a pass, and steps may follow one another in one launch (see
 * tickets.clh):
 *
 *   wide_last_running_fused      reads x            writes y, stats            1R + 1W
 *   wide_last_forward_tickets    reads x twice      writes y, stats            2R + 1W
 *   wide_last_backward_tickets   reads x, dy twice  writes dx, gradients       4R + 1W
 *
 * The last goes from sums to dx with `beside` tiles at once, a divisor of how many there are, so that the caches may still
 * hold them: all of them unless columns = C, K = 1. Partials are [split][2][column], as many columns as all tiles have. K is at
 * most TICKET_CHANNELS. With DRAWN 1 the fused kernels of channels, of one sample, draw whole tiles in the same way.
 *
 * Norm per location takes the fused ones of channels, with ROW_AFFINE 1: what is called a sample there is a group of a
 * sample, of which the K channels are rows and the S places are columns; gamma belongs to the row, and dGamma is not
 * computed.
 *
 * With MASKED 1 a row is one place (columns = C), and counts where place % line < the sample's length, place < places.
 *
 * The bytes do not count z and dz, 1R and 1W more where they are there.
 * Local memory: 2*LOCAL_SIZE*WIDTH reals; trees outside of all loops over rows.
 *
 *   LANES        work-items side by side in a row, a power of two of at most LOCAL_SIZE
 *   VECTORS      vectors of a row that a work-item takes, one after the other
 *   FEW_VECTORS  vectors of a row that stay in registers, sums and what they are normalized with
 *   LOW_MEANS    0: means have no low part, as running ones have none
 *   DRAWN        1: fused kernels: work-groups draw the tiles of the only sample; needs LOCAL_SIZE 1
 *   ROW_STATS    0: statistics per channel, sums of g and g*xHat; 1: per K channels of a sample, with gamma in them
 *   ROW_AFFINE   1: gamma and beta belong to rows, groups of `K` of them
 *   BATCH_STATS  backward apply: 1 the statistics depend on x; 0 they are constants, dx = gamma*invStd*g
 *   WRITE_DZ     backward: 1 g, the gradient of what scale and shift gave, is written to dz
 *   MASKED       1: only the places before a sample's length count; the others are 0 in y, dx, dz
 * and those of activation.clh and family.clh.
 */
#include "activation.clh"
#include "tickets.clh"

#ifndef LANES
#define LANES LOCAL_SIZE
#endif
#ifndef VECTORS
#define VECTORS 1
#endif
#ifndef FEW_VECTORS
#define FEW_VECTORS 4
#endif
#ifndef LOW_MEANS
#define LOW_MEANS 1
#endif
#ifndef DRAWN
#define DRAWN 0
#endif
#ifndef ROW_STATS
#define ROW_STATS 0
#endif
#ifndef ROW_AFFINE
#define ROW_AFFINE 0
#endif
#ifndef BATCH_STATS
#define BATCH_STATS 1
#endif
#ifndef WRITE_DZ
#define WRITE_DZ 0
#endif
#ifndef MASKED
#define MASKED 0
#endif
/* Whether a CPU's core sums rows side by side: where it asks for what it reads next, so that sums that don't stay in registers
 * pass through its first cache once. Hardware that is to see ahead by itself must meet one row after the other. */
#define SIDE_BY_SIDE (LOCAL_SIZE == 1 && FETCH && !MASKED && VECTORS > FEW_VECTORS)
#define MOMENT_ROWS (BLOCKS ? 8 : 4)
#define GRADIENT_ROWS 4
#define TILE (LANES * WIDTH * VECTORS)
#define ROWS (LOCAL_SIZE / LANES)
#define LANE ((int)get_local_id(0) % LANES)
#define ROW ((int)get_local_id(0) / LANES)

/* The part of the tensor that a work-group walks. */
typedef struct {
    long elements; /* of a sample; without ROW_STATS the tensor is one */
    long sample;
    long K;
    long columns;
    long rows;
    long first; /* column of the tile */
    long from;  /* row */
    long to;
    const __global int *lengths;
    long line;
    long places;
    int back;   /* 1: rows from the last to the first */
    long ahead; /* values from a vector to the one that is asked for meanwhile, which is of the same tile */
} patch;

INLINE long tiles_of(long columns) { return (columns + TILE - 1) / TILE; }

INLINE patch patch_of(
    long elements, long columns, long K, long group, long splits, const __global int *lengths, long line, long places) {
    long rows = (elements + columns - 1) / columns;
    long own = tiles_of(columns) * splits;
    long split = group % own / tiles_of(columns);
    long ahead = columns <= TILE ? FETCH_AHEAD : max(1L, FETCH_AHEAD / TILE) * columns;
    patch p = {
        elements, group / own, K, columns, rows, group % tiles_of(columns) * TILE, split * rows / splits,
        (split + 1) * rows / splits, lengths, line, places, 0, ahead};
    return p;
}

/* Another part of the same tensor. */
INLINE patch part_of(patch all, long group, long splits) {
    return patch_of(all.elements, all.columns, all.K, group, splits, all.lengths, all.line, all.places);
}

/* Whether the values of a row count. */
INLINE int counts(patch p, long row) {
#if MASKED
    long sample = ROW_STATS ? p.sample : row / p.places;
    return row % p.places % p.line < p.lengths[sample];
#else
    return 1;
#endif
}

/* A column's channel, and what it takes to step to the next one without a division. */
typedef struct {
    long C;
    long K;
    long repeat; /* of all channels */
    long channel;
    long group; /* of K channels */
    long within;
} spot;

INLINE spot spot_of(patch p, long column, long C) {
#if !ROW_STATS
    spot s = {C, p.K, column / (C * p.K) * p.K + column % p.K, column / p.K % C, 0, column % p.K};
#else
    long channel = column % C;
    spot s = {C, p.K, column / C, channel, 0, 0};
#if !ROW_AFFINE
    s.group = channel / p.K;
    s.within = channel % p.K;
#endif
#endif
    return s;
}

INLINE spot next_spot(spot s) {
#if !ROW_STATS
    s.repeat++;
    s.within++;
    if (s.within == s.K) {
        s.within = 0;
        s.repeat -= s.K;
        s.channel++;
    }
    if (s.channel == s.C) {
        s.repeat += s.K;
        s.channel = 0;
    }
#else
    s.channel++;
    s.within++;
    if (s.within == s.K) {
        s.within = 0;
        s.group++;
    }
    if (s.channel == s.C) {
        s.repeat++;
        s.channel = 0;
        s.group = 0;
        s.within = 0;
    }
#endif
    return s;
}

/* Where a column's statistics and sums stand. */
INLINE long stats_of(patch p, spot s) {
#if ROW_AFFINE
    return p.sample * s.C + s.channel;
#elif ROW_STATS
    return p.sample * (s.C / s.K) + s.group;
#else
    return s.channel;
#endif
}

/* Whether a vector's columns share their statistics. */
INLINE int shared(patch p, spot s, long column) {
#if ROW_STATS && !ROW_AFFINE
    return s.within + WIDTH <= p.K && column + WIDTH <= p.columns;
#else
    return 0;
#endif
}

/* Where a column's partial result stands. */
INLINE long partial_of(patch p, long split, long samples, spot s) {
    return ((split * (p.columns / s.C) + s.repeat) * samples + p.sample) * s.C + s.channel;
}

INLINE long column_of(patch p, int vector) { return p.first + (vector * LANES + LANE) * WIDTH; }

/* Values of a vector that lie in a row; the last row may be short. */
INLINE long inside(patch p, long row, long column) {
    return min(p.columns - column, p.elements - row * p.columns - column);
}

/* Adds up WIDTH pairs of values over the rows of a work-group; the work-items of row 0 get the sums. */
INLINE void row_sums(real *a, real *b, __local real *tree) {
#if ROWS > 1
    int item = (int)get_local_id(0);
    __local real *second = tree + LOCAL_SIZE * WIDTH;
    for (int i = 0; i < WIDTH; i++) {
        tree[i * LOCAL_SIZE + item] = a[i];
        second[i * LOCAL_SIZE + item] = b[i];
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int step = ROWS / 2; step > 0; step /= 2) {
        if (ROW < step) {
            for (int i = 0; i < WIDTH; i++) {
                int at = i * LOCAL_SIZE + item;
                tree[at] = real_add(tree[at], tree[at + step * LANES]);
                second[at] = real_add(second[at], second[at + step * LANES]);
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    for (int i = 0; i < WIDTH; i++) {
        a[i] = tree[i * LOCAL_SIZE + item];
        b[i] = second[i * LOCAL_SIZE + item];
    }
    barrier(CLK_LOCAL_MEM_FENCE);
#endif
}

/* Whether the mean's low part is subtracted from each value. Of 16 bits, whose arithmetic shows, what it makes goes with beta, and
 * with what else is added, once for a column. */
#define LOW_APART ((STORAGE == 0) | ROW_AFFINE)

/* y = (x - high - low)*scale + beta of a vector's columns, scale = invStd*gamma; without LOW_APART beta is less low*scale. */
typedef struct {
    floatv high;
    floatv low;
    floatv scale;
    floatv beta;
} column_affine;

/* What a vector's channels are normalized with. */
typedef struct {
    column_affine affine;
    floatv inv_std;
    floatv gamma;
} column_norm;

INLINE floatv load_channels(const __global float *values, patch p, long column, long C) {
    spot s = spot_of(p, column, C);
    if ((ROW_STATS || p.K == 1) && column + WIDTH <= p.columns && s.channel + WIDTH <= C) {
        return LOAD_FLOATS(values + s.channel);
    }
    float own[WIDTH];
    for (int i = 0; i < WIDTH; i++, s = next_spot(s)) {
        own[i] = column + i < p.columns ? values[s.channel] : 0.0f;
    }
    return LOADV(own);
}

#if !ROW_STATS
/* Writes the statistics of a vector's channels, each where it stands first. */
INLINE void keep_stats(
    __global float4 *stats, patch p, long column, long C, floatv mean, floatv inv_std, floatv variance) {
    float means[WIDTH], inv_stds[WIDTH], variances[WIDTH];
    STOREV(mean, means);
    STOREV(inv_std, inv_stds);
    STOREV(variance, variances);
    spot s = spot_of(p, column, C);
    for (int i = 0; i < WIDTH && column + i < p.columns; i++, s = next_spot(s)) {
        if (s.repeat == 0) {
            stats[s.channel] = (float4)(means[i], 0.0f, inv_stds[i], variances[i]);
        }
    }
}
#endif

INLINE column_norm with_affine(column_norm n, floatv gamma, floatv beta) {
    n.gamma = gamma;
    n.affine.scale = n.inv_std * gamma;
    n.affine.beta = LOW_APART ? beta : fma(-n.affine.low, n.affine.scale, beta); /* a low part of running means is 0 */
    return n;
}

INLINE column_norm load_norm(
    const __global float4 *stats, const __global float *gamma, const __global float *beta, patch p, long column,
    long C) {
    column_norm n = {
        {(floatv)(0.0f), (floatv)(0.0f), (floatv)(0.0f), (floatv)(0.0f)}, (floatv)(0.0f), (floatv)(0.0f)};
    spot s = spot_of(p, column, C);
    if (shared(p, s, column)) {
        float4 own = stats[stats_of(p, s)];
        n.affine.high = (floatv)(own.x);
        n.affine.low = (floatv)(own.y);
        n.inv_std = (floatv)(own.z);
    } else {
        float high[WIDTH], low[WIDTH], inv_std[WIDTH];
        for (int i = 0; i < WIDTH; i++, s = next_spot(s)) {
            float4 own = column + i < p.columns ? stats[stats_of(p, s)] : (float4)(0.0f);
            high[i] = own.x;
            low[i] = own.y;
            inv_std[i] = own.z;
        }
        n.affine.high = LOADV(high);
        n.affine.low = LOADV(low);
        n.inv_std = LOADV(inv_std);
    }
#if !ROW_AFFINE
    n = with_affine(n, load_channels(gamma, p, column, C), load_channels(beta, p, column, C));
#endif
    return n;
}

/* The same with the gamma and beta of a row, where they belong to rows. */
INLINE column_norm at_row(
    column_norm n, const __global float *gamma, const __global float *beta, patch p, long row) {
#if ROW_AFFINE
    long own = p.sample % p.K * p.rows + row;
    n = with_affine(n, (floatv)(gamma[own]), (floatv)(beta[own]));
#endif
    return n;
}

/* The part of a column_norm that the forward needs, to leave room in the first cache: affine_at() makes it a row's. */
INLINE column_affine affine_of(column_norm n) {
#if ROW_AFFINE
    n.affine.scale = n.inv_std;
#endif
    return n.affine;
}

INLINE column_affine affine_at(
    column_affine a, const __global float *gamma, const __global float *beta, patch p, long row) {
#if ROW_AFFINE
    long own = p.sample % p.K * p.rows + row;
    a.scale *= gamma[own];
    a.beta = (floatv)(beta[own]);
#endif
    return a;
}

INLINE floatv affine(floatv x, column_affine a) {
#if LOW_APART && LOW_MEANS
    return fma(x - a.high - a.low, a.scale, a.beta);
#else
    return fma(x - a.high, a.scale, a.beta);
#endif
}

/* The gradient of what scale and shift gave. */
INLINE floatv gradient_at(
    const __global storage *x, const __global storage *z, const __global storage *dy, long at, long count,
    column_norm n) {
    floatv g = load_some(dy + at, count, 0.0f);
#if ACTIVATION
    g = activation_gradient(g, affine(load_some(x + at, count, 0.0f), n.affine), z + at, count);
#endif
    return g;
}

/* Vectors of a work-item that lie in a row to their ends; none in the tensor's last row where that is short. */
INLINE int whole_vectors(patch p, long row) {
    long rest = p.columns - column_of(p, 0);
    return rest < WIDTH || (row + 1) * p.columns > p.elements
               ? 0
               : (int)min((long)VECTORS, (rest - WIDTH) / (LANES * WIDTH) + 1);
}

/* Where the rows end, from the first on, that are whole and just a tile of few vectors, which stay in registers. */
INLINE long end_of_narrow(patch p) {
#if LOCAL_SIZE == 1 && !MASKED && VECTORS <= FEW_VECTORS
    return p.columns == TILE && !p.back ? min(p.to, p.elements / p.columns) : p.from;
#else
    return p.from;
#endif
}

/* Row of step i of the walk. */
INLINE long row_at(patch p, long i) { return p.back ? p.from + p.to - 1 - i : i; }

/* The walk from the last row on: it was read last, so that the caches most likely hold it. */
INLINE patch backwards(patch p) {
    p.back = 1;
    p.ahead = -p.ahead;
    return p;
}

/* Adds d and d^2 of the first `count` values of a vector, d = x - shift. */
INLINE void add_moments(
    const __global storage *x, patch p, long at, long count, floatv shift, realv *sum, realv *square) {
    fetch(x + at + p.ahead);
    realv d = realv_difference(load_some(x + at, count, shift), shift, (floatv)(0.0f));
    realv_add(sum, d);
    realv_add_product(square, d, d);
}

/* The same of a row, from vector v on. */
INLINE void row_moments(
    const __global storage *x, patch p, long row, int v, const floatv *shift, realv *sum, realv *square) {
    if (!counts(p, row)) {
        return;
    }
    int whole = whole_vectors(p, row);
    for (; v < whole; v++) {
        add_moments(x, p, row * p.columns + column_of(p, v), WIDTH, shift[v], &sum[v], &square[v]);
    }
    for (; v < VECTORS && column_of(p, v) < p.columns; v++) {
        long column = column_of(p, v);
        add_moments(x, p, row * p.columns + column, inside(p, row, column), shift[v], &sum[v], &square[v]);
    }
}

/* The same of MOMENT_ROWS rows, vector by vector; in BLOCKS, what these add are floats. */
INLINE void rows_moments(
    const __global storage *x, patch p, long row, const floatv *shift, realv *sum, realv *square) {
    int whole = whole_vectors(p, row + MOMENT_ROWS - 1);
    p.ahead = max((long)FETCH_AHEAD, MOMENT_ROWS * p.columns);
    for (int v = 0; v < whole; v++) {
        realv s = sum[v];
        realv q = square[v];
#if BLOCKS
        floatv block_s = 0.0f;
        floatv block_q = 0.0f;
#pragma unroll
        for (int r = 0; r < MOMENT_ROWS; r++) {
            long at = (row + r) * p.columns + column_of(p, v);
            fetch(x + at + p.ahead);
            floatv d = UNPACKV(x + at) - shift[v];
            block_s += d;
            block_q = fma(d, d, block_q);
        }
        realv_add(&s, realv_of(block_s));
        realv_add(&q, realv_of(block_q));
#else
#pragma unroll
        for (int r = 0; r < MOMENT_ROWS; r++) {
            add_moments(x, p, (row + r) * p.columns + column_of(p, v), WIDTH, shift[v], &s, &q);
        }
#endif
        sum[v] = s;
        square[v] = q;
    }
    for (int r = 0; r < MOMENT_ROWS; r++) {
        row_moments(x, p, row + r, whole, shift, sum, square);
    }
}

/* The values of the first row that counts, for the vectors of a work-item. */
INLINE void first_row(const __global storage *x, patch p, floatv *values) {
    long first = p.from;
#if MASKED
    while (first < p.to && !counts(p, first)) {
        first++;
    }
#endif
    for (int v = 0; v < VECTORS; v++) {
        long column = column_of(p, v);
        values[v] = first < p.to ? load_some(x + first * p.columns + column, inside(p, first, column), 0.0f)
                                 : (floatv)(0.0f);
    }
}

/* Sums of a work-item's rows about a shift, side by side or one after the other. */
INLINE void sums_about(
    const __global storage *x, patch p, const floatv *shift, realv *sum, realv *square) {
    for (int v = 0; v < VECTORS; v++) {
        sum[v] = (realv)REALV_ZERO;
        square[v] = (realv)REALV_ZERO;
    }
    long row = p.from + ROW;
    for (long end = end_of_narrow(p); row < end; row++) {
#pragma unroll
        for (int v = 0; v < VECTORS; v++) {
            add_moments(x, p, row * p.columns + column_of(p, v), WIDTH, shift[v], &sum[v], &square[v]);
        }
    }
#if SIDE_BY_SIDE
    int beside = BLOCKS | !ROW_STATS | (p.columns > TILE); /* samples of one tile are read too often for it to pay */
    for (; beside && row + MOMENT_ROWS <= p.to; row += MOMENT_ROWS) {
        rows_moments(x, p, row, shift, sum, square);
    }
#endif
    for (; row < p.to; row += ROWS) {
        row_moments(x, p, row, 0, shift, sum, square);
    }
}

#if BLOCKS && SIDE_BY_SIDE
/* Whether the sums of all columns of vectors [v, to) are good. What MOMENT_ROWS rows add is more exact than a run's blocks. */
INLINE int columns_summed_well(double count, const realv *sum, const realv *square, int v, int to) {
    VECTOR(long) well = 1;
    for (; v < to; v++) {
        well &= BLOCKS_SUMMED_WELL(count, sum[v], square[v], 63.0 / 64.0);
    }
    long lanes[WIDTH];
    STOREV(well, lanes);
    int all = 1;
    for (int i = 0; i < WIDTH; i++) {
        all &= lanes[i] != 0;
    }
    return all;
}

/* Sums of whole rows about a shift. What MOMENT_ROWS of them add wants one that is near: the first row. */
INLINE void sums_in_blocks(const __global storage *x, patch p, const floatv *shift, realv *sum, realv *square) {
    floatv near[VECTORS];
    first_row(x, p, near);
    sums_about(x, p, near, sum, square);
    double count = p.to - p.from;
    int well = columns_summed_well(count, sum, square, 0, VECTORS);
    for (int v = 0; v < VECTORS; v++) {
        if (!well && !columns_summed_well(count, sum, square, v, v + 1)) {
            sum[v] = (realv)REALV_ZERO;
            square[v] = (realv)REALV_ZERO;
            long column = column_of(p, v);
            for (long row = p.from; row < p.to; row++) {
                add_moments(x, p, row * p.columns + column, p.columns - column, near[v], &sum[v], &square[v]);
            }
        }
        realv distance = TO_REALV(near[v]) - TO_REALV(shift[v]);
        square[v] += distance * (2.0 * sum[v] + count * distance);
        sum[v] += count * distance;
    }
}
#endif

/* Sums of a work-item's rows about a shift. */
INLINE void column_sums(
    const __global storage *x, patch p, const floatv *shift, realv *sum, realv *square) {
#if BLOCKS && SIDE_BY_SIDE
    patch whole = p;
    whole.to = max(p.from, min(p.to, p.elements / p.columns));
    sums_in_blocks(x, whole, shift, sum, square);
    for (long row = whole.to; row < p.to; row++) {
        row_moments(x, p, row, 0, shift, sum, square);
    }
#else
    sums_about(x, p, shift, sum, square);
#endif
}

/* The moments of the channels of one vector, from the sums of all rows of the work-group; row 0 gets them. */
INLINE void column_moments(
    patch p, long column, realv sum, realv square, floatv shift, __local real *tree, moments *out) {
    real s[WIDTH], q[WIDTH];
    float shifts[WIDTH];
    realv_lanes(sum, s);
    realv_lanes(square, q);
    STOREV(shift, shifts);
    row_sums(s, q, tree);
    long count = p.to - p.from;
#if MASKED
    for (long row = p.from; row < p.to; row++) {
        count -= !counts(p, row);
    }
#endif
    for (int i = 0; i < WIDTH; i++) {
        bool cut = p.to == p.rows && p.from < p.to && (p.rows - 1) * p.columns + column + i >= p.elements;
        out[i] = moments_of_sums(count - cut, shifts[i], s[i], q[i], 1.0f);
    }
}

/* Adds g and g*(x - mean) of the first `count` values of a vector, with the row's gamma where it belongs to rows. */
INLINE void add_gradients(
    const __global storage *x, const __global storage *z, const __global storage *dy, patch p, long at, long count,
    column_norm n, realv *sum, realv *product) {
    fetch(x + at + p.ahead);
    fetch(dy + at + p.ahead);
    floatv value = gradient_at(x, z, dy, at, count, n);
#if ROW_AFFINE
    realv g = realv_product(value, n.gamma);
#else
    realv g = realv_of(value);
#endif
    realv_add(sum, g);
    realv_add_product(product, g, realv_difference(load_some(x + at, count, 0.0f), n.affine.high, n.affine.low));
}

/* The same of a row, from vector v on. */
INLINE void row_gradients(
    const __global storage *x, const __global storage *z, const __global storage *dy, const __global float *gamma,
    const __global float *beta, patch p, long row, int v, const column_norm *own, realv *sum, realv *product) {
    if (!counts(p, row)) {
        return;
    }
    int whole = whole_vectors(p, row);
    for (; v < whole; v++) {
        add_gradients(
            x, z, dy, p, row * p.columns + column_of(p, v), WIDTH, at_row(own[v], gamma, beta, p, row), &sum[v],
            &product[v]);
    }
    for (; v < VECTORS && column_of(p, v) < p.columns; v++) {
        long column = column_of(p, v);
        add_gradients(
            x, z, dy, p, row * p.columns + column, inside(p, row, column), at_row(own[v], gamma, beta, p, row), &sum[v],
            &product[v]);
    }
}

/* The same of GRADIENT_ROWS rows, vector by vector; in BLOCKS, what these add are floats. */
INLINE void rows_gradients(
    const __global storage *x, const __global storage *z, const __global storage *dy, const __global float *gamma,
    const __global float *beta, patch p, long row, const column_norm *own, realv *sum, realv *product) {
    int whole = whole_vectors(p, row + GRADIENT_ROWS - 1);
    p.ahead = max((long)FETCH_AHEAD, GRADIENT_ROWS * p.columns);
    for (int v = 0; v < whole; v++) {
        realv s = sum[v];
        realv q = product[v];
#if BLOCKS
        floatv block_s = 0.0f;
        floatv block_q = 0.0f;
#pragma unroll
        for (int r = 0; r < GRADIENT_ROWS; r++) {
            long at = (row + r) * p.columns + column_of(p, v);
            column_norm n = at_row(own[v], gamma, beta, p, row + r);
            fetch(x + at + p.ahead);
            fetch(dy + at + p.ahead);
            floatv g = gradient_at(x, z, dy, at, WIDTH, n);
            g = ROW_AFFINE ? g * n.gamma : g;
            block_s += g;
            block_q = fma(g, UNPACKV(x + at) - n.affine.high, block_q);
        }
        block_q = fma(-own[v].affine.low, block_s, block_q);
        realv_add(&s, realv_of(block_s));
        realv_add(&q, realv_of(block_q));
#else
#pragma unroll
        for (int r = 0; r < GRADIENT_ROWS; r++) {
            column_norm n = at_row(own[v], gamma, beta, p, row + r);
            add_gradients(x, z, dy, p, (row + r) * p.columns + column_of(p, v), WIDTH, n, &s, &q);
        }
#endif
        sum[v] = s;
        product[v] = q;
    }
    for (int r = 0; r < GRADIENT_ROWS; r++) {
        row_gradients(x, z, dy, gamma, beta, p, row + r, whole, own, sum, product);
    }
}

/* sum g and sum g*(x - mean) of a work-item's rows. */
INLINE void gradient_sums(
    const __global storage *x, const __global storage *z, const __global storage *dy, const __global float *gamma,
    const __global float *beta, patch p, const column_norm *own, realv *sum, realv *product) {
    for (int v = 0; v < VECTORS; v++) {
        sum[v] = (realv)REALV_ZERO;
        product[v] = (realv)REALV_ZERO;
    }
    long row = p.from + ROW;
    for (long end = end_of_narrow(p); row < end; row++) {
#pragma unroll
        for (int v = 0; v < VECTORS; v++) {
            add_gradients(
                x, z, dy, p, row * p.columns + column_of(p, v), WIDTH, at_row(own[v], gamma, beta, p, row), &sum[v],
                &product[v]);
        }
    }
#if SIDE_BY_SIDE
    int beside = BLOCKS | (p.columns > TILE); /* in one tile the hardware sees the walk */
    for (; beside && row + GRADIENT_ROWS <= p.to; row += GRADIENT_ROWS) {
        rows_gradients(x, z, dy, gamma, beta, p, row, own, sum, product);
    }
#endif
    for (; row < p.to; row += ROWS) {
        row_gradients(x, z, dy, gamma, beta, p, row, 0, own, sum, product);
    }
}

INLINE void load_norms(
    const __global float4 *stats, const __global float *gamma, const __global float *beta, patch p, long C,
    column_norm *own) {
    for (int v = 0; v < VECTORS; v++) {
        own[v] = load_norm(stats, gamma, beta, p, column_of(p, v), C);
    }
}

/* sum g and sum g*xHat of the channels of each vector; row 0 hands them out, [vector][WIDTH]. */
INLINE void column_gradients(
    const __global storage *x, const __global storage *z, const __global storage *dy, const __global float4 *stats,
    const __global float *gamma, const __global float *beta, patch p, long C, __local real *tree, real *d_beta,
    real *d_gamma) {
    realv sum[VECTORS], product[VECTORS];
    column_norm own[VECTORS];
    load_norms(stats, gamma, beta, p, C, own);
    gradient_sums(x, z, dy, gamma, beta, p, own, sum, product);
    for (int v = 0; v < VECTORS; v++) {
        float inv_std[WIDTH];
        realv_lanes(sum[v], d_beta + v * WIDTH);
        realv_lanes(product[v], d_gamma + v * WIDTH);
        row_sums(d_beta + v * WIDTH, d_gamma + v * WIDTH, tree);
        STOREV(own[v].inv_std, inv_std);
        for (int i = 0; i < WIDTH; i++) {
            d_gamma[v * WIDTH + i] = real_mul(d_gamma[v * WIDTH + i], real_of((float2)(inv_std[i], 0.0f)));
        }
    }
}

/* y of the first `count` values of a vector; 0 where they don't count. */
INLINE void normalize_vector(
    const __global storage *x, const __global storage *z, __global storage *y, patch p, long at, long count, int counted,
    column_affine own) {
    fetch(x + at + p.ahead);
    floatv value = activate(affine(load_some(x + at, count, 0.0f), own), z + at, count);
    store_some(counted ? value : (floatv)(0.0f), y + at, count);
}

/* The same of a row. */
INLINE void normalize_row(
    const __global storage *x, const __global storage *z, __global storage *y, const __global float *gamma,
    const __global float *beta, patch p, long row, const column_affine *own) {
    int counted = counts(p, row);
    int whole = whole_vectors(p, row);
    int v = 0;
    for (; v < whole; v++) {
        normalize_vector(
            x, z, y, p, row * p.columns + column_of(p, v), WIDTH, counted, affine_at(own[v], gamma, beta, p, row));
    }
    for (; v < VECTORS && column_of(p, v) < p.columns; v++) {
        long column = column_of(p, v);
        normalize_vector(
            x, z, y, p, row * p.columns + column, inside(p, row, column), counted,
            affine_at(own[v], gamma, beta, p, row));
    }
}

/* What the vectors of a work-item are normalized with. */
INLINE void load_affines(
    const __global float4 *stats, const __global float *gamma, const __global float *beta, patch p, long C,
    column_affine *own) {
    for (int v = 0; v < VECTORS; v++) {
        own[v] = affine_of(load_norm(stats, gamma, beta, p, column_of(p, v), C));
    }
}

INLINE void normalize_rows(
    const __global storage *x, const __global storage *z, __global storage *y, const __global float *gamma,
    const __global float *beta, patch p, const column_affine *own) {
    long i = p.from + ROW;
    for (long end = end_of_narrow(p); i < end; i++) {
#pragma unroll
        for (int v = 0; v < VECTORS; v++) {
            normalize_vector(
                x, z, y, p, i * p.columns + column_of(p, v), WIDTH, 1, affine_at(own[v], gamma, beta, p, i));
        }
    }
    for (; i < p.to; i += ROWS) {
        normalize_row(x, z, y, gamma, beta, p, row_at(p, i), own);
    }
}

INLINE void normalize(
    const __global storage *x, const __global storage *z, __global storage *y, const __global float4 *stats,
    const __global float *gamma, const __global float *beta, patch p, long C) {
    column_affine own[VECTORS];
    load_affines(stats, gamma, beta, p, C, own);
    normalize_rows(x, z, y, gamma, beta, p, own);
}

/* dx = ((high + low - x)*slope + g - offset)*factor; g*gamma in the place of g where channels share statistics. Of 16 bits the
 * offset is less low*slope. */
typedef struct {
    floatv high;
    floatv low;
    floatv slope;
    floatv offset;
    floatv factor;
} column_slope;

INLINE column_slope load_slope(const __global float2 *sums, column_norm n, patch p, long column, long C) {
    column_slope a = {
        n.affine.high, n.affine.low, (floatv)(0.0f), (floatv)(0.0f), ROW_STATS && BATCH_STATS ? n.inv_std : n.affine.scale};
#if BATCH_STATS
    spot s = spot_of(p, column, C);
    if (shared(p, s, column)) {
        float2 sum = sums[stats_of(p, s)];
        a.offset = (floatv)(sum.x);
        a.slope = (floatv)(sum.y);
    } else {
        float offsets[WIDTH], slopes[WIDTH];
        for (int i = 0; i < WIDTH; i++, s = next_spot(s)) {
            float2 sum = column + i < p.columns ? sums[stats_of(p, s)] : (float2)(0.0f);
            offsets[i] = sum.x;
            slopes[i] = sum.y;
        }
        a.offset = LOADV(offsets);
        a.slope = LOADV(slopes);
    }
    a.slope *= n.inv_std;
    a.offset = STORAGE ? fma(-a.low, a.slope, a.offset) : a.offset;
#endif
    return a;
}

/* dx of the first `count` values of a vector, and g to dz; 0 where they don't count. */
INLINE void differentiate_vector(
    const __global storage *x, const __global storage *z, const __global storage *dy, __global storage *dx,
    __global storage *dz, patch p, long at, long count, int counted, column_norm n, column_slope own) {
    fetch(x + at + p.ahead);
    fetch(dy + at + p.ahead);
    floatv g = gradient_at(x, z, dy, at, count, n);
#if WRITE_DZ
    store_some(counted ? g : (floatv)(0.0f), dz + at, count);
#endif
#if BATCH_STATS
    floatv rest = ROW_STATS ? fma(g, n.gamma, -own.offset) : g - own.offset;
    floatv d = own.high - load_some(x + at, count, 0.0f);
    g = fma(STORAGE ? d : d + own.low, own.slope, rest);
#endif
    g *= own.factor;
    store_some(counted ? g : (floatv)(0.0f), dx + at, count);
}

/* The same of a row. */
INLINE void differentiate_row(
    const __global storage *x, const __global storage *z, const __global storage *dy, __global storage *dx,
    __global storage *dz, const __global float *gamma, const __global float *beta, patch p, long row,
    const column_norm *norms, const column_slope *own) {
    int counted = counts(p, row);
    int whole = whole_vectors(p, row);
    int v = 0;
    for (; v < whole; v++) {
        differentiate_vector(
            x, z, dy, dx, dz, p, row * p.columns + column_of(p, v), WIDTH, counted,
            at_row(norms[v], gamma, beta, p, row), own[v]);
    }
    for (; v < VECTORS && column_of(p, v) < p.columns; v++) {
        long column = column_of(p, v);
        differentiate_vector(
            x, z, dy, dx, dz, p, row * p.columns + column, inside(p, row, column), counted,
            at_row(norms[v], gamma, beta, p, row), own[v]);
    }
}

/* What the gradients of a work-item's vectors are computed with. */
INLINE void load_slopes(
    const __global float4 *stats, const __global float2 *sums, const __global float *gamma, const __global float *beta,
    patch p, long C, column_norm *norms, column_slope *own) {
    for (int v = 0; v < VECTORS; v++) {
        norms[v] = load_norm(stats, gamma, beta, p, column_of(p, v), C);
        own[v] = load_slope(sums, norms[v], p, column_of(p, v), C);
    }
}

INLINE void differentiate_rows(
    const __global storage *x, const __global storage *z, const __global storage *dy, __global storage *dx,
    __global storage *dz, const __global float *gamma, const __global float *beta, patch p, const column_norm *norms,
    const column_slope *own) {
    long i = p.from + ROW;
    for (long end = end_of_narrow(p); i < end; i++) {
#pragma unroll
        for (int v = 0; v < VECTORS; v++) {
            differentiate_vector(
                x, z, dy, dx, dz, p, i * p.columns + column_of(p, v), WIDTH, 1, at_row(norms[v], gamma, beta, p, i),
                own[v]);
        }
    }
    for (; i < p.to; i += ROWS) {
        differentiate_row(x, z, dy, dx, dz, gamma, beta, p, row_at(p, i), norms, own);
    }
}

INLINE void differentiate(
    const __global storage *x, const __global storage *z, const __global storage *dy, __global storage *dx,
    __global storage *dz, const __global float4 *stats, const __global float2 *sums, const __global float *gamma,
    const __global float *beta, patch p, long C) {
    column_norm norms[VECTORS];
    column_slope own[VECTORS];
    load_slopes(stats, sums, gamma, beta, p, C, norms, own);
    differentiate_rows(x, z, dy, dx, dz, gamma, beta, p, norms, own);
}

KERNEL(last_stats_partial)
(const __global storage *x, const __global int *lengths, __global real *partials, long elements, long columns, long C,
 long K, long samples, long splits, long line, long places) {
    __local real tree[2 * LOCAL_SIZE * WIDTH];
    patch p = patch_of(elements, columns, K, get_group_id(0), splits, lengths, line, places);
    realv sum[VECTORS], square[VECTORS];
    floatv shift[VECTORS];
    first_row(x + p.sample * elements, p, shift);
    column_sums(x + p.sample * elements, p, shift, sum, square);
    long split = get_group_id(0) / tiles_of(columns) % splits;
    for (int v = 0; v < VECTORS; v++) {
        long column = column_of(p, v);
        moments own[WIDTH];
        column_moments(p, column, sum[v], square[v], shift[v], tree, own);
        spot s = spot_of(p, column, C);
        for (int i = 0; i < WIDTH && column + i < columns; i++, s = next_spot(s)) {
            if (ROW == 0) {
                __global real *partial = partials + 3 * partial_of(p, split, samples, s);
                partial[0] = own[i].count;
                partial[1] = own[i].mean;
                partial[2] = own[i].m2;
            }
        }
    }
}

KERNEL(last_apply)
(const __global storage *x, const __global storage *z, __global storage *y, const __global float4 *stats,
 const __global float *gamma, const __global float *beta, const __global int *lengths, long elements, long columns,
 long C, long K, long splits, long line, long places) {
    patch p = patch_of(elements, columns, K, get_group_id(0), splits, lengths, line, places);
    long at = p.sample * elements;
    normalize(x + at, z + at, y + at, stats, gamma, beta, p, C);
}

#if LOCAL_SIZE == 1 && !ROW_STATS
/* What a tile is normalized with; with the first rows of it, its statistics are kept. */
INLINE void load_running(
    __global float4 *stats, const __global float *runningMean, const __global float *runningVar,
    const __global float *gamma, const __global float *beta, patch p, long C, float2 eps, column_affine *own) {
    for (int v = 0; v < VECTORS; v++) {
        long column = column_of(p, v);
        floatv mean = load_channels(runningMean, p, column, C);
        floatv variance = load_channels(runningVar, p, column, C);
        floatv inv_std = running_inv_stds(variance, eps);
        column_affine a = {
            mean, (floatv)(0.0f), inv_std * load_channels(gamma, p, column, C), load_channels(beta, p, column, C)};
        own[v] = a;
        if (p.from == 0) {
            keep_stats(stats, p, column, C, mean, inv_std, variance);
        }
    }
}

__kernel void wide_last_running_fused
(const __global storage *x, const __global storage *z, __global storage *y, __global float4 *stats,
 const __global float *runningMean, const __global float *runningVar, const __global float *gamma,
 const __global float *beta, const __global int *lengths, long elements, long columns, long C, long K, long splits,
 long line, long places, float2 eps, volatile __global int *tickets) {
    patch all = patch_of(elements, columns, K, 0, 1, lengths, line, places);
    stage now = before_stages(tickets);
    begin_stage(&now, tiles_of(columns) * splits, 0);
    column_affine own[VECTORS];
    long tile = -1;
    for (long part; (part = draw_ticket(&now)) >= 0;) {
        patch p = part_of(all, part, splits);
        if (p.first != tile || p.from == 0) {
            load_running(stats, runningMean, runningVar, gamma, beta, p, C, eps, own);
            tile = p.first;
        }
        normalize_rows(x, z, y, gamma, beta, p, own);
    }
    leave_tickets(now);
}
#endif

#if LOCAL_SIZE == 1
/* A value of the group of each of a vector's columns, so that the sums of differences from it can be added. */
INLINE floatv group_shift(const __global storage *x, patch p, long column, long C) {
    spot s = spot_of(p, column, C);
    float own[WIDTH];
    for (int i = 0; i < WIDTH; i++, s = next_spot(s)) {
        own[i] = UNPACK1(x + s.group * p.K);
    }
    return LOADV(own);
}

/* Adds a pair of values of a channel, which stand in each of its columns. */
INLINE void add_channel(patch p, const real *a, const real *b, long channel, long C, real *sum_a, real *sum_b) {
    for (long column = channel; column < min(p.first + TILE, p.columns); column += C) {
        *sum_a = real_add(*sum_a, a[column - p.first]);
        *sum_b = real_add(*sum_b, b[column - p.first]);
    }
}

__kernel void wide_last_rows_forward_fused
(const __global storage *x, const __global storage *z, __global storage *y, __global float4 *stats,
 const __global float *gamma, const __global float *beta, long elements, long columns, long C, long K, float2 eps) {
    patch p = patch_of(elements, columns, K, get_group_id(0) * tiles_of(columns), 1, 0, 1, 1);
    long at = p.sample * elements;
    real sum = real_of_long(0), square = sum;
    for (; p.first < columns; p.first += TILE) {
        realv sums[VECTORS], squares[VECTORS];
        floatv shift[VECTORS];
        real s[VECTORS * WIDTH], q[VECTORS * WIDTH];
        for (int v = 0; v < VECTORS; v++) {
            shift[v] = group_shift(x + at, p, column_of(p, v), C);
        }
        column_sums(x + at, p, shift, sums, squares);
        for (int v = 0; v < VECTORS; v++) {
            realv_lanes(sums[v], s + v * WIDTH);
            realv_lanes(squares[v], q + v * WIDTH);
        }
        for (long c = p.first; c < min(p.first + TILE, C); c++) {
            add_channel(p, s, q, c, C, &sum, &square);
            if ((c + 1) % K == 0) {
                moments own = moments_of_sums(elements / C * K, UNPACK1(x + at + c / K * K), sum, square, 1.0f);
                stats[p.sample * (C / K) + c / K] = moments_statistics(own, eps);
                sum = real_of_long(0);
                square = sum;
            }
        }
    }
    p = backwards(p);
    for (p.first = 0; p.first < columns; p.first += TILE) {
        normalize(x + at, z + at, y + at, stats, gamma, beta, p, C);
    }
}

__kernel void wide_last_rows_backward_fused
(const __global storage *x, const __global storage *z, const __global storage *dy, __global storage *dx,
 __global storage *dz, const __global float4 *stats, __global float2 *sums, const __global float *gamma,
 const __global float *beta, __global real *partials, long elements, long columns, long C, long K) {
    __local real tree[2 * LOCAL_SIZE * WIDTH];
    patch p = patch_of(elements, columns, K, get_group_id(0) * tiles_of(columns), 1, 0, 1, 1);
    long at = p.sample * elements;
    real count = real_of_long(elements / C * K);
    real a = real_of_long(0), b = a;
    for (; p.first < columns; p.first += TILE) {
        real d_beta[VECTORS * WIDTH], d_gamma[VECTORS * WIDTH];
        column_gradients(x + at, z + at, dy + at, stats, gamma, beta, p, C, tree, d_beta, d_gamma);
        for (long c = p.first; c < min(p.first + TILE, C); c++) {
            real own_beta = real_of_long(0), own_gamma = own_beta;
            add_channel(p, d_beta, d_gamma, c, C, &own_beta, &own_gamma);
            partials[2 * (p.sample * C + c)] = own_beta;
            partials[2 * (p.sample * C + c) + 1] = own_gamma;
            real weight = real_of((float2)(gamma[c], 0.0f));
            a = real_add(a, real_mul(weight, own_beta));
            b = real_add(b, real_mul(weight, own_gamma));
            if ((c + 1) % K == 0) {
                sums[p.sample * (C / K) + c / K] = mean_pair(a, b, count);
                a = real_of_long(0);
                b = a;
            }
        }
    }
    p = backwards(p);
    for (p.first = 0; p.first < columns; p.first += TILE) {
        differentiate(x + at, z + at, dy + at, dx + at, dz + at, stats, sums, gamma, beta, p, C);
    }
}
#endif

/* y and statistics of the channels of tile number `tile` of all samples. */
INLINE void forward_tile(
    const __global storage *x, const __global storage *z, __global storage *y, __global float4 *stats,
    const __global float *gamma, const __global float *beta, long tile, long elements, long C, long K, float2 eps,
    __local real *tree) {
    patch p = patch_of(elements, C, K, tile, 1, 0, 1, 1);
    long at = p.sample * elements;
    realv sum[VECTORS], square[VECTORS];
    floatv shift[VECTORS];
    first_row(x + at, p, shift);
    column_sums(x + at, p, shift, sum, square);
    for (int v = 0; v < VECTORS; v++) {
        long column = column_of(p, v);
        moments own[WIDTH];
        column_moments(p, column, sum[v], square[v], shift[v], tree, own);
        for (int i = 0; i < WIDTH && column + i < C; i++) {
            if (ROW == 0) {
                stats[p.sample * C + column + i] = moments_statistics(own[i], eps);
            }
        }
    }
    group_barrier();
    normalize(x + at, z + at, y + at, stats, gamma, beta, backwards(p), C);
}

KERNEL(last_forward_fused)
(const __global storage *x, const __global storage *z, __global storage *y, __global float4 *stats,
 const __global float *gamma, const __global float *beta, volatile __global int *tickets, long elements, long C,
 long K, float2 eps) {
    __local real tree[2 * LOCAL_SIZE * WIDTH];
#if DRAWN
    stage now = before_stages(tickets);
    begin_stage(&now, tiles_of(C), 0);
    for (long tile; (tile = draw_ticket(&now)) >= 0;) {
        forward_tile(x, z, y, stats, gamma, beta, tile, elements, C, K, eps, tree);
    }
    leave_tickets(now);
#else
    forward_tile(x, z, y, stats, gamma, beta, get_group_id(0), elements, C, K, eps, tree);
#endif
}

KERNEL(last_backward_partial)
(const __global storage *x, const __global storage *z, const __global storage *dy, const __global float4 *stats,
 const __global float *gamma, const __global float *beta, const __global int *lengths, __global real *partials,
 long elements, long columns, long C, long K, long samples, long splits, long line, long places) {
    __local real tree[2 * LOCAL_SIZE * WIDTH];
    patch p = patch_of(elements, columns, K, get_group_id(0), splits, lengths, line, places);
    long at = p.sample * elements;
    real d_beta[VECTORS * WIDTH], d_gamma[VECTORS * WIDTH];
    column_gradients(x + at, z + at, dy + at, stats, gamma, beta, p, C, tree, d_beta, d_gamma);
    long split = get_group_id(0) / tiles_of(columns) % splits;
    for (int v = 0; v < VECTORS; v++) {
        long column = column_of(p, v);
        spot s = spot_of(p, column, C);
        for (int i = 0; i < WIDTH && column + i < columns; i++, s = next_spot(s)) {
            if (ROW == 0) {
                __global real *partial = partials + 2 * partial_of(p, split, samples, s);
                partial[0] = d_beta[v * WIDTH + i];
                partial[1] = d_gamma[v * WIDTH + i];
            }
        }
    }
}

KERNEL(last_backward_apply)
(const __global storage *x, const __global storage *z, const __global storage *dy, __global storage *dx,
 __global storage *dz, const __global float4 *stats, const __global float2 *sums, const __global float *gamma,
 const __global float *beta, const __global int *lengths, long elements, long columns, long C, long K, long splits,
 long line, long places) {
    patch p = patch_of(elements, columns, K, get_group_id(0), splits, lengths, line, places);
    long at = p.sample * elements;
    differentiate(x + at, z + at, dy + at, dx + at, dz + at, stats, sums, gamma, beta, p, C);
}

/* dx and gradients of the channels of tile number `tile` of all samples. */
INLINE void backward_tile(
    const __global storage *x, const __global storage *z, const __global storage *dy, __global storage *dx,
    __global storage *dz, const __global float4 *stats, __global float2 *sums, const __global float *gamma,
    const __global float *beta, __global float *dGamma, __global float *dBeta, long tile, long elements, long C, long K,
    int accumulate, __local real *tree) {
    patch p = patch_of(elements, C, K, tile, 1, 0, 1, 1);
    long at = p.sample * elements;
    real d_beta[VECTORS * WIDTH], d_gamma[VECTORS * WIDTH];
    column_gradients(x + at, z + at, dy + at, stats, gamma, beta, p, C, tree, d_beta, d_gamma);
    real count = real_of_long(p.rows);
    for (int v = 0; v < VECTORS; v++) {
        long column = column_of(p, v);
        for (int i = 0; i < WIDTH && column + i < C; i++) {
            if (ROW == 0) {
                real b = d_beta[v * WIDTH + i];
                real g = d_gamma[v * WIDTH + i];
#if !ROW_AFFINE
                store_gradients(dGamma, dBeta, column + i, g, b, accumulate);
#endif
                sums[p.sample * C + column + i] = mean_pair(b, g, count);
            }
        }
    }
    group_barrier();
    differentiate(x + at, z + at, dy + at, dx + at, dz + at, stats, sums, gamma, beta, backwards(p), C);
}

KERNEL(last_backward_fused)
(const __global storage *x, const __global storage *z, const __global storage *dy, __global storage *dx,
 __global storage *dz, const __global float4 *stats, __global float2 *sums, const __global float *gamma,
 const __global float *beta, __global float *dGamma, __global float *dBeta, volatile __global int *tickets,
 long elements, long C, long K, int accumulate) {
    __local real tree[2 * LOCAL_SIZE * WIDTH];
#if DRAWN
    stage now = before_stages(tickets);
    begin_stage(&now, tiles_of(C), 0);
    for (long tile; (tile = draw_ticket(&now)) >= 0;) {
        backward_tile(
            x, z, dy, dx, dz, stats, sums, gamma, beta, dGamma, dBeta, tile, elements, C, K, accumulate, tree);
    }
    leave_tickets(now);
#else
    backward_tile(
        x, z, dy, dx, dz, stats, sums, gamma, beta, dGamma, dBeta, get_group_id(0), elements, C, K, accumulate, tree);
#endif
}

#if LOCAL_SIZE == 1 && !ROW_STATS
/* The sums of a part of the walk, [2][column], all columns of all tiles. */
INLINE __global real *sums_of(__global real *partials, patch all, long split) {
    return partials + 2 * split * tiles_of(all.columns) * TILE;
}

INLINE void store_sums(__global real *sums, patch p, const realv *a, const realv *b) {
    for (int v = 0; v < VECTORS; v++) {
        real first[WIDTH], second[WIDTH];
        realv_lanes(a[v], first);
        realv_lanes(b[v], second);
        for (int i = 0; i < WIDTH; i++) {
            sums[column_of(p, v) + i] = first[i];
            sums[tiles_of(p.columns) * TILE + column_of(p, v) + i] = second[i];
        }
    }
}

/* Adds up, over all parts and repeats, the sums of `channels` channels from c on, each with its K columns: a and b of channel
 * c + i are at i*K. */
INLINE void add_sums(
    __global real *partials, patch all, long splits, long C, long c, long channels, real *a, real *b) {
    for (int i = 0; i < TICKET_CHANNELS; i++) {
        a[i] = real_of_long(0);
        b[i] = a[i];
    }
    for (long split = 0; split < splits; split++) {
        const __global real *sums = sums_of(partials, all, split);
        for (long column = c * all.K; column < all.columns; column += C * all.K) {
            for (int i = 0; i < channels * all.K; i++) {
                a[i] = real_add(a[i], sums[column + i]);
                b[i] = real_add(b[i], sums[tiles_of(all.columns) * TILE + column + i]);
            }
        }
    }
    for (long i = 0; i < channels * all.K; i += all.K) {
        for (long k = 1; k < all.K; k++) {
            a[i] = real_add(a[i], a[i + k]);
            b[i] = real_add(b[i], b[i + k]);
        }
    }
}

/* A row that counts, if any does: the first one of a sample. */
INLINE const __global storage *counted_row(const __global storage *x, patch all) {
    long row = 0;
#if MASKED
    while (row < all.rows - all.places && !counts(all, row)) {
        row += all.places;
    }
#endif
    return x + row * all.columns;
}

/* A row's first value of each channel, about which the sums of all parts are taken, so that they can be added. */
INLINE floatv channel_shift(const __global storage *row, patch p, long column, long C) {
    if (p.columns == C) {
        return load_some(row + column, C - column, 0.0f);
    }
    spot s = spot_of(p, column, C);
    float own[WIDTH];
    for (int i = 0; i < WIDTH; i++, s = next_spot(s)) {
        own[i] = UNPACK1(row + s.channel * p.K);
    }
    return LOADV(own);
}

__kernel void wide_last_forward_tickets
(const __global storage *x, const __global storage *z, __global storage *y, __global float4 *stats,
 const __global float *gamma, const __global float *beta, const __global int *lengths, __global real *partials,
 volatile __global int *tickets, long elements, long columns, long C, long K, long splits, long applies, long line,
 long places, long count, float2 eps) {
    patch all = patch_of(elements, columns, K, 0, 1, lengths, line, places);
    const __global storage *row = counted_row(x, all);
    long tiles = tiles_of(columns);
    stage now = before_stages(tickets);
    begin_stage(&now, tiles * splits, 0);
    floatv shift[VECTORS];
    long tile = -1;
    for (long part; (part = draw_ticket(&now)) >= 0;) {
        patch p = part_of(all, part, splits);
        if (p.first != tile) {
            for (int v = 0; v < VECTORS; v++) {
                shift[v] = channel_shift(row, p, column_of(p, v), C);
            }
            tile = p.first;
        }
        realv sum[VECTORS], square[VECTORS];
        column_sums(x, p, shift, sum, square);
        store_sums(sums_of(partials, all, part / tiles), p, sum, square);
    }
    end_stage(&now);
    long most = TICKET_CHANNELS / K;
    begin_stage(&now, (C + most - 1) / most, 0);
    for (long part; (part = draw_ticket(&now)) >= 0;) {
        real s[TICKET_CHANNELS], q[TICKET_CHANNELS];
        long c = part * most;
        long channels = min(most, C - c);
        add_sums(partials, all, splits, C, c, channels, s, q);
        for (long i = 0; i < channels; i++) {
            float shift_of_it = UNPACK1(row + (c + i) * K);
            stats[c + i] = moments_statistics(moments_of_sums(count, shift_of_it, s[i * K], q[i * K], 1.0f), eps);
        }
    }
    end_stage(&now);
    begin_stage(&now, tiles * applies, 1); /* from what has been summed last */
    column_affine own[VECTORS];
    tile = -1;
    for (long part; (part = draw_ticket(&now)) >= 0;) {
        patch p = part_of(all, part, applies);
        if (p.first != tile) {
            load_affines(stats, gamma, beta, p, C, own);
            tile = p.first;
        }
        normalize_rows(x, z, y, gamma, beta, p, own);
    }
    leave_tickets(now);
}

/* Of so many parts of each tile of a block of tiles, one; parts of neighbouring tiles follow each other. */
INLINE patch part_of_block(patch all, long block, long beside, long part, long parts) {
    return part_of(all, part / beside * tiles_of(all.columns) + block * beside + part % beside, parts);
}

__kernel void wide_last_backward_tickets
(const __global storage *x, const __global storage *z, const __global storage *dy, __global storage *dx,
 __global storage *dz, const __global float4 *stats, __global float2 *sums, const __global float *gamma,
 const __global float *beta, __global float *dGamma, __global float *dBeta, const __global int *lengths,
 __global real *partials, volatile __global int *tickets, long elements, long columns, long C, long K, long beside,
 long splits, long applies, long line, long places, long count, int accumulate) {
    patch all = patch_of(elements, columns, K, 0, 1, lengths, line, places);
    long blocks = tiles_of(columns) / beside;
    long channels_of_block = blocks == 1 ? C : beside * TILE;
    long most = TICKET_CHANNELS / K;
    column_norm norms[VECTORS];
    column_slope own[VECTORS];
    stage now = before_stages(tickets);
    for (long block = 0; block < blocks; block++) {
        begin_stage(&now, beside * splits, 0);
        long tile = -1;
        for (long part; (part = draw_ticket(&now)) >= 0;) {
            patch p = part_of_block(all, block, beside, part, splits);
            if (p.first != tile) {
                load_norms(stats, gamma, beta, p, C, norms);
                tile = p.first;
            }
            realv sum[VECTORS], product[VECTORS];
            gradient_sums(x, z, dy, gamma, beta, p, norms, sum, product);
            store_sums(sums_of(partials, all, part / beside), p, sum, product);
        }
        end_stage(&now);
        begin_stage(&now, (channels_of_block + most - 1) / most, 0);
        for (long part; (part = draw_ticket(&now)) >= 0;) {
            real a[TICKET_CHANNELS], b[TICKET_CHANNELS];
            long c = block * channels_of_block + part * most;
            long channels = min(most, C - c);
            add_sums(partials, all, splits, C, c, channels, a, b);
            for (long i = 0; i < channels; i++) {
                real d_gamma = real_mul(b[i * K], real_of((float2)(stats[c + i].z, 0.0f)));
                store_gradients(dGamma, dBeta, c + i, d_gamma, a[i * K], accumulate);
                sums[c + i] = mean_pair(a[i * K], d_gamma, real_of_long(count));
            }
        }
        end_stage(&now);
        begin_stage(&now, beside * applies, 1); /* from what has been summed last */
        tile = -1;
        for (long part; (part = draw_ticket(&now)) >= 0;) {
            patch p = part_of_block(all, block, beside, part, applies);
            if (p.first != tile) {
                load_slopes(stats, sums, gamma, beta, p, C, norms, own);
                tile = p.first;
            }
            differentiate_rows(x, z, dy, dx, dz, gamma, beta, p, norms, own);
        }
    }
    leave_tickets(now);
}
#endif
