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
 * sums down the columns are added up over `height` of these before they go to memory, in the backward in `columns`, which
 * holds 2*LOCAL_SIZE/SPAN rows of floats, each rounded up to whole vectors.
 *
 *   <family>_rows_forward_fused     any groups            reads x      writes y, stats            1R + 1W
 *   <family>_rows_backward_fused    any groups            reads x, dy  writes dx, partials        2R + 1W
 *   <family>_rows_columns_partial   tiles*C*splits groups reads x, dy  writes partials            2R
 *
 * stats: rows x (mean high, mean low, invStd, variance). Partials: (sum dy, sum dy*xHat) as reals; of each plane in
 * the order of the tensor, which is [sample][C]; with ELEMENTWISE 1, [groups*LOCAL_SIZE/SPAN][C*S].
 * The bytes hold where a row stays near the compute unit between two passes over it. y may be x, dx may be dy.
 * Local memory: 2*LOCAL_SIZE reals where LOCAL_SIZE > 1; a tree for each row (and plane, in the backward), in loops
 * that are as long for every work-item.
 *
 *   PARAMETERS  backward with ELEMENTWISE 1: whether partials are written; C is 1 then
 * and those of run.clh and family.clh.
 */
#include "run.clh"

#ifndef PARAMETERS
#define PARAMETERS 1
#endif

/* Adds up two values over the SPAN work-items of a row; each of them gets both sums. Every work-item calls it. */
INLINE void span_sums(real *a, real *b, __local real *tree) {
#if SPAN > 1
    int item = (int)get_local_id(0);
    tree[item] = *a;
    tree[LOCAL_SIZE + item] = *b;
    barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE); /* as in group_sums */
    for (int step = SPAN / 2; step > 0; step /= 2) {
        if (LANE < step) {
            tree[item] = real_add(tree[item], tree[item + step]);
            tree[LOCAL_SIZE + item] = real_add(tree[LOCAL_SIZE + item], tree[LOCAL_SIZE + item + step]);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    *a = tree[ROW * SPAN];
    *b = tree[LOCAL_SIZE + ROW * SPAN];
    barrier(CLK_LOCAL_MEM_FENCE);
#endif
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
            statistics own = stats_at(stats + row * step, 0, 1);
            long at = row * stride;
            floatv g = gradient_at(x + at, z + at, dy + at, own, affine, i, end);
            realv d = realv_difference(load_some(x + at + i, end - i, 0.0f), own.high, own.low);
            realv_add(&sum, realv_of(g));
            realv_add_product(&product, realv_product(g, own.inv_std), d);
        }
        real d_beta[WIDTH], d_gamma[WIDTH];
        realv_lanes(sum, d_beta);
        realv_lanes(product, d_gamma);
        __global real *own = partials + 2 * i;
        for (int k = 0; k < end - i; k++) {
            own[2 * k] = set ? d_beta[k] : real_add(own[2 * k], d_beta[k]);
            own[2 * k + 1] = set ? d_gamma[k] : real_add(own[2 * k + 1], d_gamma[k]);
        }
    }
}

#if ELEMENTWISE && PARAMETERS
/* Adds the sums of a vector of columns to partials, or sets them. */
INLINE void add_columns(const __local float *columns, __global real *partials, long count, int set) {
#if FP64 && WIDTH > 1
    if (count == WIDTH) {
        floatv d_beta = LOADV(columns);
        floatv d_gamma = LOADV(columns + WIDTH);
        floatv low, high; /* pairs */
        low.even = d_beta.lo;
        low.odd = d_gamma.lo;
        high.even = d_beta.hi;
        high.odd = d_gamma.hi;
        STOREV(TO_REALV(low) + (set ? REALV_ZERO : LOADV(partials)), partials);
        STOREV(TO_REALV(high) + (set ? REALV_ZERO : LOADV(partials + WIDTH)), partials + WIDTH);
        return;
    }
#endif
    for (int k = 0; k < count; k++) {
        real d_beta = real_of((float2)(columns[k], 0.0f));
        real d_gamma = real_of((float2)(columns[k + WIDTH], 0.0f));
        partials[2 * k] = set ? d_beta : real_add(partials[2 * k], d_beta);
        partials[2 * k + 1] = set ? d_gamma : real_add(partials[2 * k + 1], d_gamma);
    }
}

/* Of a row, adds sum(g*gamma) and sum(g*gamma*(x - mean)), and g and g*xHat to those of its columns: a vector of the one
 * beside a vector of the other, as far as whole vectors go. */
INLINE void row_gradients(
    const __global storage *x, const __global storage *z, const __global storage *dy, scaling affine, long length,
    const __global float4 *stats, __local float *columns, realv *sum,
    realv *product) {
    statistics own = stats_at(stats, 0, 1);
    realv s = *sum;
    realv q = *product;
    for (long i = LANE * WIDTH; i < length; i += SPAN * WIDTH) {
        long end = i + WIDTH <= length ? i + WIDTH : length;
        fetch(x + i + FETCH_AHEAD);
        fetch(dy + i + FETCH_AHEAD);
        floatv g = gradient_at(x, z, dy, own, affine, i, end);
        floatv values = load_some(x + i, end - i, own.high);
        __local float *column = columns + 2 * i;
        STOREV(LOADV(column) + g, column);
        STOREV(fma(g * own.inv_std, values - own.high - own.low, LOADV(column + WIDTH)), column + WIDTH);
        realv weighted = realv_product(g, gamma_at(affine, i, end));
        realv_add(&s, weighted);
        realv_add_product(&q, weighted, realv_difference(values, own.high, own.low));
    }
    *sum = s;
    *product = q;
}
#endif

KERNEL(rows_forward_fused)
(const __global storage *x, const __global storage *addend, __global storage *written, const __global storage *z,
 __global storage *y, __global float4 *stats, const __global float *gamma, const __global float *beta, long rows,
 long C, long K, long S, float2 eps) {
    __local real tree[2 * LOCAL_SIZE];
    long from = get_group_id(0) * rows / get_num_groups(0);
    long to = (get_group_id(0) + 1) * rows / get_num_groups(0);
    long D = K * S;
    ahead next = ahead_by(max(1L, FETCH_AHEAD / D) * D);
#if ADDEND
    const __global storage *values = written;
#else
    const __global storage *values = x;
#endif
    for (long first = from; first < to; first += ROWS) {
        long row = min(first + ROW, to - 1);
        int mine = first + ROW < to;
        long at = row * D;
        float shift = 0.0f;
#if CENTERED
        shift = UNPACK1(x + at);
#if ADDEND
        shift += UNPACK1(addend + at);
        shift_is_read();
#endif
#endif
        realv sum = REALV_ZERO;
        realv square = REALV_ZERO;
        run_moments(x + at, addend + at, written + at, mine ? D : 0, shift, 1.0f, ahead_by(FETCH_AHEAD), &sum, &square);
        real s = realv_sum(sum);
        real q = realv_sum(square);
        span_sums(&s, &q, tree);
        float unit = 1.0f;
#if !FP64
        int again = !isfinite(real_high(q));
        sum = (realv)REALV_ZERO;
        square = (realv)REALV_ZERO;
        run_moments(x + at, addend + at, written + at, mine && again ? D : 0, shift, SMALL_UNIT, next, &sum, &square);
        real small = realv_sum(sum);
        real smallSquare = realv_sum(square);
        span_sums(&small, &smallSquare, tree);
        if (again) {
            s = small;
            q = smallSquare;
            unit = SMALL_UNIT;
        }
#endif
        if (mine) {
            float4 own = moments_statistics(moments_of_sums(D, shift, s, q, unit), eps);
            if (LANE == 0) {
                stats[row] = own;
            }
            for (long plane = row * K; plane < row * K + K; plane++) {
                long start = plane * S;
                normalize(
                    values + start, z + start, y + start, own, scaling_of(gamma, beta, plane % C, S, 0), S, S, next);
            }
        }
    }
}

KERNEL(rows_backward_fused)
(const __global storage *x, const __global storage *z, const __global storage *dy, __global storage *dx,
 __global storage *dz, const __global float4 *stats, const __global float *gamma, const __global float *beta,
 __global real *partials, __local float *columns, long rows, long C, long K, long S, long height) {
    __local real tree[2 * LOCAL_SIZE];
    long from = get_group_id(0) * rows / get_num_groups(0);
    long to = (get_group_id(0) + 1) * rows / get_num_groups(0);
    real count = real_of_long(K * S);
    ahead next = ahead_by(max(1L, FETCH_AHEAD / (K * S)) * K * S);
#if ELEMENTWISE && PARAMETERS
    columns += 2 * ROW * ((S + WIDTH - 1) / WIDTH * WIDTH);
    __global real *sums_of = partials + 2 * (get_group_id(0) * ROWS + ROW) * S;
#endif
    for (long block = from; block < to; block += height * ROWS) {
        long end = min(to, block + height * ROWS);
#if ELEMENTWISE && PARAMETERS
        for (long i = LANE * WIDTH; i < S; i += SPAN * WIDTH) {
            STOREV((floatv)(0.0f), columns + 2 * i);
            STOREV((floatv)(0.0f), columns + 2 * i + WIDTH);
        }
#endif
        for (long first = block; first < end; first += ROWS) {
            long row = min(first + ROW, end - 1);
            int mine = first + ROW < end;
            real inv_std = real_of((float2)(stats[row].z, 0.0f));
            real a = real_of((float2)(0.0f, 0.0f));
            real b = a;
            for (long k = 0; k < K; k++) { /* a barrier is inside */
                long plane = row * K + k;
                scaling affine = scaling_of(gamma, beta, plane % C, S, 0);
                long start = plane * S;
                long length = mine ? S : 0;
                realv sum = REALV_ZERO;
                realv product = REALV_ZERO;
#if ELEMENTWISE && PARAMETERS
                row_gradients(
                    x + start, z + start, dy + start, affine, length, stats + row, columns, &sum, &product);
#else
                run_gradients(
                    x + start, z + start, dy + start, affine, length, stats + row, ahead_by(FETCH_AHEAD), &sum, &product);
#endif
                real s = realv_sum(sum);
                real q = realv_sum(product);
                span_sums(&s, &q, tree);
                q = real_mul(q, inv_std);
#if !ELEMENTWISE
                if (mine && LANE == 0) {
                    partials[2 * plane] = s;
                    partials[2 * plane + 1] = q;
                }
                real scale = real_of((float2)(affine.gamma, 0.0f));
                s = real_mul(s, scale);
                q = real_mul(q, scale);
#endif
                a = real_add(a, s);
                b = real_add(b, q);
            }
            if (mine) {
                float2 sums = (float2)(CENTERED ? real_high(real_div(a, count)) : 0.0f, real_high(real_div(b, count)));
                for (long plane = row * K; plane < row * K + K; plane++) {
                    long start = plane * S;
                    differentiate(
                        x + start, z + start, dy + start, dx + start, dz + start, stats + row, sums,
                        scaling_of(gamma, beta, plane % C, S, 0), S, S, next);
                }
            }
        }
#if ELEMENTWISE && PARAMETERS
        for (long i = LANE * WIDTH; i < S; i += SPAN * WIDTH) {
            add_columns(columns + 2 * i, sums_of + 2 * i, min((long)WIDTH, S - i), block == from);
        }
#endif
    }
}

KERNEL(rows_columns_partial)
(const __global storage *x, const __global storage *z, const __global storage *dy, const __global float4 *stats,
 const __global float *gamma, const __global float *beta, __global real *partials, long rows, long C, long S,
 long tile, long splits, long height) {
    long tiles = (S + tile - 1) / tile;
    long start = get_group_id(0) % tiles * tile;
    long plane = get_group_id(0) / tiles % C;
    long split = get_group_id(0) / tiles / C;
    long samples = rows / C;
    long from = split * samples / splits;
    long to = (split + 1) * samples / splits;
    long offset = plane * S + start;
    __global real *own = partials + 2 * ((split * ROWS + ROW) * C * S + offset);
    for (long block = from; block < to; block += height * ROWS) {
        column_sums(
            x + offset, z + offset, dy + offset, stats + plane, scaling_of(gamma, beta, plane, S, start), own,
            min(tile, S - start), C * S, C, block, min(to, block + height * ROWS), block == from);
    }
}
