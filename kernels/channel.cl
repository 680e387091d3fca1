/* The small steps between the passes over a tensor. One work-item per channel (per row, where C counts rows); in the three
 * finalizes SHARE of a work-group, which merge its partial results by a tree. The global size is C channels rounded up to whole
 * work-groups.
 *
 *   channel_stats_finalize     merges (count, mean, m2) of all splits,                 writes stats
 *                              each of K parts (of a row: its channels; else K is 1)
 *   channel_stats_running      takes the running statistics instead                    writes stats
 *   channel_backward_finalize  adds (sum dy, sum dy*xHat) of all splits                writes dGamma, dBeta, sums
 *   row_backward_finalize      adds gamma*(sum dy, sum dy*xHat) of a row's K planes     writes sums
 *   channel_stats_average      averages mean and unbiased variance over N rows of each  writes averages
 *   channel_running_commit     running = keep*running + take*statistic                 updates runningMean, runningVar
 *
 * stats: C x (mean high, mean low, invStd, variance). sums: C x (dBeta/M, dGamma/M).
 * The running statistics move by float operations alone, so that every device ends with the same bits.
 *
 * Local memory: 3*LOCAL_SIZE reals, 2*LOCAL_SIZE in the backwards. Barriers stand outside of all loops over partial results,
 * where every work-item comes.
 *
 *   SHARE        finalizes: work-items of a channel, a power of two; sums then differ from those of 1 in their order alone
 *   LOCAL_SIZE   with SHARE > 1: work-items of a group, a power of two of at least SHARE
 *   CENTERED     1: values are taken about their mean; 0: the mean is 0 by definition (RMS norm)
 *   ELEMENTWISE  row_backward_finalize: 1 gamma is in the partials already
 *   MASKED       1: a row has as many values as its sample's length times `count`; else it has `count`
 * and those of real.clh.
 */
#include "real.clh"

#ifndef SHARE
#define SHARE 1
#endif
#ifndef LOCAL_SIZE
#define LOCAL_SIZE SHARE
#endif
#ifndef CENTERED
#define CENTERED 1
#endif
#ifndef ELEMENTWISE
#define ELEMENTWISE 0
#endif
#ifndef MASKED
#define MASKED 0
#endif

/* Neighbouring work-items take neighbouring channels. */
#define CHANNELS (LOCAL_SIZE / SHARE)
#if SHARE > 1
#define CHANNEL ((long)get_group_id(0) * CHANNELS + get_local_id(0) % CHANNELS)
#define PART ((int)get_local_id(0) / CHANNELS)
#define FINALIZE __kernel __attribute__((reqd_work_group_size(LOCAL_SIZE, 1, 1)))
#else
#define CHANNEL ((long)get_global_id(0))
#define PART 0
#define FINALIZE __kernel
#endif

/* Adds up two values over the work-items of a channel, of which the first gets both sums. Every work-item calls it. */
INLINE void share_sums(real *a, real *b, __local real *tree) {
#if SHARE > 1
    int item = (int)get_local_id(0);
    tree[item] = *a;
    tree[LOCAL_SIZE + item] = *b;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int step = SHARE / 2; step > 0; step /= 2) {
        if (PART < step) {
            tree[item] = real_add(tree[item], tree[item + step * CHANNELS]);
            tree[LOCAL_SIZE + item] = real_add(tree[LOCAL_SIZE + item], tree[LOCAL_SIZE + item + step * CHANNELS]);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    *a = tree[item];
    *b = tree[LOCAL_SIZE + item];
#endif
}

/* The same of statistics. */
INLINE moments share_moments(moments own, __local real *tree) {
#if SHARE > 1
    int item = (int)get_local_id(0);
    tree[item] = own.count;
    tree[LOCAL_SIZE + item] = own.mean;
    tree[2 * LOCAL_SIZE + item] = own.m2;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int step = SHARE / 2; step > 0; step /= 2) {
        if (PART < step) {
            int other = item + step * CHANNELS;
            moments m = {tree[other], tree[LOCAL_SIZE + other], tree[2 * LOCAL_SIZE + other]};
            own = moments_merge(own, m);
            tree[item] = own.count;
            tree[LOCAL_SIZE + item] = own.mean;
            tree[2 * LOCAL_SIZE + item] = own.m2;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
#endif
    return own;
}

/* How many values a row of a sample has. */
INLINE long values_of(const __global int *lengths, long sample, long count) {
#if MASKED
    return lengths[sample] * count;
#else
    return count;
#endif
}

FINALIZE void channel_stats_finalize(
    const __global real *partials, __global float4 *stats, long C, long K, long splits, float2 eps) {
    __local real tree[3 * LOCAL_SIZE];
    long channel = CHANNEL;
    moments all = {real_of((float2)(0.0f, 0.0f)), real_of((float2)(0.0f, 0.0f)), real_of((float2)(0.0f, 0.0f))};
    for (long part = PART; channel < C && part < splits * K; part += SHARE) {
        const __global real *partial = partials + 3 * ((part / K * C + channel) * K + part % K);
        moments m = {partial[0], partial[1], partial[2]};
        all = moments_merge(all, m);
    }
    all = share_moments(all, tree);
    if (PART == 0 && channel < C) {
        stats[channel] = moments_statistics(all, eps);
    }
}

__kernel void channel_stats_running(
    const __global float *runningMean, const __global float *runningVar, __global float4 *stats, long C, float2 eps) {
    long channel = get_global_id(0);
    if (channel < C) {
        stats[channel] = running_statistics(runningMean[channel], runningVar[channel], eps);
    }
}

FINALIZE void channel_backward_finalize(
    const __global real *partials, __global float2 *sums, __global float *dGamma, __global float *dBeta, long C,
    long splits, long count, int accumulate) {
    __local real tree[2 * LOCAL_SIZE];
    long channel = CHANNEL;
    real d_beta = real_of((float2)(0.0f, 0.0f));
    real d_gamma = d_beta;
    for (long split = PART; channel < C && split < splits; split += SHARE) {
        d_beta = real_add(d_beta, partials[2 * (split * C + channel)]);
        d_gamma = real_add(d_gamma, partials[2 * (split * C + channel) + 1]);
    }
    share_sums(&d_beta, &d_gamma, tree);
    if (PART == 0 && channel < C) {
        store_gradients(dGamma, dBeta, channel, d_gamma, d_beta, accumulate);
        sums[channel] = mean_pair(d_beta, d_gamma, real_of_long(count));
    }
}

FINALIZE void row_backward_finalize(
    const __global real *partials, const __global float *gamma, const __global int *lengths, __global float2 *sums,
    long rows, long C, long K, long splits, long count) {
    __local real tree[2 * LOCAL_SIZE];
    long row = CHANNEL;
    real a = real_of((float2)(0.0f, 0.0f));
    real b = a;
    for (long part = PART; row < rows && part < splits * K; part += SHARE) {
        long plane = row * K + part % K;
        real weight = real_of((float2)(ELEMENTWISE ? 1.0f : gamma[plane % C], 0.0f));
        const __global real *partial = partials + 2 * (part / K * rows * K + plane);
        a = real_add(a, real_mul(weight, partial[0]));
        b = real_add(b, real_mul(weight, partial[1]));
    }
    share_sums(&a, &b, tree);
    if (PART == 0 && row < rows) {
        real d = real_of_long(values_of(lengths, row * K / C, count));
        sums[row] = (float2)(CENTERED ? real_high(real_div(a, d)) : 0.0f, real_high(real_div(b, d)));
    }
}

__kernel void channel_stats_average(
    const __global float4 *stats, const __global int *lengths, __global float4 *averages, long C, long N, long count) {
    long channel = get_global_id(0);
    if (channel < C) {
        real mean = real_of((float2)(0.0f, 0.0f));
        real variance = mean;
        long rows = 0;
        for (long n = 0; n < N; n++) {
            long values = values_of(lengths, n, count);
            if (values > 1) {
                float4 own = stats[n * C + channel];
                real factor = real_div(real_of_long(values), real_of_long(values - 1));
                mean = real_add(mean, real_of(own.xy));
                variance = real_add(variance, real_mul(factor, real_of((float2)(own.w, 0.0f))));
                rows++;
            }
        }
        real all = real_of_long(rows);
        averages[channel] = (float4)(real_pair(real_div(mean, all)), 0.0f, real_high(real_div(variance, all)));
    }
}

/* keep*old + take*new of high and low parts, rounded once, by the same operations on every device. */
INLINE float moved(float2 keep, float old, float2 take, float2 new) {
    float p = keep.x * old;
    float q = take.x * new.x;
    float sum = p + q;
    float t = sum - p;
    float low = (p - (sum - t)) + (q - t) + fma(keep.x, old, -p) + fma(take.x, new.x, -q) + keep.y * old +
                take.y * new.x + take.x * new.y;
    return isfinite(sum) ? sum + low : sum;
}

__kernel void channel_running_commit(
    const __global float4 *stats, __global float *runningMean, __global float *runningVar, long C, float2 keep,
    float2 takeMean, float2 takeVar, int keepVar, int skipNonFinite) {
    long channel = get_global_id(0);
    if (channel < C) {
        float4 own = stats[channel];
        if (!(skipNonFinite && !(isfinite(own.x) && isfinite(own.w)))) {
            runningMean[channel] = moved(keep, runningMean[channel], takeMean, own.xy);
            if (!keepVar) {
                runningVar[channel] = moved(keep, runningVar[channel], takeVar, (float2)(own.w, 0.0f));
            }
        }
    }
}
