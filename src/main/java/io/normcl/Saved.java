package io.normcl;

import io.normcl.device.Buffer;
import io.normcl.plan.Form;
import io.normcl.sync.ChannelMoments;
import io.normcl.tensor.Lengths;
import org.jspecify.annotations.Nullable;

/**
 * What a forward leaves for its backward and for the commit: the statistics it normalized with, one set for each
 * channel of a batch norm or for each row of another norm; NaN for an empty batch, 0 where lengths leave no value.
 */
public final class Saved implements AutoCloseable {
    private final NormLayer layer;
    private final Pass pass;
    private NormLayer.@Nullable Memory memory;

    /**
     * What a forward did.
     *
     * @param mode of the forward
     * @param view of its input
     * @param form of its input
     * @param lengths of its input
     * @param sets how many sets of statistics there are
     * @param batch whether they are the batch's
     * @param count of how many values each set is
     * @param merged whether they are of more than this layer's own input
     */
    record Pass(
            Mode mode,
            Object view,
            Form form,
            @Nullable Lengths lengths,
            int sets,
            boolean batch,
            long count,
            boolean merged) {}

    Saved(NormLayer layer, Pass pass, NormLayer.Memory memory) {
        this.layer = layer;
        this.pass = pass;
        this.memory = memory;
    }

    /**
     * Values that each set of statistics is of: M of a batch norm, over all replicas or micro-batches; D of a row norm,
     * where there are no lengths.
     *
     * @return the count
     */
    public long count() {
        return pass.count();
    }

    /**
     * Whether the statistics are the batch's rather than the running ones.
     *
     * @return true where they are
     */
    public boolean ofBatch() {
        return pass.batch();
    }

    /**
     * Reads the statistics; waits for the device.
     *
     * @return a mean for each set, with the precision of a high and a low float; 0 where the norm takes none
     */
    public double[] mean() {
        float[] stats = read();
        double[] mean = new double[pass.sets()];
        for (int i = 0; i < mean.length; i++) {
            mean[i] = mean(stats, i);
        }
        return mean;
    }

    /**
     * Reads the statistics; waits for the device.
     *
     * @return 1/√(variance + eps) for each set
     */
    public float[] invStd() {
        return column(2);
    }

    /**
     * Reads the statistics; waits for the device.
     *
     * @return the population variance for each set; the mean square where the norm takes no mean
     */
    public float[] variance() {
        return column(3);
    }

    /**
     * Reads the statistics of a batch norm as moments that can be merged with others; waits for the device.
     *
     * @return count, mean and m2 of each channel
     * @throws IllegalArgumentException if the layer is no batch norm, or the statistics are not the batch's
     */
    public ChannelMoments moments() {
        if (!(layer instanceof BatchNorm) || !pass.batch()) {
            throw new IllegalArgumentException(
                    "moments are of a batch norm's batch: layer=" + layer + ", of batch=" + pass.batch());
        }
        float[] stats = read();
        ChannelMoments moments = new ChannelMoments(pass.sets());
        double count = pass.count();
        for (int c = 0; c < pass.sets(); c++) {
            moments.merge(c, count, mean(stats, c), stats[4 * c + 3] * count);
        }
        return moments;
    }

    private static double mean(float[] stats, int set) {
        return (double) stats[4 * set] + stats[4 * set + 1];
    }

    private float[] column(int index) {
        float[] stats = read();
        float[] column = new float[pass.sets()];
        for (int i = 0; i < column.length; i++) {
            column[i] = stats[4 * i + index];
        }
        return column;
    }

    private float[] read() {
        float[] stats = new float[4 * pass.sets()];
        memory().stats().read(stats);
        return stats;
    }

    Pass pass() {
        return pass;
    }

    NormLayer layer() {
        return layer;
    }

    NormLayer.Memory memory() {
        NormLayer.Memory held = memory;
        if (held == null) {
            throw new IllegalStateException("the saved statistics are closed: " + pass.view());
        }
        return held;
    }

    Buffer stats() {
        return memory().stats();
    }

    /** Hands the memory back to the layer for a later forward; a second call does nothing. */
    @Override
    public void close() {
        NormLayer.Memory held = memory;
        memory = null;
        if (held != null) {
            layer.handBack(held);
        }
    }
}
