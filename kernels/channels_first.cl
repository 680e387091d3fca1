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
 *   wide_first_running_tickets       a group a core    reads x             writes y, stats        1R + 1W
 *   <family>_first_forward_fused     C/CHANNELS groups         reads x twice       writes y, stats        2R + 1W, or 1R + 1W
 *   <family>_first_backward_partial  C*splits groups   reads x, dy         writes partials        2R
 *   <family>_first_backward_apply    any groups        reads dy (and x)    writes dx              2R + 1W (1R + 1W)
 *   <family>_first_backward_fused    C/CHANNELS groups         reads x, dy twice   writes dx, gradients   4R + 1W, or 2R + 1W
 *
 * Forward partials: (count, mean, m2), backward partials: (sum dy, sum dy*xHat), as [split][channel] of reals.
 * stats: C x (mean high, mean low, invStd, variance). sums: C x (dBeta/M, dGamma/M). y may be x, dx may be dy.
 * both: whether the caches hold the next channel beside the own: it is asked for while the own one is written.
 * Local memory: 2*LOCAL_SIZE reals where LOCAL_SIZE > 1; one tree, outside of all loops.
 *
 * Rows (layer, RMS, group and instance norm) take these kernels too, where a row is too long for rows.cl: with ROW_STATS
 * 1 a row is the K neighbouring planes with one statistic, and x is N*C planes that are channels of their own: for
 * first_stats_partial (1, rows, K*S), for first_backward_partial (1, N*C, S), whose partials then are per plane. With
 * ELEMENTWISE 1 a plane is a row, and gamma has C planes of S. With PER_PLACE 1 (norm per location) each of the S places
 * of a sample's K planes has its own statistics. `planes` is how many planes, or rows, a sample has.
 *
 * With MASKED 1 a piece is one line along the last dimension, so that its sample's length cuts it.
 *
 * The bytes do not count z and dz, 1R and 1W more where they are there.
 *
 *   CHANNELS  neighbouring channels that a group of a fused kernel takes side by side, where planes are short; 1 where
 *             LOCAL_SIZE is not
 * and those of run.clh, activation.clh and family.clh.
 */
#include "run.clh"
#include "tickets.clh"

#ifndef CHANNELS
#define CHANNELS 1
#endif

/* The sample of piece number `index` of a channel, which is a row or plane of the whole tensor where ROW_STATS is 1. */
INLINE long sample_of(long index, long pieces, long channel, long planes) {
    return ROW_STATS ? channel / planes : index / pieces;
}

/* Values before piece number `index` of a channel, without a mask. */
INLINE long values_before(long index, long pieces, long piece, long S) {
    return index / pieces * S + min(index % pieces * piece, S);
}

/* What a walk over the planes of neighbouring channels asks for. */
INLINE ahead ahead_of_channels(long S, long stride) {
    return CHANNELS > 1 ? ahead_by(stride) : ahead_of_runs(S, stride);
}

/* What a walk over `count` pieces of a channel asks for; where planes are short, those of the next channel, or one that comes
 * soon, which lie beside them. */
INLINE ahead ahead_in_channel(long C, long S, long piece, long count) {
    long all = max(count, 1L) * S;
    return 4 * S <= FETCH_AHEAD && all <= 65536 ? ahead_by((FETCH_AHEAD / all + 1) * S)
                                                : ahead_of_runs(piece, piece < S ? piece : C * S);
}

/* sum(d) and sum(d^2) over pieces of a channel, d = (x - shift)*unit. */
INLINE void channel_sums(
    const __global storage *x, const __global storage *addend, __global storage *written, const __global int *lengths,
    long C, long S, long piece, long channel, long from, long to, long planes, float shift, float unit,
    __local real *tree, real *s, real *q) {
    long pieces = (S + piece - 1) / piece;
    realv sum = REALV_ZERO;
    realv square = REALV_ZERO;
    ahead next = ahead_in_channel(C, S, piece, to - from);
    for (long index = from + ROW; index < to; index += ROWS) {
        long start = index % pieces * piece;
        long length = valid(lengths, sample_of(index, pieces, channel, planes), min(piece, S - start));
        long at = (index / pieces * C + channel) * S + start;
        run_moments(x + at, addend + at, written + at, length, shift, unit, next, &sum, &square);
    }
    *s = realv_sum(sum);
    *q = realv_sum(square);
    group_sums(s, q, tree);
}

/* From the sums of differences from a shift, which are taken again where they aren't good. */
INLINE moments moments_of(
    const __global storage *x, const __global storage *addend, __global storage *written, const __global int *lengths,
    long C, long S, long piece, long channel, long from, long to, long planes, long count, float shift,
    __local real *tree, real s, real q) {
    float unit = 1.0f;
#if !FP64 || BLOCKS
    int again = !summed_well(count, s, q);
    if (LOCAL_SIZE > 1 || again) { /* a barrier is inside */
        real small, smallSquare;
#if LOCAL_SIZE > 1
        barrier(CLK_LOCAL_MEM_FENCE);
#endif
        channel_sums(
            x, addend, written, lengths, C, S, piece, channel, again ? from : to, to, planes, shift, SMALL_UNIT, tree,
            &small, &smallSquare);
        if (again) {
            s = small;
            q = smallSquare;
            unit = SMALL_UNIT;
        }
    }
#endif
    return moments_of_sums(count, shift, s, q, unit);
}

INLINE moments channel_moments(
    const __global storage *x, const __global storage *addend, __global storage *written, const __global int *lengths,
    long C, long S, long piece, long channel, long from, long to, long planes, __local real *tree) {
    long pieces = (S + piece - 1) / piece;
#if MASKED
    long count = 0;
    long first = to;
    for (long index = to; index-- > from;) {
        long own = valid(lengths, sample_of(index, pieces, channel, planes), piece);
        count += own;
        first = own > 0 ? index : first;
    }
#else
    long count = values_before(to, pieces, piece, S) - values_before(from, pieces, piece, S);
    long first = from;
#endif
    float shift = 0.0f;
#if CENTERED
    if (first < to) {
        long at = (first / pieces * C + channel) * S + first % pieces * piece;
        shift = UNPACK1(x + at);
#if ADDEND
        shift += UNPACK1(addend + at);
#endif
    }
#if ADDEND
    group_barrier();
#endif
#endif
    real s, q;
    channel_sums(x, addend, written, lengths, C, S, piece, channel, from, to, planes, shift, 1.0f, tree, &s, &q);
    return moments_of(x, addend, written, lengths, C, S, piece, channel, from, to, planes, count, shift, tree, s, q);
}

/* sum g and sum g*xHat over pieces of a channel; its gamma is used where it varies along a plane. */
INLINE void channel_gradients(
    const __global storage *x, const __global storage *z, const __global storage *dy, const __global float *gamma,
    const __global float *beta, const __global float4 *stats, const __global int *lengths, long C, long S, long piece,
    long run, long channel, long from, long to, long planes, __local real *tree, real *d_beta, real *d_gamma) {
    long pieces = (S + piece - 1) / piece;
    realv sum = REALV_ZERO;
    realv product = REALV_ZERO;
    ahead next = ahead_in_channel(C, S, piece, to - from);
    for (long index = from + ROW; index < to; index += ROWS) {
        long start = index % pieces * piece;
        long length = valid(lengths, sample_of(index, pieces, channel, planes), min(piece, S - start));
        long at = (index / pieces * C + channel) * S + start;
        run_gradients(
            x + at, z + at, dy + at, scaling_of(gamma, beta, run, S, start), length, stats + PER_PLACE * start, next,
            &sum, &product);
    }
    *d_beta = realv_sum(sum);
    *d_gamma = realv_sum(product);
    group_sums(d_beta, d_gamma, tree);
#if !PER_PLACE
    *d_gamma = real_mul(*d_gamma, real_of((float2)(stats[0].z, 0.0f)));
#endif
}

KERNEL(first_stats_partial)
(const __global storage *x, const __global storage *addend, __global storage *written, const __global int *lengths,
 __global real *partials, long N, long C, long S, long piece, long splits, long planes) {
    __local real tree[2 * LOCAL_SIZE];
    long channel = get_group_id(0) % C;
    long split = get_group_id(0) / C;
    long all = N * ((S + piece - 1) / piece);
    moments m = channel_moments(
        x, addend, written, lengths, C, S, piece, channel, split * all / splits, (split + 1) * all / splits, planes,
        tree);
    if (get_local_id(0) == 0) {
        __global real *partial = partials + 3 * (split * C + channel);
        partial[0] = m.count;
        partial[1] = m.mean;
        partial[2] = m.m2;
    }
}

/* y of the pieces [from, to) of all planes. */
INLINE void normalize_pieces(
    const __global storage *x, const __global storage *z, __global storage *y, const __global float4 *stats,
    const __global float *gamma, const __global float *beta, const __global int *lengths, long C, long S, long piece,
    long K, long from, long to) {
    long pieces = (S + piece - 1) / piece;
#ifdef FLAT_PLANES
    if (FLAT(S) && pieces == 1) {
        if (from < to) {
            normalize_planes(x, z, y, stats, gamma, beta, from, to, C, K, S, ahead_by(FETCH_AHEAD));
        }
        return;
    }
#endif
    for (long index = from + ROW; index < to; index += ROWS) {
        long plane = index / pieces;
        long channel = plane % C;
        long start = index % pieces * piece;
        long at = plane * S + start;
        long length = min(piece, S - start);
        normalize(
            x + at, z + at, y + at, stats[stats_of(plane, channel, K, S)], scaling_of(gamma, beta, channel, S, start),
            valid(lengths, plane / C, length), length, ahead_by(FETCH_AHEAD));
    }
}

KERNEL(first_apply)
(const __global storage *x, const __global storage *z, __global storage *y, const __global float4 *stats,
 const __global float *gamma, const __global float *beta, const __global int *lengths, long N, long C, long S,
 long piece, long K) {
    long all = N * C * ((S + piece - 1) / piece);
    long from = get_group_id(0) * all / get_num_groups(0);
    long to = (get_group_id(0) + 1) * all / get_num_groups(0);
    normalize_pieces(x, z, y, stats, gamma, beta, lengths, C, S, piece, K, from, to);
}

#if LOCAL_SIZE == 1
__kernel void wide_first_running_tickets
(const __global storage *x, const __global storage *z, __global storage *y, __global float4 *stats,
 const __global float *runningMean, const __global float *runningVar, const __global float *gamma,
 const __global float *beta, const __global int *lengths, volatile __global int *tickets, long N, long C, long S,
 long piece, long applies, float2 eps) {
    long all = N * C * ((S + piece - 1) / piece);
    stage now = before_stages(tickets);
    begin_stage(&now, (C + TICKET_CHANNELS - 1) / TICKET_CHANNELS, 0);
    for (long part; (part = draw_ticket(&now)) >= 0;) {
        for (long c = part * TICKET_CHANNELS; c < min(C, (part + 1) * TICKET_CHANNELS); c++) {
            stats[c] = running_statistics(runningMean[c], runningVar[c], eps);
        }
    }
    end_stage(&now);
    begin_stage(&now, applies, 0);
    for (long part; (part = draw_ticket(&now)) >= 0;) {
        normalize_pieces(
            x, z, y, stats, gamma, beta, lengths, C, S, piece, 1, part * all / applies, (part + 1) * all / applies);
    }
    leave_tickets(now);
}
#endif

KERNEL(first_forward_fused)
(const __global storage *x, const __global storage *z, __global storage *y, __global float4 *stats,
 const __global float *gamma, const __global float *beta, long N, long C, long S, float2 eps, int both) {
    __local real tree[2 * LOCAL_SIZE];
    long first = get_group_id(0) * CHANNELS;
    realv sum[CHANNELS], square[CHANNELS];
    float shift[CHANNELS];
    float4 own[CHANNELS];
    for (int c = 0; c < CHANNELS; c++) {
        sum[c] = (realv)REALV_ZERO;
        square[c] = (realv)REALV_ZERO;
        shift[c] = UNPACK1(x + (first + c) * S);
    }
    ahead next = ahead_of_channels(S, C * S);
    for (long n = ROW; n < N; n += ROWS) {
        for (int c = 0; c < CHANNELS; c++) {
            long at = (n * C + first + c) * S;
            run_moments(x + at, x + at, y + at, S, shift[c], 1.0f, next, &sum[c], &square[c]);
        }
    }
    for (int c = 0; c < CHANNELS; c++) {
        real s = realv_sum(sum[c]);
        real q = realv_sum(square[c]);
        group_sums(&s, &q, tree);
        moments m = moments_of(x, x, y, 0, C, S, S, first + c, 0, N, C, N * S, shift[c], tree, s, q);
        own[c] = moments_statistics(m, eps);
        if (get_local_id(0) == 0) {
            stats[first + c] = own[c];
        }
    }
    next = ahead_of_channels(S, -C * S);
    for (long n = ROW; n < N; n += ROWS) {
        long back = N - 1 - n; /* what was read last is near */
        ahead then = both ? ahead_by(((n - back) * C + CHANNELS) * S) : next;
#ifdef FLAT_PLANES
        if (FLAT(S)) {
            long plane = back * C + first;
            normalize_planes(x, z, y, stats, gamma, beta, plane, plane + CHANNELS, C, 1, S, then);
            continue;
        }
#endif
        for (int c = 0; c < CHANNELS; c++) {
            long at = (back * C + first + c) * S;
            normalize(x + at, z + at, y + at, own[c], scaling_of(gamma, beta, first + c, S, 0), S, S, then);
        }
    }
}

KERNEL(first_backward_partial)
(const __global storage *x, const __global storage *z, const __global storage *dy, const __global float4 *stats,
 const __global float *gamma, const __global float *beta, const __global int *lengths, __global real *partials, long N,
 long C, long S, long piece, long splits, long K, long planes) {
    __local real tree[2 * LOCAL_SIZE];
    long channel = get_group_id(0) % C;
    long split = get_group_id(0) / C;
    long all = N * ((S + piece - 1) / piece);
    real d_beta, d_gamma;
    channel_gradients(
        x, z, dy, gamma, beta, stats + stats_of(channel, channel, K, S), lengths, C, S, piece, channel % planes, channel,
        split * all / splits, (split + 1) * all / splits, planes, tree, &d_beta, &d_gamma);
    if (get_local_id(0) == 0) {
        __global real *partial = partials + 2 * (split * C + channel);
        partial[0] = d_beta;
        partial[1] = d_gamma;
    }
}

KERNEL(first_backward_apply)
(const __global storage *x, const __global storage *z, const __global storage *dy, __global storage *dx,
 __global storage *dz, const __global float4 *stats, const __global float2 *sums, const __global float *gamma,
 const __global float *beta, const __global int *lengths, long N, long C, long S, long piece, long K) {
    long pieces = (S + piece - 1) / piece;
    long all = N * C * pieces;
    long from = get_group_id(0) * all / get_num_groups(0);
    long to = (get_group_id(0) + 1) * all / get_num_groups(0);
    for (long index = from + ROW; index < to; index += ROWS) {
        long plane = index / pieces;
        long channel = plane % C;
        long start = index % pieces * piece;
        long at = plane * S + start;
        long length = min(piece, S - start);
        long own = stats_of(plane, channel, K, S);
        differentiate(
            x + at, z + at, dy + at, dx + at, dz + at, stats + own, BATCH_STATS ? sums[own] : (float2)(0.0f),
            scaling_of(gamma, beta, channel, S, start), valid(lengths, plane / C, length), length, ahead_by(FETCH_AHEAD));
    }
}

KERNEL(first_backward_fused)
(const __global storage *x, const __global storage *z, const __global storage *dy, __global storage *dx,
 __global storage *dz, const __global float4 *stats, const __global float *gamma, const __global float *beta,
 __global float *dGamma, __global float *dBeta, long N, long C, long S, int accumulate, int both) {
    __local real tree[2 * LOCAL_SIZE];
    long first = get_group_id(0) * CHANNELS;
    realv sum[CHANNELS], product[CHANNELS];
    float2 sums[CHANNELS];
    for (int c = 0; c < CHANNELS; c++) {
        sum[c] = (realv)REALV_ZERO;
        product[c] = (realv)REALV_ZERO;
    }
    ahead next = ahead_of_channels(S, C * S);
    for (long n = ROW; n < N; n += ROWS) {
        for (int c = 0; c < CHANNELS; c++) {
            long channel = first + c;
            long at = (n * C + channel) * S;
            run_gradients(
                x + at, z + at, dy + at, scaling_of(gamma, beta, channel, S, 0), S, stats + channel, next, &sum[c],
                &product[c]);
        }
    }
    real count = real_of_long(N * S);
    for (int c = 0; c < CHANNELS; c++) {
        long channel = first + c;
        real b = realv_sum(sum[c]);
        real g = realv_sum(product[c]);
        group_sums(&b, &g, tree);
        g = real_mul(g, real_of((float2)(stats[channel].z, 0.0f)));
        if (get_local_id(0) == 0) {
            store_gradients(dGamma, dBeta, channel, g, b, accumulate);
        }
        sums[c] = mean_pair(b, g, count);
    }
    next = ahead_of_channels(S, -C * S);
    for (long n = ROW; n < N; n += ROWS) {
        long back = N - 1 - n; /* what was read last is near */
        ahead then = both ? ahead_by(((n - back) * C + CHANNELS) * S) : next;
#ifdef FLAT_PLANES
        if (FLAT(S)) {
            long plane = back * C + first;
            differentiate_planes(
                x, z, dy, dx, dz, stats, sums, gamma, beta, plane, plane + CHANNELS, C, 1, S, then);
            continue;
        }
#endif
        for (int c = 0; c < CHANNELS; c++) {
            long channel = first + c;
            long at = (back * C + channel) * S;
            differentiate(
                x + at, z + at, dy + at, dx + at, dz + at, stats + channel, sums[c],
                scaling_of(gamma, beta, channel, S, 0), S, S, then);
        }
    }
}
