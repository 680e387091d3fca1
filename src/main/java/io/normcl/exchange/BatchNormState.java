package io.normcl.exchange;

import io.normcl.BatchNorm;
import io.normcl.InstanceNorm;
import io.normcl.NormLayer;
import io.normcl.RunningVariance;
import io.normcl.device.Buffer;
import java.util.Arrays;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * What a batch norm has learned, on the host: C floats in each array, those of one kind missing where the layer has
 * none. The state says which variance its running variance holds, so that none is taken for the other.
 *
 * @param gamma the scale, null for none; retained, not copied, as the other arrays
 * @param beta the offset, null for none
 * @param runningMean the running mean, null where there are no running statistics
 * @param runningVar the running variance, null where there are no running statistics
 * @param runningVariance which variance that is; of no meaning where there is none
 * @param batchesTracked the batches seen, 0 where nobody counted
 */
@SuppressWarnings("ArrayRecordComponent") // a name for four arrays
public record BatchNormState(
        float @Nullable [] gamma,
        float @Nullable [] beta,
        float @Nullable [] runningMean,
        float @Nullable [] runningVar,
        RunningVariance runningVariance,
        long batchesTracked) {
    /**
     * Checks that the parts fit together.
     *
     * @param gamma the scale, null for none; retained, not copied, as the other arrays
     * @param beta the offset, null for none
     * @param runningMean the running mean, null where there are no running statistics
     * @param runningVar the running variance, null where there are no running statistics
     * @param runningVariance which variance that is; of no meaning where there is none
     * @param batchesTracked the batches seen, 0 where nobody counted
     */
    public BatchNormState {
        if ((runningMean == null) != (runningVar == null)) {
            throw new IllegalArgumentException("running statistics are both there or both missing: runningMean="
                    + told(runningMean) + ", runningVar=" + told(runningVar));
        }
        long sizes = Arrays.asList(gamma, beta, runningMean, runningVar).stream()
                .filter(Objects::nonNull)
                .mapToInt(values -> values.length)
                .distinct()
                .count();
        if (sizes > 1) {
            throw new IllegalArgumentException("a state's arrays have one value per channel: gamma=" + told(gamma)
                    + ", beta=" + told(beta) + ", runningMean=" + told(runningMean) + ", runningVar="
                    + told(runningVar));
        }
        if (batchesTracked < 0) {
            throw new IllegalArgumentException("batches are counted from 0: batchesTracked=" + batchesTracked);
        }
    }

    /**
     * Reads what a layer has learned; waits for the device.
     *
     * @param norm read
     * @return a copy, with the variance that the layer's spec names
     */
    public static BatchNormState of(BatchNorm norm) {
        return new BatchNormState(
                AffineState.floats(norm.gamma()),
                AffineState.floats(norm.beta()),
                AffineState.floats(norm.runningMean()),
                AffineState.floats(norm.runningVar()),
                norm.spec().runningVariance(),
                norm.batchesTracked());
    }

    /**
     * Reads what a layer has learned; waits for the device.
     *
     * @param norm read; with or without running statistics
     * @return a copy, with the unbiased variance
     */
    public static BatchNormState of(InstanceNorm norm) {
        return new BatchNormState(
                AffineState.floats(norm.gamma()),
                AffineState.floats(norm.beta()),
                AffineState.floats(norm.runningMean()),
                AffineState.floats(norm.runningVar()),
                RunningVariance.UNBIASED,
                norm.batchesTracked());
    }

    /**
     * Writes the state into a layer.
     *
     * @param norm its parameters, running statistics and count of batches are overwritten
     * @throws IllegalArgumentException if an array is missing, not the layer's or of another size, or the running
     *     variance is the other one, until {@link #convertedTo} or {@link #keptAs} says what is to happen; nothing was
     *     written
     */
    public void writeTo(BatchNorm norm) {
        writeTo(norm, norm.runningMean(), norm.runningVar(), norm.spec().runningVariance());
        norm.batchesTracked(batchesTracked);
    }

    /**
     * Writes the state into a layer.
     *
     * @param norm its parameters, running statistics and count of batches are overwritten
     * @throws IllegalArgumentException if an array is missing, not the layer's or of another size, or the running
     *     variance is not the unbiased one; nothing was written
     */
    public void writeTo(InstanceNorm norm) {
        writeTo(norm, norm.runningMean(), norm.runningVar(), RunningVariance.UNBIASED);
        norm.batchesTracked(batchesTracked);
    }

    private void writeTo(NormLayer norm, @Nullable Buffer mean, @Nullable Buffer variance, RunningVariance wanted) {
        AffineState.requireFits("gamma", gamma, norm.gamma(), norm);
        AffineState.requireFits("beta", beta, norm.beta(), norm);
        AffineState.requireFits("runningMean", runningMean, mean, norm);
        AffineState.requireFits("runningVar", runningVar, variance, norm);
        if (runningVar != null && runningVariance != wanted) {
            throw new IllegalArgumentException(
                    "a running variance is converted by a count or kept as it is, as you say: layer=" + norm
                            + ", wanted=" + wanted + ", state=" + runningVariance);
        }
        AffineState.write(gamma, norm.gamma());
        AffineState.write(beta, norm.beta());
        AffineState.write(runningMean, mean);
        AffineState.write(runningVar, variance);
    }

    /**
     * The state with the other running variance, by Bessel's factor: {@code unbiased = biased·n/(n − 1)}, computed in
     * double and rounded once. That is right where every training batch had n values per channel and is an approximation
     * where their sizes differed; what is left of the 1 that running variances start with is scaled along.
     *
     * @param wanted the variance to hold
     * @param n the values per channel of a training batch, N·S; S for an instance norm's; at least 2
     * @return the changed state, or this where it holds that variance already or none
     * @throws IllegalArgumentException if n is below 2
     */
    public BatchNormState convertedTo(RunningVariance wanted, long n) {
        if (n < 2) {
            throw new IllegalArgumentException(
                    "a variance of one value can't be unbiased: n=" + n + ", wanted=" + wanted);
        }
        if (runningVar == null || wanted == runningVariance) {
            return keptAs(wanted);
        }
        float[] converted = new float[runningVar.length];
        for (int c = 0; c < converted.length; c++) {
            double variance = runningVar[c];
            converted[c] =
                    (float) (wanted == RunningVariance.UNBIASED ? variance * n / (n - 1) : variance * (n - 1) / n);
        }
        return new BatchNormState(gamma, beta, runningMean, converted, wanted, batchesTracked);
    }

    /**
     * The state with the same numbers, taken for the other variance: where the difference is known not to matter, or
     * where whoever wrote the state did not follow its convention.
     *
     * @param which the variance that the running variance is taken for
     * @return the changed state
     */
    public BatchNormState keptAs(RunningVariance which) {
        return new BatchNormState(gamma, beta, runningMean, runningVar, which, batchesTracked);
    }

    private static String told(float @Nullable [] values) {
        return values == null ? "missing" : values.length + " values";
    }
}
