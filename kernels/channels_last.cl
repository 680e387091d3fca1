/* Batch norm over a tensor stored (N, S, C): statistics for each channel, the mathematics of channels_first.cl.
 *
 * The tensor is walked as patch.clh has it. The wide family's tiles are as wide as rows where that can be and sums stay in the
 * first cache, so that memory is read as it lies. The fused kernels go back from the last row, which the caches still hold.
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
 * The bytes do not count z and dz, 1R and 1W more where they are there.
 *
 *   DRAWN        1: fused kernels: work-groups draw the tiles of the only sample; needs LOCAL_SIZE 1
 *   ROW_STATS    0: sums of g and g*xHat; 1: with gamma in them
 * and those of columns.clh.
 */
#include "columns.clh"
#include "tickets.clh"

#ifndef DRAWN
#define DRAWN 0
#endif

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
