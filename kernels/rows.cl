/* Layer, RMS, group and instance norm over rows of K*S neighbouring values: statistics for each row.
 *
 * Forward   mean = sum(x)/D, variance = sum((x - mean)^2)/D, D = K*S; y = (x - mean)*invStd*gamma + beta
 *           (Ba 2016; Wu and He 2018; Ulyanov 2016); without a mean, invStd = 1/sqrt(sum(x^2)/D + eps)
 *           (Zhang and Sennrich 2019)
 * Backward  dx = invStd*(g - sum(g)/D - xHat*sum(g*xHat)/D), g = dy*gamma, xHat = (x - mean)*invStd; without a mean,
 *           the middle term is missing
 *           dBeta = sum(dy), dGamma = sum(dy*xHat), over all rows that share them
 *
 * A row is K planes of S values with one gamma each; plane p of the tensor takes number p % C. With ELEMENTWISE 1 a
 * row is one plane (K = 1), and gamma has C planes of S. A work-group takes a block of rows, LOCAL_SIZE/SPAN at a time;
 * sums down the columns are added up over HEIGHT of these before they go to memory.
 *
 *   <family>_rows_forward_fused     any groups            reads x      writes y, stats            1R + 1W
 *   <family>_rows_backward_fused    any groups            reads x, dy  writes dx, partials        2R + 1W
 *   <family>_rows_columns_partial   tiles*C*splits groups reads x, dy  writes partials            2R
 *
 * stats: rows x (mean high, mean low, invStd, variance). Partials: (sum dy, sum dy*xHat) as reals; of each plane in
 * the order of the tensor, which is [sample][C]; with ELEMENTWISE 1, [groups, or splits*LOCAL_SIZE/SPAN][C*S], behind which, with
 * BLOCKS, rows_backward_fused has as many pairs of floats.
 * The bytes hold where a row, two where one is written while the next is summed, 2*BESIDE or 2*HEIGHT of each work-item's, stay
 * near the compute unit between two passes over them; they do not count z, dz, the addend and the sum. y may be x, dx may be dy.
 * Local memory: 2*LOCAL_SIZE reals where LOCAL_SIZE > 1; a tree for each row (and plane, in the backward), in loops
 * that are as long for every work-item.
 *
 *   HEIGHT      rows that a work-item takes side by side, column by column
 *   PARAMETERS  backward with ELEMENTWISE 1: whether partials are written, which the wide family can; a group then takes
 *               samples of C rows, HEIGHT of them or more
 *   MEANWHILE   1: such a backward, where C = 1, writes rows while it sums the next ones
 *   BESIDE      rows that a work-item takes side by side in the forward; more than 1 needs ELEMENTWISE 1, LOCAL_SIZE 1, C = 1
 *               and rows of whole vectors of floats
 *   SHORT       1: the compiler is told K and S of short rows, as PLANES and PLANE, and with ELEMENTWISE C, as GROUPS; needs
 *               LOCAL_SIZE 1 and FP64 1
 * and those of run.clh and family.clh.
 */
#include "run.clh"

#ifndef HEIGHT
#define HEIGHT 4
#endif
#ifndef PARAMETERS
#define PARAMETERS 1
#endif
#ifndef MEANWHILE
#define MEANWHILE 0
#endif
#ifndef BESIDE
#define BESIDE 1
#endif
#ifndef GROUPS
#define GROUPS 1
#endif
#ifndef PLANES
#define PLANES 1
#endif
#ifndef PLANE
#define PLANE 1
#endif

#if !SHORT
#define KNOWN_LENGTHS
#elif ELEMENTWISE
#define KNOWN_LENGTHS C = GROUPS; K = PLANES; S = PLANE;
#else
#define KNOWN_LENGTHS K = PLANES; S = PLANE;
#endif

/* As LOAD_FLOATS. */
#if CPU_COMPILER && FP64
typedef realv real_vector __attribute__((aligned(8)));
#define LOAD_REALS(p) (*(const __global real_vector *)(p))
#define STORE_REALS(v, p) (*(__global real_vector *)(p) = (v))
#else
#define LOAD_REALS(p) LOADV(p)
#define STORE_REALS(v, p) STOREV(v, p)
#endif

/* Adds the sums of a vector of columns to partials, at most `count` of them, or sets these. */
INLINE void add_columns(realv d_beta, realv d_gamma, __global real *partials, long count, int set) {
#if FP64 && WIDTH > 1
    if (count >= WIDTH) {
        realv low, high; /* pairs */
        low.even = d_beta.lo;
        low.odd = d_gamma.lo;
        high.even = d_beta.hi;
        high.odd = d_gamma.hi;
        STORE_REALS(set ? low : low + LOAD_REALS(partials), partials);
        STORE_REALS(set ? high : high + LOAD_REALS(partials + WIDTH), partials + WIDTH);
        return;
    }
#endif
    real b[WIDTH], g[WIDTH];
    realv_lanes(d_beta, b);
    realv_lanes(d_gamma, g);
    int inside = (int)min(count, (long)WIDTH); /* llvmpipe goes wrong where a loop has both bounds */
    for (int k = 0; k < inside; k++) {
        partials[2 * k] = set ? b[k] : real_add(partials[2 * k], b[k]);
        partials[2 * k + 1] = set ? g[k] : real_add(partials[2 * k + 1], g[k]);
    }
}

/* Adds sum g and sum g*xHat down the columns of rows `from` to `to` to this work-item's partials, or sets them.
 * Rows are `stride` apart in the tensor and `step` apart in stats. */
INLINE void column_sums(
    const __global storage *x, const __global storage *z, const __global storage *dy, const __global float4 *stats,
    scaling affine, __global real *partials, long length, long stride,
    long step, long from, long to, int set) {
    for (long i = LANE * WIDTH; i < length; i += SPAN * WIDTH) {
        long end = i + WIDTH <= length ? i + WIDTH : length;
        realv sum = REALV_ZERO;
        realv product = REALV_ZERO;
        for (long row = from + ROW; row < to; row += ROWS) {
            norm n = norm_at(norm_of(stats[row * step], affine), 0, affine, i, end);
            long at = row * stride;
            floatv g = gradient_at(x + at, z + at, dy + at, n, i, end);
            realv d = realv_difference(load_some(x + at + i, end - i, 0.0f), n.high, n.low);
            realv_add(&sum, realv_of(g));
            realv_add_product(&product, realv_product(g, n.inv_std), d);
        }
        add_columns(sum, product, partials + 2 * i, end - i, set);
    }
}

#if ELEMENTWISE && PARAMETERS && LOCAL_SIZE == 1
/* Sums down the columns as rows add to them: pairs of g and g*xHat, or with BLOCKS, of BLOCK_SUMS sums of rows each, floats, those of
 * all g first. */
#define BLOCK_SUMS 32
#if BLOCKS
typedef float column;

/* Adds a vector's values, at most `count` of them, to sums. */
INLINE void add_floats(floatv v, __global float *sums, long count) {
    if (count >= WIDTH) {
        STORE_FLOATS(LOAD_FLOATS(sums) + v, sums);
        return;
    }
    float part[WIDTH];
    STOREV(v, part);
    for (int k = 0; k < (int)count; k++) {
        sums[k] += part[k];
    }
}

/* Adds sums of g, and of g*xHat behind them, of `count` columns to partials. */
INLINE void end_columns(const __global column *columns, __global real *partials, long count) {
    for (long i = 0; i < count; i += WIDTH) {
        realv d_beta = realv_of(load_floats(columns + i, count - i));
        realv d_gamma = realv_of(load_floats(columns + count + i, count - i));
        add_columns(d_beta, d_gamma, partials + 2 * i, count - i, 0);
    }
}
#else
typedef struct {
    real sum;
    real product;
} column;
#endif

/* Of the values from i to length, at most a vector, of `height` rows, `stride` values from one to the next: adds g*gamma and
 * g*gamma*(x - mean), with BLOCKS g*gamma*xHat, to the rows' sums, g and g*xHat to those of the `stride` columns; at a row's end,
 * those that no vector before has. */
INLINE void add_rows(
    const __global storage *x, const __global storage *z, const __global storage *dy, scaling affine, long i,
    long length, long stride, const int height, const int fetched, const norm *rows, const int end,
    __global column *columns, twin_sums *sums) {
    floatv d_beta = 0.0f;
    floatv d_gamma = 0.0f;
#pragma unroll
    for (int r = 0; r < height; r++) {
        long at = r * stride;
        norm n = norm_at(rows[r], 0, affine, i, length);
        floatv g = gradient_at(x + at, z + at, dy + at, n, i, length);
        g = end ? unseen(g, 0.0f, length) : g;
        floatv values = load_some(x + at + i, length - i, n.high);
        if (r < fetched) {
            fetch(x + at + i + height * stride);
            fetch(dy + at + i + height * stride);
        }
        floatv normal = x_hat(values, n);
        d_beta += g;
        d_gamma = fma(g, normal, d_gamma);
#if BLOCKS
        floatv weighted = g * n.gamma;
        add_to_block(weighted, weighted, normal, i, &sums[r]);
#else
        realv weighted = realv_product(g, n.gamma);
        realv_add(&sums[r].first, weighted);
        realv_add_product(&sums[r].second, weighted, realv_difference(values, n.high, n.low));
#endif
    }
#if BLOCKS
    add_floats(d_beta, columns + i, length - i);
    add_floats(d_gamma, columns + stride + i, length - i);
#else
    add_columns(realv_of(d_beta), realv_of(d_gamma), (__global real *)(columns + i), length - i, 0);
#endif
}

/* dx of the values from i to length, at most a vector, of `height` rows, and their g to dz. */
INLINE void write_rows(
    const __global storage *x, const __global storage *z, const __global storage *dy, __global storage *dx,
    __global storage *dz, scaling affine, long i, long length, long stride, const int height, const int fetched,
    const norm *rows, const means *m) {
    floatv v[HEIGHT], g[HEIGHT];
#pragma unroll
    for (int r = 0; r < height; r++) {
        long at = r * stride;
        if (r >= fetched) {
            fetch(x + at + i + height * stride);
            fetch(dy + at + i + height * stride);
        }
        norm n = norm_at(rows[r], 0, affine, i, length);
        v[r] = differentiated_at(x + at, z + at, dy + at, n, m[r], i, length, &g[r]);
        if (STORAGE == 0) {
            store_differentiated(v[r], g[r], dx + at, dz + at, i, length);
        }
    }
#pragma unroll
    for (int r = 0; STORAGE != 0 && r < height; r++) { /* rows 4 KiB apart: a Zen 4 takes a reading for one of what it writes */
        store_differentiated(v[r], g[r], dx + r * stride, dz + r * stride, i, length);
    }
}

/* Of `height` rows from number `row` on, each C after the one before, writes dx, by their `sums`; adds up the rows that come
 * next, or these where none are written, to `sums` and to `columns`. Both in one go keeps memory busy with readings and writings
 * alike. Several rows are no shorter than a vector. */
INLINE void backward_rows(
    const __global storage *x, const __global storage *z, const __global storage *dy, __global storage *dx,
    __global storage *dz, const __global float4 *stats, scaling affine, __global column *columns, long row, long C,
    long S, const int height, const int write, const int add, float2 *sums) {
    const int fetched = write && add ? height : height / 2; /* rows whose successors are asked for while they are added */
    long stride = C * S;
    long next = write ? row + height * C : row;
    long at = row * S;
    long then = next * S;
    norm own[HEIGHT], coming[HEIGHT];
    means m[HEIGHT];
    twin_sums added[HEIGHT];
    floatv end[HEIGHT], end_gradient[HEIGHT];
    long last = S - WIDTH;
#pragma unroll
    for (int r = 0; r < height; r++) {
        if (write) {
            own[r] = norm_of(stats[row + r * C], affine);
            m[r] = means_of(sums[r]);
        }
        if (write && OVERLAP(S)) { /* first: dx may be dy */
            long begin = at + r * stride;
            norm n = norm_at(own[r], 0, affine, last, S);
            end[r] = differentiated_at(x + begin, z + begin, dy + begin, n, m[r], last, S, &end_gradient[r]);
        }
        if (add) {
            coming[r] = norm_of(stats[next + r * C], affine);
            added[r] = twin_sums_of((realv)REALV_ZERO, (realv)REALV_ZERO);
        }
    }
    long i = 0;
    for (; i + WIDTH <= S; i += WIDTH) {
        if (add) {
            add_rows(
                x + then, z + then, dy + then, affine, i, i + WIDTH, stride, height, fetched, coming, 0, columns, added);
        }
        if (write) {
            write_rows(x + at, z + at, dy + at, dx + at, dz + at, affine, i, i + WIDTH, stride, height, fetched, own, m);
        }
    }
    if (OVERLAP(S)) {
#pragma unroll
        for (int r = 0; write && r < height; r++) {
            store_differentiated(end[r], end_gradient[r], dx + at + r * stride, dz + at + r * stride, last, S);
        }
        if (add) {
            add_rows(
                x + then, z + then, dy + then, affine, last, S, stride, height, 0, coming, 1, columns, added);
        }
    } else if (height == 1 && i < S) {
        if (write) {
            write_rows(x + at, z + at, dy + at, dx + at, dz + at, affine, i, S, stride, height, height, own, m);
        }
        if (add) {
            add_rows(x + then, z + then, dy + then, affine, i, S, stride, height, 0, coming, 0, columns, added);
        }
    }
#pragma unroll
    for (int r = 0; add && r < height; r++) {
        end_block(&added[r]);
        float inv_std = BLOCKS ? 1.0f : stats[next + r * C].z;
        real b = real_mul(realv_sum(added[r].second), real_of((float2)(inv_std, 0.0f)));
        sums[r] = row_means(realv_sum(added[r].first), b, S);
    }
}

/* dx of the samples `from` to `to`, of C rows each, and what they add to `columns`. */
INLINE void backward_samples(
    const __global storage *x, const __global storage *z, const __global storage *dy, __global storage *dx,
    __global storage *dz, const __global float4 *stats, const __global float *gamma, const __global float *beta,
    __global column *columns, long from, long to, long C, long S) {
    float2 sums[HEIGHT];
    for (; S >= WIDTH && from + HEIGHT <= to; from += HEIGHT) {
        for (long c = 0; c < C; c++) {
            scaling affine = scaling_of(gamma, beta, c, S, 0);
            __global column *own = columns + c * S;
            long row = from * C + c;
            backward_rows(x, z, dy, dx, dz, stats, affine, own, row, C, S, HEIGHT, 0, 1, sums);
            for (; MEANWHILE && C == 1 && row + 2 * HEIGHT <= to; row += HEIGHT) {
                backward_rows(x, z, dy, dx, dz, stats, affine, own, row, C, S, HEIGHT, 1, 1, sums);
                from = row + HEIGHT;
            }
            backward_rows(x, z, dy, dx, dz, stats, affine, own, row, C, S, HEIGHT, 1, 0, sums);
        }
    }
    for (long row = from * C; row < to * C; row++) {
        scaling affine = scaling_of(gamma, beta, row % C, S, 0);
        __global column *own = columns + row % C * S;
        backward_rows(x, z, dy, dx, dz, stats, affine, own, row, C, S, 1, 0, 1, sums);
        backward_rows(x, z, dy, dx, dz, stats, affine, own, row, C, S, 1, 1, 0, sums);
    }
}
#endif

/* Rows that one work-item takes together: short ones cost their roots and divisions more than their memory, and sixteen take them
 * in one vector. */
#define TOGETHER (SHORT ? 16 : 1)

#if SHORT

/* moments_of_sums and moments_statistics of rows side by side, of D values each, to the first `rows` of stats. */
INLINE void short_statistics(
    long D, float16 shift, double16 sum, double16 square, float2 eps, int rows, __global float4 *stats) {
    double16 share = (double16)(1.0 / (double)D);
    double16 offset = sum * share;
    double16 m2 = square - sum * offset;
    double16 mean = convert_double16(shift) + offset;
    double16 variance = (m2 < 0.0 ? 0.0 : m2) * share;
    double16 spread = variance + real_of(eps);
    float16 mean_high = convert_float16(mean);
    float16 flat = convert_float16(spread);
    float high[TOGETHER], low[TOGETHER], inv_std[TOGETHER], own_variance[TOGETHER];
    vstore16(mean_high, 0, high);
    vstore16(convert_float16(mean - convert_double16(mean_high)), 0, low);
    vstore16(flat == 0.0f ? (float16)(FLAT_INV_STD) : convert_float16(1.0 / sqrt(spread)), 0, inv_std);
    vstore16(convert_float16(variance), 0, own_variance);
    if (rows == TOGETHER) {
#pragma unroll
        for (int r = 0; r < TOGETHER; r++) {
            stats[r] = (float4)(high[r], low[r], inv_std[r], own_variance[r]);
        }
    } else {
        for (int r = 0; r < rows; r++) {
            stats[r] = (float4)(high[r], low[r], inv_std[r], own_variance[r]);
        }
    }
}

/* y and statistics of up to TOGETHER rows. */
INLINE void short_rows(
    const __global storage *x, const __global storage *addend, __global storage *written, const __global storage *z,
    __global storage *y, __global float4 *stats, const __global float *gamma, const __global float *beta, long first,
    int rows, long C, long K, long S, float2 eps) {
    long D = K * S;
    const __global storage *values = SUMMED(x, written);
    float shift[TOGETHER];
    real sum[TOGETHER], square[TOGETHER];
    for (int r = rows; r < TOGETHER; r++) {
        shift[r] = 0.0f;
        sum[r] = 0.0;
        square[r] = 0.0;
    }
    for (int r = 0; r < rows; r++) {
        long at = (first + r) * D;
        realv s = REALV_ZERO;
        realv q = REALV_ZERO;
        shift[r] = shift_of(x, addend, at, 1);
        run_moments(x + at, addend + at, written + at, D, shift[r], 1.0f, ahead_by(FETCH_AHEAD), &s, &q);
        sum[r] = realv_sum(s);
        square[r] = realv_sum(q);
    }
    short_statistics(D, vload16(0, shift), vload16(0, sum), vload16(0, square), eps, rows, stats + first);
#ifdef FLAT_PLANES
    if (FLAT(S)) {
        normalize_planes(
            values, z, y, stats, gamma, beta, first * K, (first + rows) * K, C, K, S, ahead_by(0));
        return;
    }
#endif
    long plane = first * K;
    long channel = plane % C;
    for (long row = first; row < first + rows; row++) {
        for (long k = 0; k < K; k++, plane++) {
            scaling affine = scaling_of(gamma, beta, channel, S, 0);
            normalize(values + plane * S, z + plane * S, y + plane * S, stats[row], affine, S, S, ahead_by(0));
            channel = channel + 1 == C ? 0 : channel + 1;
        }
    }
}
#endif

/* Statistics of a row, by its sums, which are taken again where they aren't good. Every work-item calls it. */
INLINE float4 row_statistics(
    const __global storage *x, const __global storage *addend, __global storage *written, long at, long D, int mine,
    float shift, realv sum, realv square, float2 eps, __local real *tree) {
    real s = realv_sum(sum);
    real q = realv_sum(square);
    span_sums(&s, &q, tree);
    float unit = 1.0f;
#if !FP64 || BLOCKS
    int again = !summed_well(D, s, q);
    if (LOCAL_SIZE > 1 || again) { /* a barrier is inside */
        sum = (realv)REALV_ZERO;
        square = (realv)REALV_ZERO;
        run_moments(
            x + at, addend + at, written + at, mine && again ? D : 0, shift, SMALL_UNIT, ahead_by(0), &sum, &square);
        real small = realv_sum(sum);
        real smallSquare = realv_sum(square);
        span_sums(&small, &smallSquare, tree);
        if (again) {
            s = small;
            q = smallSquare;
            unit = SMALL_UNIT;
        }
    }
#endif
    return moments_statistics(moments_of_sums(D, shift, s, q, unit), eps);
}

#if BESIDE > 1
/* Of BESIDE rows from number `row` on, of S values each, writes y, and adds up those that come next, or these where none are
 * written: see normalize_and_sum. Several rows have one reading of gamma and beta. */
INLINE void forward_rows(
    const __global storage *x, const __global storage *addend, __global storage *written, const __global storage *z,
    __global storage *y, const __global float4 *stats, scaling affine, long row, long S, const int write, const int add,
    float *shifts, realv *sums, realv *squares) {
    long at = row * S;
    long then = write ? at + BESIDE * S : at;
    norm own[BESIDE];
    realv sum[BESIDE], square[BESIDE]; /* copies, which stay in registers */
#pragma unroll
    for (int r = 0; r < BESIDE; r++) {
        if (write) {
            own[r] = norm_of(stats[row + r], affine);
        }
        if (add) {
            shifts[r] = shift_of(x, addend, then + r * S, 1);
            sum[r] = (realv)REALV_ZERO;
            square[r] = (realv)REALV_ZERO;
        }
    }
    for (long i = 0; i < S; i += WIDTH) {
        floatv values[BESIDE];
#pragma unroll
        for (int r = 0; add && r < BESIDE; r++) {
            long place = then + r * S + i;
            fetch(x + place + BESIDE * S);
            floatv value = value_at(x + place, addend + place, written + place, 0, WIDTH, shifts[r]);
            add_moments(value, shifts[r], 1.0f, &sum[r], &square[r]);
        }
#pragma unroll
        for (int r = 0; write && r < BESIDE; r++) {
            long place = at + r * S;
            norm n = norm_at(own[r], 0, affine, i, i + WIDTH);
            values[r] = normalized_at(SUMMED(x, written) + place, z + place, n, i, i + WIDTH);
        }
#pragma unroll
        for (int r = 0; write && r < BESIDE; r++) {
            store_some(values[r], y + at + r * S + i, WIDTH);
        }
    }
#pragma unroll
    for (int r = 0; add && r < BESIDE; r++) {
        sums[r] = sum[r];
        squares[r] = square[r];
    }
}
#endif

KERNEL(rows_forward_fused)
(const __global storage *x, const __global storage *addend, __global storage *written, const __global storage *z,
 __global storage *y, __global float4 *stats, const __global float *gamma, const __global float *beta, long rows,
 long C, long K, long S, float2 eps) {
    __local real tree[2 * LOCAL_SIZE];
    KNOWN_LENGTHS
    long from = get_group_id(0) * rows / get_num_groups(0);
    long to = (get_group_id(0) + 1) * rows / get_num_groups(0);
    long D = K * S;
    const __global storage *values = SUMMED(x, written);
#if SHORT
    for (long first = from; first < to; first += TOGETHER) {
        int count = (int)min((long)TOGETHER, to - first);
        short_rows(x, addend, written, z, y, stats, gamma, beta, first, count, C, K, S, eps);
    }
#else
#if BESIDE > 1
    scaling own = scaling_of(gamma, beta, 0, S, 0);
    float shifts[BESIDE];
    realv sums[BESIDE], squares[BESIDE];
    if (from + BESIDE <= to) {
        forward_rows(x, addend, written, z, y, stats, own, from, S, 0, 1, shifts, sums, squares);
    }
    for (; from + BESIDE <= to; from += BESIDE) {
        for (int r = 0; r < BESIDE; r++) {
            stats[from + r] = row_statistics(
                x, addend, written, (from + r) * D, D, 1, shifts[r], sums[r], squares[r], eps, tree);
        }
        if (from + 2 * BESIDE <= to) {
            forward_rows(x, addend, written, z, y, stats, own, from, S, 1, 1, shifts, sums, squares);
        } else {
            forward_rows(x, addend, written, z, y, stats, own, from, S, 1, 0, shifts, sums, squares);
        }
    }
    if (from == to) {
        return;
    }
#endif
    realv sum = REALV_ZERO;
    realv square = REALV_ZERO;
    long at = min(from + ROW, to - 1) * D;
    float shift = shift_of(x, addend, at, from + ROW < to);
    run_moments(
        x + at, addend + at, written + at, from + ROW < to ? D : 0, shift, 1.0f, ahead_by(FETCH_AHEAD), &sum, &square);
    for (long first = from; first < to; first += ROWS) {
        long row = min(first + ROW, to - 1);
        int mine = first + ROW < to;
        at = row * D;
        float4 own = row_statistics(x, addend, written, at, D, mine, shift, sum, square, eps, tree);
        if (mine && LANE == 0) {
            stats[row] = own;
        }
        sum = (realv)REALV_ZERO;
        square = (realv)REALV_ZERO;
        long next = min(row + ROWS, to - 1) * D;
        shift = shift_of(x, addend, next, row + ROWS < to);
#ifdef FLAT_PLANES
        if (FLAT(S)) {
            if (row + 1 < to) {
                run_moments(
                    x + next, addend + next, written + next, D, shift, 1.0f, ahead_by(FETCH_AHEAD), &sum, &square);
            }
            normalize_planes(values, z, y, stats, gamma, beta, row * K, row * K + K, C, K, S, ahead_by(D));
            continue;
        }
#endif
        for (long k = 0; mine && k < K; k++) {
            long plane = row * K + k;
            long start = plane * S;
            scaling affine = scaling_of(gamma, beta, plane % C, S, 0);
            if (row + ROWS < to) {
                long then = next + k * S;
                normalize_and_sum(
                    values + start, z + start, y + start, own, affine, x + then, addend + then, written + then, S, shift,
                    &sum, &square);
            } else {
                normalize(values + start, z + start, y + start, own, affine, S, S, ahead_by(0));
            }
        }
    }
#endif
}

/* Adds a plane's sums of g and g*(x - mean) to those of its row, with gamma in them; without ELEMENTWISE writes its partials. */
INLINE void add_plane(
    __global real *partials, long plane, int mine, real s, real q, float inv_std, float gamma, real *a, real *b) {
    q = real_mul(q, real_of((float2)(inv_std, 0.0f)));
#if !ELEMENTWISE
    if (mine && LANE == 0) {
        partials[2 * plane] = s;
        partials[2 * plane + 1] = q;
    }
    real scale = real_of((float2)(gamma, 0.0f));
    s = real_mul(s, scale);
    q = real_mul(q, scale);
#endif
    *a = real_add(*a, s);
    *b = real_add(*b, q);
}

/* row_means of row number `row`. Every work-item calls it, also those whose row is not theirs. */
INLINE float2 gradient_means(
    const __global storage *x, const __global storage *z, const __global storage *dy, const __global float4 *stats,
    const __global float *gamma, const __global float *beta, __global real *partials, long row, long C, long K, long S,
    int mine, __local real *tree) {
    real a = real_of_long(0);
    real b = a;
    for (long plane = row * K; plane < row * K + K; plane++) { /* a barrier is inside */
        long at = plane * S;
        scaling affine = scaling_of(gamma, beta, plane % C, S, 0);
        realv sum = REALV_ZERO;
        realv product = REALV_ZERO;
        run_gradients(x + at, z + at, dy + at, affine, mine ? S : 0, stats + row, ahead_by(FETCH_AHEAD), &sum, &product);
        real s = realv_sum(sum);
        real q = realv_sum(product);
        span_sums(&s, &q, tree);
        add_plane(partials, plane, mine, s, q, stats[row].z, affine.gamma, &a, &b);
    }
    return row_means(a, b, K * S);
}

#if LOCAL_SIZE == 1 && !ELEMENTWISE
/* dx of a plane of whole vectors, and meanwhile the sums of one of the next row: see differentiate and run_gradients. */
INLINE void differentiate_and_sum(
    const __global storage *x, const __global storage *z, const __global storage *dy, __global storage *dx,
    __global storage *dz, const __global float4 *stats, float2 sums, scaling affine, const __global storage *next_x,
    const __global storage *next_z, const __global storage *next_dy, scaling next_affine, long length, realv *sum,
    realv *product) {
    twin_sums s = twin_sums_of(*sum, *product);
    norm n = norm_of(stats[0], affine);
    norm next = norm_of(stats[1], next_affine);
    means m = means_of(sums);
    for (long i = 0; i < length; i += WIDTH) {
        long end = i + WIDTH;
        fetch(next_x + i + FETCH_AHEAD);
        fetch(next_dy + i + FETCH_AHEAD);
        differentiate_vector(x, z, dy, dx, dz, n, m, i, end);
        add_gradients(next_x, next_z, next_dy, next, i, end, 0, &s);
    }
    end_gradients(*sum, next, &s);
    *sum = s.first;
    *product = s.second;
}

/* dx of a row whose planes are whole vectors, and meanwhile row_means of the row after it, so that memory is kept busy with
 * readings and writings alike. */
INLINE float2 differentiate_and_take_means(
    const __global storage *x, const __global storage *z, const __global storage *dy, __global storage *dx,
    __global storage *dz, const __global float4 *stats, float2 sums, const __global float *gamma,
    const __global float *beta, __global real *partials, long row, long C, long K, long S) {
    real a = real_of_long(0);
    real b = a;
    for (long plane = row * K; plane < row * K + K; plane++) {
        long at = plane * S;
        long then = at + K * S;
        scaling next = scaling_of(gamma, beta, (plane + K) % C, S, 0);
        realv sum = REALV_ZERO;
        realv product = REALV_ZERO;
        differentiate_and_sum(
            x + at, z + at, dy + at, dx + at, dz + at, stats + row, sums, scaling_of(gamma, beta, plane % C, S, 0),
            x + then, z + then, dy + then, next, S, &sum, &product);
        add_plane(
            partials, plane + K, 1, realv_sum(sum), realv_sum(product), stats[row + 1].z, next.gamma, &a, &b);
    }
    return row_means(a, b, K * S);
}
#endif

KERNEL(rows_backward_fused)
(const __global storage *x, const __global storage *z, const __global storage *dy, __global storage *dx,
 __global storage *dz, const __global float4 *stats, const __global float *gamma, const __global float *beta,
 __global real *partials, long rows, long C, long K, long S) {
    __local real tree[2 * LOCAL_SIZE];
    KNOWN_LENGTHS
    long from = get_group_id(0) * rows / get_num_groups(0);
    long to = (get_group_id(0) + 1) * rows / get_num_groups(0);
#if ELEMENTWISE && PARAMETERS && LOCAL_SIZE == 1
    from = get_group_id(0) * (rows / C) / get_num_groups(0); /* samples of C rows */
    to = (get_group_id(0) + 1) * (rows / C) / get_num_groups(0);
    long all = C * S;
    __global real *own = partials + 2 * get_group_id(0) * all;
    for (long i = 0; i < 2 * all; i++) {
        own[i] = real_of_long(0);
    }
#if BLOCKS
    __global column *columns = (__global column *)(partials + 2 * get_num_groups(0) * all) + 2 * get_group_id(0) * all;
    long block = BLOCK_SUMS * (S < WIDTH ? 1 : HEIGHT);
    for (; from < to; from += block) {
        for (long i = 0; i < 2 * all; i++) {
            columns[i] = 0.0f;
        }
        backward_samples(x, z, dy, dx, dz, stats, gamma, beta, columns, from, min(from + block, to), C, S);
        end_columns(columns, own, all);
    }
#else
    backward_samples(x, z, dy, dx, dz, stats, gamma, beta, (__global column *)own, from, to, C, S);
#endif
#else
    ahead next = ahead_by(max(1L, FETCH_AHEAD / (K * S)) * K * S);
#ifdef FLAT_PLANES
    if (FLAT(S)) {
        for (long first = from; first < to; first += TOGETHER) {
            float2 sums[TOGETHER];
            int count = (int)min((long)TOGETHER, to - first);
            for (int r = 0; r < count; r++) {
                sums[r] = gradient_means(x, z, dy, stats, gamma, beta, partials, first + r, C, K, S, 1, tree);
            }
            differentiate_planes(
                x, z, dy, dx, dz, stats, sums, gamma, beta, first * K, (first + count) * K, C, K, S, next);
        }
        return;
    }
#endif
    float2 sums;
    int taken = 0; /* while the row before was written */
    for (long first = from; first < to; first += ROWS) {
        long row = min(first + ROW, to - 1);
        int mine = first + ROW < to;
        if (!taken) {
            sums = gradient_means(x, z, dy, stats, gamma, beta, partials, row, C, K, S, mine, tree);
        }
#if LOCAL_SIZE == 1 && !ELEMENTWISE
        taken = row + 1 < to && S % WIDTH == 0;
        if (taken) {
            sums = differentiate_and_take_means(x, z, dy, dx, dz, stats, sums, gamma, beta, partials, row, C, K, S);
            continue;
        }
#endif
        for (long plane = row * K; mine && plane < row * K + K; plane++) {
            long at = plane * S;
            differentiate(
                x + at, z + at, dy + at, dx + at, dz + at, stats + row, sums, scaling_of(gamma, beta, plane % C, S, 0),
                S, S, next);
        }
    }
#endif
}

KERNEL(rows_columns_partial)
(const __global storage *x, const __global storage *z, const __global storage *dy, const __global float4 *stats,
 const __global float *gamma, const __global float *beta, __global real *partials, long rows, long C, long S,
 long tile, long splits) {
    long tiles = (S + tile - 1) / tile;
    long start = get_group_id(0) % tiles * tile;
    long plane = get_group_id(0) / tiles % C;
    long split = get_group_id(0) / tiles / C;
    long samples = rows / C;
    long from = split * samples / splits;
    long to = (split + 1) * samples / splits;
    long offset = plane * S + start;
    __global real *own = partials + 2 * ((split * ROWS + ROW) * C * S + offset);
    for (long block = from; block < to; block += HEIGHT * ROWS) {
        column_sums(
            x + offset, z + offset, dy + offset, stats + plane, scaling_of(gamma, beta, plane, S, start), own,
            min(tile, S - start), C * S, C, block, min(to, block + HEIGHT * ROWS), block == from);
    }
}
