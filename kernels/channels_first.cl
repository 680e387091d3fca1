/* Batch norm over a tensor stored (N, C, S): statistics over N and S for each channel.
 *
 * Forward   mean = sum(x)/M, variance = sum((x - mean)^2)/M, M = N*S; y = (x - mean)*invStd*gamma + beta
 *           (Ioffe and Szegedy 2015, algorithm 1)
 * Backward  dBeta = sum(dy), dGamma = sum(dy*xHat), xHat = (x - mean)*invStd
 *           dx = gamma*invStd*(dy - dBeta/M - xHat*dGamma/M)
 *
 * A plane is the S neighbouring values of one sample and channel; it is cut into pieces of at most `piece` values.
 * SPAN work-items walk a piece side by side, LOCAL_SIZE/SPAN pieces at a time.
 *
 *   <family>_first_stats_partial     C*splits groups   reads x             writes partials        1R
 *   <family>_first_apply             any groups        reads x             writes y               1R + 1W
 *   <family>_first_forward_fused     C groups          reads x twice       writes y, stats        2R + 1W, or 1R + 1W
 *   <family>_first_backward_partial  C*splits groups   reads x, dy         writes partials        2R
 *   <family>_first_backward_apply    any groups        reads dy (and x)    writes dx              2R + 1W (1R + 1W)
 *   <family>_first_backward_fused    C groups          reads x, dy twice   writes dx, gradients   4R + 1W, or 2R + 1W
 *
 * Forward partials: (count, mean, m2), backward partials: (sum dy, sum dy*xHat), as [split][channel] of reals.
 * stats: C x (mean high, mean low, invStd, variance). sums: C x (dBeta/M, dGamma/M). y may be x, dx may be dy.
 * Local memory: 2*LOCAL_SIZE reals where LOCAL_SIZE > 1; one tree, outside of all loops.
 *
 *   SPAN         work-items side by side in a piece, a power of two of at most LOCAL_SIZE
 *   BATCH_STATS  backward apply: 1 the statistics depend on x; 0 they are constants, dx = gamma*invStd*dy
 * and those of family.clh.
 */
#include "family.clh"

#ifndef SPAN
#define SPAN LOCAL_SIZE
#endif
#ifndef BATCH_STATS
#define BATCH_STATS 1
#endif
#define ROWS (LOCAL_SIZE / SPAN)
#define LANE ((int)get_local_id(0) % SPAN)
#define ROW ((int)get_local_id(0) / SPAN)

/* Values before piece number `index` of a channel. */
static inline long values_before(long index, long pieces, long piece, long S) {
    return index / pieces * S + min(index % pieces * piece, S);
}

static inline moments channel_moments(
    const __global float *x, long C, long S, long piece, long channel, long from, long to, __local real *tree) {
    long pieces = (S + piece - 1) / piece;
    float shift = from < to ? x[(from / pieces * C + channel) * S + from % pieces * piece] : 0.0f;
    realv sum = REALV_ZERO;
    realv square = REALV_ZERO;
    for (long index = from + ROW; index < to; index += ROWS) {
        long start = index % pieces * piece;
        long length = min(piece, S - start);
        const __global float *run = x + (index / pieces * C + channel) * S + start;
        for (long i = LANE * WIDTH; i < length; i += SPAN * WIDTH) {
            realv d = realv_difference(load_some(run + i, length - i, shift), (floatv)(shift), (floatv)(0.0f));
            realv_add(&sum, d);
            realv_add_product(&square, d, d);
        }
    }
    real s = realv_sum(sum);
    real q = realv_sum(square);
    group_sums(&s, &q, tree);
    long count = values_before(to, pieces, piece, S) - values_before(from, pieces, piece, S);
    return moments_of_sums(count, shift, s, q);
}

/* sum dy and sum dy*xHat over pieces of a channel. */
static inline void channel_gradients(
    const __global float *x, const __global float *dy, float4 stats, long C, long S, long piece, long channel,
    long from, long to, __local real *tree, real *d_beta, real *d_gamma) {
    long pieces = (S + piece - 1) / piece;
    realv sum = REALV_ZERO;
    realv product = REALV_ZERO;
    for (long index = from + ROW; index < to; index += ROWS) {
        long start = index % pieces * piece;
        long length = min(piece, S - start);
        long at = (index / pieces * C + channel) * S + start;
        for (long i = LANE * WIDTH; i < length; i += SPAN * WIDTH) {
            realv g = realv_of(load_some(dy + at + i, length - i, 0.0f));
            realv d = realv_difference(
                load_some(x + at + i, length - i, stats.x), (floatv)(stats.x), (floatv)(stats.y));
            realv_add(&sum, g);
            realv_add_product(&product, g, d);
        }
    }
    *d_beta = realv_sum(sum);
    *d_gamma = realv_sum(product);
    group_sums(d_beta, d_gamma, tree);
    *d_gamma = real_mul(*d_gamma, real_of((float2)(stats.z, 0.0f)));
}

static inline void normalize(
    const __global float *x, __global float *y, float4 stats, float gamma, float beta, long length) {
    float scale = stats.z * gamma;
    for (long i = LANE * WIDTH; i < length; i += SPAN * WIDTH) {
        floatv d = load_some(x + i, length - i, 0.0f) - stats.x - stats.y;
        store_some(fma(d, (floatv)(scale), (floatv)(beta)), y + i, length - i);
    }
}

static inline void differentiate(
    const __global float *x, const __global float *dy, __global float *dx, float4 stats, float2 sums, float gamma,
    long length) {
    float scale = stats.z * gamma;
    float slope = sums.y * stats.z;
    for (long i = LANE * WIDTH; i < length; i += SPAN * WIDTH) {
        floatv g = load_some(dy + i, length - i, 0.0f);
#if BATCH_STATS
        floatv d = load_some(x + i, length - i, 0.0f) - stats.x - stats.y;
        g = fma(d, (floatv)(-slope), g - sums.x);
#endif
        store_some(g * scale, dx + i, length - i);
    }
}

KERNEL(first_stats_partial)
(const __global float *x, __global real *partials, long N, long C, long S, long piece, long splits) {
    __local real tree[2 * LOCAL_SIZE];
    long channel = get_group_id(0) % C;
    long split = get_group_id(0) / C;
    long all = N * ((S + piece - 1) / piece);
    moments m =
        channel_moments(x, C, S, piece, channel, split * all / splits, (split + 1) * all / splits, tree);
    if (get_local_id(0) == 0) {
        __global real *partial = partials + 3 * (split * C + channel);
        partial[0] = m.count;
        partial[1] = m.mean;
        partial[2] = m.m2;
    }
}

KERNEL(first_apply)
(const __global float *x, __global float *y, const __global float4 *stats, const __global float *gamma,
 const __global float *beta, long N, long C, long S, long piece) {
    long pieces = (S + piece - 1) / piece;
    long all = N * C * pieces;
    long from = get_group_id(0) * all / get_num_groups(0);
    long to = (get_group_id(0) + 1) * all / get_num_groups(0);
    for (long index = from + ROW; index < to; index += ROWS) {
        long plane = index / pieces;
        long channel = plane % C;
        long start = index % pieces * piece;
        long at = plane * S + start;
        normalize(x + at, y + at, stats[channel], gamma[channel], beta[channel], min(piece, S - start));
    }
}

KERNEL(first_forward_fused)
(const __global float *x, __global float *y, __global float4 *stats, const __global float *gamma,
 const __global float *beta, long N, long C, long S, float2 eps) {
    __local real tree[2 * LOCAL_SIZE];
    long channel = get_group_id(0);
    float4 own = moments_statistics(channel_moments(x, C, S, S, channel, 0, N, tree), eps);
    if (get_local_id(0) == 0) {
        stats[channel] = own;
    }
    for (long n = ROW; n < N; n += ROWS) {
        long at = (n * C + channel) * S;
        normalize(x + at, y + at, own, gamma[channel], beta[channel], S);
    }
}

KERNEL(first_backward_partial)
(const __global float *x, const __global float *dy, const __global float4 *stats, __global real *partials, long N,
 long C, long S, long piece, long splits) {
    __local real tree[2 * LOCAL_SIZE];
    long channel = get_group_id(0) % C;
    long split = get_group_id(0) / C;
    long all = N * ((S + piece - 1) / piece);
    real d_beta, d_gamma;
    channel_gradients(
        x, dy, stats[channel], C, S, piece, channel, split * all / splits, (split + 1) * all / splits, tree,
        &d_beta, &d_gamma);
    if (get_local_id(0) == 0) {
        __global real *partial = partials + 2 * (split * C + channel);
        partial[0] = d_beta;
        partial[1] = d_gamma;
    }
}

KERNEL(first_backward_apply)
(const __global float *x, const __global float *dy, __global float *dx, const __global float4 *stats,
 const __global float2 *sums, const __global float *gamma, long N, long C, long S, long piece) {
    long pieces = (S + piece - 1) / piece;
    long all = N * C * pieces;
    long from = get_group_id(0) * all / get_num_groups(0);
    long to = (get_group_id(0) + 1) * all / get_num_groups(0);
    for (long index = from + ROW; index < to; index += ROWS) {
        long plane = index / pieces;
        long channel = plane % C;
        long start = index % pieces * piece;
        long at = plane * S + start;
        differentiate(
            x + at, dy + at, dx + at, stats[channel], sums[channel], gamma[channel], min(piece, S - start));
    }
}

KERNEL(first_backward_fused)
(const __global float *x, const __global float *dy, __global float *dx, const __global float4 *stats,
 const __global float *gamma, __global float *dGamma, __global float *dBeta, long N, long C, long S, int accumulate) {
    __local real tree[2 * LOCAL_SIZE];
    long channel = get_group_id(0);
    float4 own = stats[channel];
    real d_beta, d_gamma;
    channel_gradients(x, dy, own, C, S, S, channel, 0, N, tree, &d_beta, &d_gamma);
    if (get_local_id(0) == 0) {
        dGamma[channel] = (accumulate ? dGamma[channel] : 0.0f) + real_high(d_gamma);
        dBeta[channel] = (accumulate ? dBeta[channel] : 0.0f) + real_high(d_beta);
    }
    real count = real_of_long(N * S);
    float2 sums = (float2)(real_high(real_div(d_beta, count)), real_high(real_div(d_gamma, count)));
    for (long n = ROW; n < N; n += ROWS) {
        long at = (n * C + channel) * S;
        differentiate(x + at, dy + at, dx + at, own, sums, gamma[channel], S);
    }
}
