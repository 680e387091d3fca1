/* Batch norm over a tensor stored (N, S, C): statistics for each channel, the mathematics of channels_first.cl.
 *
 * The tensor is walked as rows of `columns` neighbouring values, a multiple of C: a few channels are repeated side by
 * side until a row is worth a vector, the last row may then be short, and the channel of a column is column % C. A
 * work-group takes a tile of LANES*VECTORS*WIDTH columns, LANES work-items side by side, LOCAL_SIZE/LANES rows at a
 * time.
 *
 *   <family>_last_stats_partial     tiles*splits groups  reads x            writes partials        1R
 *   <family>_last_apply             tiles*any groups     reads x            writes y               1R + 1W
 *   <family>_last_forward_fused     tiles groups         reads x twice      writes y, stats        2R + 1W, or 1R + 1W
 *   <family>_last_backward_partial  tiles*splits groups  reads x, dy        writes partials        2R
 *   <family>_last_backward_apply    tiles*any groups     reads dy (and x)   writes dx              2R + 1W (1R + 1W)
 *   <family>_last_backward_fused    tiles groups         reads x, dy twice  writes dx, gradients   4R + 1W, or 2R + 1W
 *
 * Partials are [split][column], so a finalize that takes splits*columns/C splits of C channels merges the repeated
 * channels too. The fused kernels need columns = C. y may be x, dx may be dy.
 * Local memory: 2*LOCAL_SIZE*WIDTH reals; trees outside of all loops over rows.
 *
 *   LANES        work-items side by side in a row, a power of two of at most LOCAL_SIZE
 *   VECTORS      vectors of a row that a work-item takes, one after the other
 *   BATCH_STATS  backward apply: 1 the statistics depend on x; 0 they are constants, dx = gamma*invStd*dy
 * and those of family.clh.
 */
#include "family.clh"

#ifndef LANES
#define LANES LOCAL_SIZE
#endif
#ifndef VECTORS
#define VECTORS 1
#endif
#ifndef BATCH_STATS
#define BATCH_STATS 1
#endif
#define TILE (LANES * WIDTH * VECTORS)
#define ROWS (LOCAL_SIZE / LANES)
#define LANE ((int)get_local_id(0) % LANES)
#define ROW ((int)get_local_id(0) / LANES)
/* Rows that a work-item takes of one vector before it goes on to the next. */
#define BLOCK 8

/* The part of the tensor that a work-group walks. */
typedef struct {
    long elements;
    long columns;
    long rows;
    long first; /* column of the tile */
    long from;  /* row */
    long to;
} patch;

static inline long tiles_of(long columns) { return (columns + TILE - 1) / TILE; }

static inline patch patch_of(long elements, long columns, long group, long splits) {
    long rows = (elements + columns - 1) / columns;
    long split = group / tiles_of(columns);
    patch p = {
        elements, columns, rows, group % tiles_of(columns) * TILE, split * rows / splits, (split + 1) * rows / splits};
    return p;
}

static inline long column_of(patch p, int vector) { return p.first + (vector * LANES + LANE) * WIDTH; }

/* Values of a vector that lie in a row; the last row may be short. */
static inline long inside(patch p, long row, long column) {
    return min(p.columns - column, p.elements - row * p.columns - column);
}

/* Adds up WIDTH pairs of values over the rows of a work-group; the work-items of row 0 get the sums. */
static inline void row_sums(real *a, real *b, __local real *tree) {
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

/* The statistics of a vector's channels. */
typedef struct {
    floatv high;
    floatv low;
    floatv inv_std;
} column_stats;

static inline column_stats load_stats(const __global float4 *stats, patch p, long column, long C) {
    float high[WIDTH], low[WIDTH], inv_std[WIDTH];
    for (int i = 0; i < WIDTH; i++) {
        float4 own = column + i < p.columns ? stats[(column + i) % C] : (float4)(0.0f);
        high[i] = own.x;
        low[i] = own.y;
        inv_std[i] = own.z;
    }
    column_stats c = {LOADV(high), LOADV(low), LOADV(inv_std)};
    return c;
}

static inline floatv load_channels(const __global float *values, patch p, long column, long C) {
    float own[WIDTH];
    for (int i = 0; i < WIDTH; i++) {
        own[i] = column + i < p.columns ? values[(column + i) % C] : 0.0f;
    }
    return LOADV(own);
}

/* Sums about the values of the first row, for the vectors of a work-item. */
static inline void column_sums(
    const __global float *x, patch p, realv *sum, realv *square, floatv *shift) {
    for (int v = 0; v < VECTORS; v++) {
        long column = column_of(p, v);
        sum[v] = (realv)REALV_ZERO;
        square[v] = (realv)REALV_ZERO;
        shift[v] = p.from < p.to ? load_some(x + p.from * p.columns + column, inside(p, p.from, column), 0.0f)
                                 : (floatv)(0.0f);
    }
    for (long block = p.from + ROW; block < p.to; block += BLOCK * ROWS) {
        long end = min(p.to, block + BLOCK * ROWS);
        for (int v = 0; v < VECTORS && column_of(p, v) < p.columns; v++) {
            long column = column_of(p, v);
            realv s = sum[v];
            realv q = square[v];
            for (long row = block; row < end; row += ROWS) {
                floatv values = load_some(x + row * p.columns + column, inside(p, row, column), shift[v]);
                realv d = realv_difference(values, shift[v], (floatv)(0.0f));
                realv_add(&s, d);
                realv_add_product(&q, d, d);
            }
            sum[v] = s;
            square[v] = q;
        }
    }
}

/* The moments of the channels of one vector, from the sums of all rows of the work-group; row 0 gets them. */
static inline void column_moments(
    patch p, long column, realv sum, realv square, floatv shift, __local real *tree, moments *out) {
    real s[WIDTH], q[WIDTH];
    float shifts[WIDTH];
    realv_lanes(sum, s);
    realv_lanes(square, q);
    STOREV(shift, shifts);
    row_sums(s, q, tree);
    for (int i = 0; i < WIDTH; i++) {
        bool cut = p.to == p.rows && p.from < p.to && (p.rows - 1) * p.columns + column + i >= p.elements;
        out[i] = moments_of_sums(p.to - p.from - cut, shifts[i], s[i], q[i]);
    }
}

/* sum dy and sum dy*xHat of the channels of each vector; row 0 hands them to `out`, [vector][WIDTH]. */
static inline void column_gradients(
    const __global float *x, const __global float *dy, const __global float4 *stats, patch p, long C,
    __local real *tree, real *d_beta, real *d_gamma) {
    realv sum[VECTORS], product[VECTORS];
    column_stats own[VECTORS];
    for (int v = 0; v < VECTORS; v++) {
        sum[v] = (realv)REALV_ZERO;
        product[v] = (realv)REALV_ZERO;
        own[v] = load_stats(stats, p, column_of(p, v), C);
    }
    for (long block = p.from + ROW; block < p.to; block += BLOCK * ROWS) {
        long end = min(p.to, block + BLOCK * ROWS);
        for (int v = 0; v < VECTORS && column_of(p, v) < p.columns; v++) {
            long column = column_of(p, v);
            realv s = sum[v];
            realv q = product[v];
            for (long row = block; row < end; row += ROWS) {
                long at = row * p.columns + column;
                long count = inside(p, row, column);
                realv g = realv_of(load_some(dy + at, count, 0.0f));
                realv d = realv_difference(load_some(x + at, count, 0.0f), own[v].high, own[v].low);
                realv_add(&s, g);
                realv_add_product(&q, g, d);
            }
            sum[v] = s;
            product[v] = q;
        }
    }
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

static inline void normalize(
    const __global float *x, __global float *y, const __global float4 *stats, const __global float *gamma,
    const __global float *beta, patch p, long C) {
    column_stats own[VECTORS];
    floatv scale[VECTORS], offset[VECTORS];
    for (int v = 0; v < VECTORS; v++) {
        long column = column_of(p, v);
        own[v] = load_stats(stats, p, column, C);
        scale[v] = own[v].inv_std * load_channels(gamma, p, column, C);
        offset[v] = load_channels(beta, p, column, C);
    }
    for (long row = p.from + ROW; row < p.to; row += ROWS) {
        for (int v = 0; v < VECTORS && column_of(p, v) < p.columns; v++) {
            long at = row * p.columns + column_of(p, v);
            long count = inside(p, row, column_of(p, v));
            floatv d = load_some(x + at, count, 0.0f) - own[v].high - own[v].low;
            store_some(fma(d, scale[v], offset[v]), y + at, count);
        }
    }
}

static inline void differentiate(
    const __global float *x, const __global float *dy, __global float *dx, const __global float4 *stats,
    const __global float2 *sums, const __global float *gamma, patch p, long C) {
    column_stats own[VECTORS];
    floatv scale[VECTORS], offset[VECTORS], slope[VECTORS];
    for (int v = 0; v < VECTORS; v++) {
        long column = column_of(p, v);
        own[v] = load_stats(stats, p, column, C);
        scale[v] = own[v].inv_std * load_channels(gamma, p, column, C);
#if BATCH_STATS
        float offsets[WIDTH], slopes[WIDTH];
        for (int i = 0; i < WIDTH; i++) {
            float2 sum = column + i < p.columns ? sums[(column + i) % C] : (float2)(0.0f);
            offsets[i] = sum.x;
            slopes[i] = sum.y;
        }
        offset[v] = LOADV(offsets);
        slope[v] = LOADV(slopes) * own[v].inv_std;
#endif
    }
    for (long row = p.from + ROW; row < p.to; row += ROWS) {
        for (int v = 0; v < VECTORS && column_of(p, v) < p.columns; v++) {
            long at = row * p.columns + column_of(p, v);
            long count = inside(p, row, column_of(p, v));
            floatv g = load_some(dy + at, count, 0.0f);
#if BATCH_STATS
            floatv d = load_some(x + at, count, 0.0f) - own[v].high - own[v].low;
            g = fma(-d, slope[v], g - offset[v]);
#endif
            store_some(g * scale[v], dx + at, count);
        }
    }
}

KERNEL(last_stats_partial)
(const __global float *x, __global real *partials, long elements, long columns, long splits) {
    __local real tree[2 * LOCAL_SIZE * WIDTH];
    patch p = patch_of(elements, columns, get_group_id(0), splits);
    realv sum[VECTORS], square[VECTORS];
    floatv shift[VECTORS];
    column_sums(x, p, sum, square, shift);
    long split = get_group_id(0) / tiles_of(columns);
    for (int v = 0; v < VECTORS; v++) {
        long column = column_of(p, v);
        moments own[WIDTH];
        column_moments(p, column, sum[v], square[v], shift[v], tree, own);
        for (int i = 0; i < WIDTH && column + i < columns; i++) {
            if (ROW == 0) {
                __global real *partial = partials + 3 * (split * columns + column + i);
                partial[0] = own[i].count;
                partial[1] = own[i].mean;
                partial[2] = own[i].m2;
            }
        }
    }
}

KERNEL(last_apply)
(const __global float *x, __global float *y, const __global float4 *stats, const __global float *gamma,
 const __global float *beta, long elements, long columns, long C, long splits) {
    normalize(x, y, stats, gamma, beta, patch_of(elements, columns, get_group_id(0), splits), C);
}

KERNEL(last_forward_fused)
(const __global float *x, __global float *y, __global float4 *stats, const __global float *gamma,
 const __global float *beta, long elements, long C, float2 eps) {
    __local real tree[2 * LOCAL_SIZE * WIDTH];
    patch p = patch_of(elements, C, get_group_id(0), 1);
    realv sum[VECTORS], square[VECTORS];
    floatv shift[VECTORS];
    column_sums(x, p, sum, square, shift);
    for (int v = 0; v < VECTORS; v++) {
        long column = column_of(p, v);
        moments own[WIDTH];
        column_moments(p, column, sum[v], square[v], shift[v], tree, own);
        for (int i = 0; i < WIDTH && column + i < C; i++) {
            if (ROW == 0) {
                stats[column + i] = moments_statistics(own[i], eps);
            }
        }
    }
    barrier(CLK_GLOBAL_MEM_FENCE);
    normalize(x, y, stats, gamma, beta, p, C);
}

KERNEL(last_backward_partial)
(const __global float *x, const __global float *dy, const __global float4 *stats, __global real *partials,
 long elements, long columns, long C, long splits) {
    __local real tree[2 * LOCAL_SIZE * WIDTH];
    patch p = patch_of(elements, columns, get_group_id(0), splits);
    real d_beta[VECTORS * WIDTH], d_gamma[VECTORS * WIDTH];
    column_gradients(x, dy, stats, p, C, tree, d_beta, d_gamma);
    long split = get_group_id(0) / tiles_of(columns);
    for (int v = 0; v < VECTORS; v++) {
        long column = column_of(p, v);
        for (int i = 0; i < WIDTH && column + i < columns; i++) {
            if (ROW == 0) {
                __global real *partial = partials + 2 * (split * columns + column + i);
                partial[0] = d_beta[v * WIDTH + i];
                partial[1] = d_gamma[v * WIDTH + i];
            }
        }
    }
}

KERNEL(last_backward_apply)
(const __global float *x, const __global float *dy, __global float *dx, const __global float4 *stats,
 const __global float2 *sums, const __global float *gamma, long elements, long columns, long C, long splits) {
    differentiate(x, dy, dx, stats, sums, gamma, patch_of(elements, columns, get_group_id(0), splits), C);
}

KERNEL(last_backward_fused)
(const __global float *x, const __global float *dy, __global float *dx, const __global float4 *stats,
 __global float2 *sums, const __global float *gamma, __global float *dGamma, __global float *dBeta, long elements,
 long C, int accumulate) {
    __local real tree[2 * LOCAL_SIZE * WIDTH];
    patch p = patch_of(elements, C, get_group_id(0), 1);
    real d_beta[VECTORS * WIDTH], d_gamma[VECTORS * WIDTH];
    column_gradients(x, dy, stats, p, C, tree, d_beta, d_gamma);
    real count = real_of_long(p.rows);
    for (int v = 0; v < VECTORS; v++) {
        long column = column_of(p, v);
        for (int i = 0; i < WIDTH && column + i < C; i++) {
            if (ROW == 0) {
                long c = column + i;
                real beta = d_beta[v * WIDTH + i];
                real gamma = d_gamma[v * WIDTH + i];
                dGamma[c] = (accumulate ? dGamma[c] : 0.0f) + real_high(gamma);
                dBeta[c] = (accumulate ? dBeta[c] : 0.0f) + real_high(beta);
                sums[c] = (float2)(real_high(real_div(beta, count)), real_high(real_div(gamma, count)));
            }
        }
    }
    barrier(CLK_GLOBAL_MEM_FENCE);
    differentiate(x, dy, dx, stats, sums, gamma, p, C);
}
