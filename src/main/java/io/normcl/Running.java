package io.normcl;

import io.normcl.device.Buffer;
import io.normcl.plan.ChannelPlan;
import io.normcl.plan.KernelCall;
import io.normcl.plan.Slot;
import java.util.EnumMap;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** The running statistics of a layer, and how they move. */
final class Running {
    private final NormLayer layer;
    private final @Nullable Buffer mean;
    private final @Nullable Buffer variance;
    private final Momentum momentum;
    private @Nullable KernelCall move;
    private long batchesTracked;

    Running(NormLayer layer, @Nullable Buffer mean, @Nullable Buffer variance, Momentum momentum) {
        this.layer = layer;
        this.mean = mean;
        this.variance = variance;
        this.momentum = momentum;
    }

    @Nullable
    Buffer mean() {
        return mean;
    }

    @Nullable
    Buffer variance() {
        return variance;
    }

    long batchesTracked() {
        return batchesTracked;
    }

    void batchesTracked(long count) {
        if (count < 0) {
            throw new IllegalArgumentException("a count of batches must not be negative: count=" + count);
        }
        batchesTracked = count;
    }

    void put(Map<Slot, Object> slots) {
        if (mean != null && variance != null) {
            slots.put(Slot.RUNNING_MEAN, mean);
            slots.put(Slot.RUNNING_VAR, variance);
        }
    }

    /**
     * Moves to statistics on the device and counts a batch.
     *
     * @param stats C times (mean high, mean low, invStd, variance)
     * @param count how many values they are of; of none nothing moves, of one the variance stays
     * @param factor what the variance is multiplied by
     */
    void commit(Buffer stats, long count, double factor, NonFinite policy) {
        if (count > 0 && mean != null) {
            double weight = momentum.weight(batchesTracked);
            Map<Slot, Object> slots = new EnumMap<>(Slot.class);
            put(slots);
            slots.put(Slot.STATS, stats);
            slots.put(Slot.KEEP, pair(1 - weight));
            slots.put(Slot.TAKE_MEAN, pair(weight));
            slots.put(Slot.TAKE_VAR, pair(weight * factor));
            slots.put(Slot.KEEP_VAR, count == 1 ? 1 : 0);
            slots.put(Slot.SKIP_NON_FINITE, policy == NonFinite.SKIP ? 1 : 0);
            KernelCall call = move;
            if (call == null) {
                call = ChannelPlan.commit(mean.bytes() / Float.BYTES, layer.device.limits());
                move = call;
            }
            layer.launch(call, slots);
        }
        batchesTracked++;
    }

    /** Takes statistics as they are, whatever was there; refuses what is not finite. */
    void replace(double[] means, double[] variances, double factor) {
        requireFinite(means, variances);
        float[] newMean = new float[means.length];
        float[] newVariance = new float[means.length];
        for (int c = 0; c < means.length; c++) {
            newMean[c] = (float) means[c];
            newVariance[c] = (float) (variances[c] * factor);
        }
        if (mean != null && variance != null) {
            mean.write(newMean);
            variance.write(newVariance);
        }
    }

    /** A high and a low float. */
    static float[] pair(double value) {
        float high = (float) value;
        return new float[] {high, (float) (value - high)};
    }

    static void requireFinite(double[] means, double[] variances) {
        for (int c = 0; c < means.length; c++) {
            if (!Double.isFinite(means[c]) || !Double.isFinite(variances[c])) {
                throw new ArithmeticException("statistics must be finite to become running statistics: channel=" + c
                        + ", mean=" + means[c] + ", variance=" + variances[c]);
            }
        }
    }

    static double[] doubles(float[] values) {
        double[] doubles = new double[values.length];
        for (int i = 0; i < values.length; i++) {
            doubles[i] = values[i];
        }
        return doubles;
    }
}
