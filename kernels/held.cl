/* Layer and RMS norm over rows that the registers of their work-items hold, for the cooperative family: the mathematics of
 * rows.cl with ELEMENTWISE 1, each tensor passing once.
 *
 *   cooperative_held_forward   any groups  reads x      writes y, stats       1R + 1W
 *   cooperative_held_backward  any groups  reads x, dy  writes dx, partials   2R + 1W
 *
 * A work-group takes a block of rows, LOCAL_SIZE/SPAN at a time; SPAN*VECTORS*WIDTH is at least S. gamma has C planes of S,
 * row r takes number r % C. Partials: (sum dy, sum dy*xHat) as reals, [groups][S]; C is 1 then. y may be x, dx may be dy.
 * The bytes do not count z, dz, the addend and the sum.
 * Local memory: 2*LOCAL_SIZE reals, WIDTH times as much where a group of several rows adds up partials.
 *
 *   VECTORS     vectors of a row that a work-item holds
 *   PARAMETERS  backward: whether partials are written
 * and those of run.clh and family.clh.
 */
#include "run.clh"

#ifndef VECTORS
#define VECTORS 1
#endif
#ifndef PARAMETERS
#define PARAMETERS 1
#endif
#if PARAMETERS && SPAN < LOCAL_SIZE
#define TREE (2 * LOCAL_SIZE * WIDTH)
#else
#define TREE (2 * LOCAL_SIZE)
#endif

/* Where a work-item's vector of a row begins. */
#define PLACE(vector) ((long)((vector)*SPAN + LANE) * WIDTH)

INLINE void add_row(const floatv *values, float shift, float unit, realv *sum, realv *square) {
#pragma unroll
    for (int v = 0; v < VECTORS; v++) {
        add_moments(values[v], shift, unit, sum, square);
    }
}

__kernel __attribute__((reqd_work_group_size(LOCAL_SIZE, 1, 1))) void cooperative_held_forward
(const __global storage *x, const __global storage *addend, __global storage *written, const __global storage *z,
 __global storage *y, __global float4 *stats, const __global float *gamma, const __global float *beta, long rows,
 long C, long S, float2 eps) {
    __local real tree[2 * LOCAL_SIZE];
    long from = get_group_id(0) * rows / get_num_groups(0);
    long to = (get_group_id(0) + 1) * rows / get_num_groups(0);
    for (long first = from; first < to; first += ROWS) { /* barriers are inside */
        long row = min(first + ROW, to - 1);
        long length = first + ROW < to ? S : 0;
        long at = row * S;
        float shift = shift_of(x, addend, at, length > 0);
        floatv values[VECTORS];
#pragma unroll
        for (int v = 0; v < VECTORS; v++) {
            long i = PLACE(v);
            values[v] = i < length ? value_at(x + at, addend + at, written + at, i, S, shift) : (floatv)(shift);
        }
        realv sum = REALV_ZERO;
        realv square = REALV_ZERO;
        add_row(values, shift, 1.0f, &sum, &square);
        real s = realv_sum(sum);
        real q = realv_sum(square);
        span_sums(&s, &q, tree);
        float unit = 1.0f;
#if !FP64
        sum = (realv)REALV_ZERO;
        square = (realv)REALV_ZERO;
        add_row(values, shift, SMALL_UNIT, &sum, &square);
        real small = realv_sum(sum);
        real smallSquare = realv_sum(square);
        span_sums(&small, &smallSquare, tree);
        if (!summed_well(S, s, q)) {
            s = small;
            q = smallSquare;
            unit = SMALL_UNIT;
        }
#endif
        float4 own = moments_statistics(moments_of_sums(S, shift, s, q, unit), eps);
        if (length > 0 && LANE == 0) {
            stats[row] = own;
        }
        scaling affine = scaling_of(gamma, beta, row % C, S, 0);
#pragma unroll
        for (int v = 0; v < VECTORS; v++) {
            long i = PLACE(v);
            if (i < length) {
                norm n = norm_at(norm_of(own, affine), 0, affine, i, S);
                store_some(activate(scaled(values[v], n), z + at + i, S - i), y + at + i, S - i);
            }
        }
    }
}

/* Adds up a vector's columns over the rows of a group and writes them. Every work-item calls it. */
INLINE void write_columns(realv d_beta, realv d_gamma, int vector, long S, __global real *partials, __local real *tree) {
    real b[WIDTH], g[WIDTH];
    realv_lanes(d_beta, b);
    realv_lanes(d_gamma, g);
#if ROWS > 1
    __local real *second = tree + LOCAL_SIZE * WIDTH;
    int item = (int)get_local_id(0);
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int k = 0; k < WIDTH; k++) {
        tree[item * WIDTH + k] = b[k];
        second[item * WIDTH + k] = g[k];
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int i = item; i < SPAN * WIDTH; i += LOCAL_SIZE) {
        real own_b = tree[i];
        real own_g = second[i];
        for (int row = 1; row < ROWS; row++) {
            own_b = real_add(own_b, tree[row * SPAN * WIDTH + i]);
            own_g = real_add(own_g, second[row * SPAN * WIDTH + i]);
        }
        long column = (long)vector * SPAN * WIDTH + i;
        if (column < S) {
            partials[2 * column] = own_b;
            partials[2 * column + 1] = own_g;
        }
    }
#else
    long column = PLACE(vector);
    for (int k = 0; k < WIDTH && column + k < S; k++) {
        partials[2 * (column + k)] = b[k];
        partials[2 * (column + k) + 1] = g[k];
    }
#endif
}

__kernel __attribute__((reqd_work_group_size(LOCAL_SIZE, 1, 1))) void cooperative_held_backward
(const __global storage *x, const __global storage *z, const __global storage *dy, __global storage *dx,
 __global storage *dz, const __global float4 *stats, const __global float *gamma, const __global float *beta,
 __global real *partials, long rows, long C, long S) {
    __local real tree[TREE];
    long from = get_group_id(0) * rows / get_num_groups(0);
    long to = (get_group_id(0) + 1) * rows / get_num_groups(0);
    realv d_beta[VECTORS], d_gamma[VECTORS];
#pragma unroll
    for (int v = 0; v < VECTORS; v++) {
        d_beta[v] = (realv)REALV_ZERO;
        d_gamma[v] = (realv)REALV_ZERO;
    }
    for (long first = from; first < to; first += ROWS) { /* barriers are inside */
        long row = min(first + ROW, to - 1);
        long length = first + ROW < to ? S : 0;
        long at = row * S;
        scaling affine = scaling_of(gamma, beta, row % C, S, 0);
        norm own = norm_of(stats[row], affine);
        floatv values[VECTORS], g[VECTORS];
#pragma unroll
        for (int v = 0; v < VECTORS; v++) {
            long i = PLACE(v);
            values[v] = own.high;
            g[v] = (floatv)(0.0f);
            if (i < length) {
                values[v] = load_some(x + at + i, S - i, own.high);
                g[v] = gradient_at(x + at, z + at, dy + at, norm_at(own, 0, affine, i, S), i, S);
            }
        }
        realv sum = REALV_ZERO;
        realv product = REALV_ZERO;
#pragma unroll
        for (int v = 0; v < VECTORS; v++) {
            long i = PLACE(v);
            norm n = norm_at(own, 0, affine, min(i, S), S);
            realv d = realv_difference(values[v], n.high, n.low);
            realv weighted = realv_product(g[v], n.gamma);
            realv_add(&sum, weighted);
            realv_add_product(&product, weighted, d);
#if PARAMETERS
            realv_add(&d_beta[v], realv_of(g[v]));
            realv_add_product(&d_gamma[v], realv_product(g[v], n.inv_std), d);
#endif
        }
        real a = realv_sum(sum);
        real b = realv_sum(product);
        span_sums(&a, &b, tree);
        b = real_mul(b, real_of((float2)(stats[row].z, 0.0f)));
        float2 sums = row_means(a, b, S);
#pragma unroll
        for (int v = 0; v < VECTORS; v++) {
            long i = PLACE(v);
            if (i < length) {
                norm n = norm_at(own, 0, affine, i, S);
                floatv d = values[v] - n.high - n.low;
#if WRITE_DZ
                store_some(g[v], dz + at + i, S - i);
#endif
                store_some(
                    fma(-d, sums.y * n.inv_std, fma(g[v], n.gamma, -sums.x)) * n.inv_std, dx + at + i, S - i);
            }
        }
    }
#if PARAMETERS
#pragma unroll
    for (int v = 0; v < VECTORS; v++) {
        write_columns(d_beta[v], d_gamma[v], v, S, partials + 2 * get_group_id(0) * S, tree);
    }
#endif
}
