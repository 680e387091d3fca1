package io.normcl.exchange;

import io.normcl.GroupNorm;
import io.normcl.InstanceNorm;
import io.normcl.InstanceNormSpec;
import io.normcl.LayerNorm;
import io.normcl.NormLayer;
import io.normcl.RmsNorm;
import io.normcl.RowNorm;
import io.normcl.device.Buffer;
import io.normcl.exchange.Safetensors.Entry;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * What a layer, group, instance or RMS norm has learned, on the host: a scale and an offset of one shape. No framework
 * means anything else by them, so that they are read and written by their names alone.
 *
 * @param gamma the scale in C order, null for none; retained, not copied, as beta
 * @param beta the offset in C order, null for none, as RMS norm has none
 * @param shape the shape of both: the normalized dimensions, or the channels; retained
 */
@SuppressWarnings("ArrayRecordComponent") // a name for two arrays of one shape
public record AffineState(float @Nullable [] gamma, float @Nullable [] beta, long... shape) {
    /**
     * Checks that the sizes fit together.
     *
     * @param gamma the scale in C order, null for none; retained, not copied, as beta
     * @param beta the offset in C order, null for none, as RMS norm has none
     * @param shape the shape of both: the normalized dimensions, or the channels; retained
     */
    public AffineState {
        for (float[] values : Arrays.asList(gamma, beta)) {
            if (values != null && values.length != Arrays.stream(shape).reduce(1, (a, b) -> a * b)) {
                throw new IllegalArgumentException("gamma and beta have as many values as the shape: shape="
                        + Arrays.toString(shape) + ", values=" + values.length);
            }
        }
    }

    /**
     * Reads a state.
     *
     * @param tensors tensors by name, as {@link Safetensors#tensors} has them
     * @param gammaName the whole name of the scale: {@code "ln.weight"} in PyTorch, {@code "ln/gamma"} in Keras
     * @param betaName the whole name of the offset
     * @return the state, with what is missing missing
     * @throws IllegalArgumentException if both are missing, one is not F32, or their shapes differ
     */
    public static AffineState read(Map<String, Entry> tensors, String gammaName, String betaName) {
        Entry gamma = tensors.get(gammaName);
        Entry beta = tensors.get(betaName);
        Entry either = gamma != null ? gamma : beta;
        if (either == null
                || !either.dtype().equals("F32")
                || (beta != null && !either.toString().equals(beta.toString()))) {
            throw new IllegalArgumentException("a norm's tensors are F32 and of one shape, one of them there: "
                    + gammaName + "=" + told(gamma) + ", " + betaName + "=" + told(beta));
        }
        return new AffineState(
                gamma == null ? null : gamma.floats(), beta == null ? null : beta.floats(), either.shape());
    }

    /**
     * Reads what a layer has learned; waits for the device.
     *
     * @param norm read
     * @return a copy, of the layer's normalized dimensions or its channels
     * @throws IllegalArgumentException if it is an instance norm with running statistics: that is a {@link BatchNormState}
     */
    public static AffineState of(RowNorm norm) {
        return new AffineState(floats(norm.gamma()), floats(norm.beta()), shape(norm));
    }

    /**
     * Writes gamma and beta into a layer.
     *
     * @param norm its gamma and beta are overwritten
     * @throws IllegalArgumentException if the layer has another shape, or not the same of gamma and beta, or is an
     *     instance norm with running statistics; nothing was written
     */
    public void writeTo(RowNorm norm) {
        long[] wanted = shape(norm);
        if (!Arrays.equals(shape, wanted)) {
            throw new IllegalArgumentException("a state must have the layer's shape: shape=" + Arrays.toString(shape)
                    + ", layer's shape=" + Arrays.toString(wanted) + ", layer=" + norm);
        }
        requireFits("gamma", gamma, norm.gamma(), norm);
        requireFits("beta", beta, norm.beta(), norm);
        write(gamma, norm.gamma());
        write(beta, norm.beta());
    }

    private static long[] shape(RowNorm norm) {
        if (norm instanceof LayerNorm layer) {
            return layer.spec().shape().stream().mapToLong(size -> size).toArray();
        }
        if (norm instanceof RmsNorm rms) {
            return rms.spec().shape().stream().mapToLong(size -> size).toArray();
        }
        if (norm instanceof GroupNorm group) {
            return new long[] {group.spec().channels()};
        }
        InstanceNormSpec spec = ((InstanceNorm) norm).spec();
        if (spec.runningStatistics()) {
            throw new IllegalArgumentException(
                    "an instance norm with running statistics has a batch norm's state: layer=" + norm);
        }
        return new long[] {spec.channels()};
    }

    /** Refuses an array that is not the buffer's. */
    static void requireFits(String what, float @Nullable [] values, @Nullable Buffer buffer, NormLayer norm) {
        long own = values == null ? 0 : values.length;
        long wanted = buffer == null ? 0 : buffer.bytes() / Float.BYTES;
        if (own != wanted) {
            throw new IllegalArgumentException("a state must have the layer's arrays: " + what + "="
                    + (values == null ? "missing" : own + " values") + ", layer's="
                    + (buffer == null ? "missing" : wanted + " values") + ", layer=" + norm);
        }
    }

    static void write(float @Nullable [] values, @Nullable Buffer buffer) {
        if (values != null && buffer != null) {
            buffer.write(values);
        }
    }

    static float @Nullable [] floats(@Nullable Buffer buffer) {
        if (buffer == null) {
            return null;
        }
        float[] values = new float[(int) (buffer.bytes() / Float.BYTES)];
        buffer.read(values);
        return values;
    }

    /**
     * Names the tensors, to be written.
     *
     * @param gammaName the whole name of the scale
     * @param betaName the whole name of the offset
     * @return a new map of those that are there, copied
     */
    public Map<String, Entry> write(String gammaName, String betaName) {
        Map<String, Entry> tensors = new LinkedHashMap<>();
        if (gamma != null) {
            tensors.put(gammaName, Entry.of(gamma, shape));
        }
        if (beta != null) {
            tensors.put(betaName, Entry.of(beta, shape));
        }
        return tensors;
    }

    private static String told(@Nullable Entry entry) {
        return entry == null ? "missing" : entry.toString();
    }
}
