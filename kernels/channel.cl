/* The small per-channel steps of batch norm, between the passes over the tensor. One work-item per channel; the global
 * size is C rounded up to whole work-groups.
 *
 *   channel_stats_finalize     merges (count, mean, m2) of all splits in their order   writes stats
 *   channel_stats_running      takes the running statistics instead                    writes stats
 *   channel_backward_finalize  adds (sum dy, sum dy*xHat) of all splits in their order writes dGamma, dBeta, sums
 *   channel_running_commit     running = keep*running + take*statistic                 updates runningMean, runningVar
 *
 * stats: C x (mean high, mean low, invStd, variance). sums: C x (dBeta/M, dGamma/M).
 * The running statistics are updated with one fma per value, so that every device ends with the same bits.
 */
#include "real.clh"

__kernel void channel_stats_finalize(
    const __global real *partials, __global float4 *stats, long C, long splits, float2 eps) {
    long channel = get_global_id(0);
    if (channel < C) {
        moments all = {
            real_of((float2)(0.0f, 0.0f)), real_of((float2)(0.0f, 0.0f)), real_of((float2)(0.0f, 0.0f))};
        for (long split = 0; split < splits; split++) {
            const __global real *partial = partials + 3 * (split * C + channel);
            moments m = {partial[0], partial[1], partial[2]};
            all = moments_merge(all, m);
        }
        stats[channel] = moments_statistics(all, eps);
    }
}

__kernel void channel_stats_running(
    const __global float *runningMean, const __global float *runningVar, __global float4 *stats, long C, float2 eps) {
    long channel = get_global_id(0);
    if (channel < C) {
        moments m = {
            real_of((float2)(1.0f, 0.0f)), real_of((float2)(runningMean[channel], 0.0f)),
            real_of((float2)(runningVar[channel], 0.0f))};
        stats[channel] = moments_statistics(m, eps);
    }
}

__kernel void channel_backward_finalize(
    const __global real *partials, __global float2 *sums, __global float *dGamma, __global float *dBeta, long C,
    long splits, long count, int accumulate) {
    long channel = get_global_id(0);
    if (channel < C) {
        real d_beta = real_of((float2)(0.0f, 0.0f));
        real d_gamma = d_beta;
        for (long split = 0; split < splits; split++) {
            d_beta = real_add(d_beta, partials[2 * (split * C + channel)]);
            d_gamma = real_add(d_gamma, partials[2 * (split * C + channel) + 1]);
        }
        dGamma[channel] = (accumulate ? dGamma[channel] : 0.0f) + real_high(d_gamma);
        dBeta[channel] = (accumulate ? dBeta[channel] : 0.0f) + real_high(d_beta);
        real m = real_of_long(count);
        sums[channel] = (float2)(real_high(real_div(d_beta, m)), real_high(real_div(d_gamma, m)));
    }
}

__kernel void channel_running_commit(
    const __global float4 *stats, __global float *runningMean, __global float *runningVar, long C, float keep,
    float takeMean, float takeVar, int keepVar, int skipNonFinite) {
    long channel = get_global_id(0);
    if (channel < C) {
        float4 own = stats[channel];
        if (!(skipNonFinite && !(isfinite(own.x) && isfinite(own.w)))) {
            runningMean[channel] = fma(takeMean, own.x, keep * runningMean[channel]);
            if (!keepVar) {
                runningVar[channel] = fma(takeVar, own.w, keep * runningVar[channel]);
            }
        }
    }
}
