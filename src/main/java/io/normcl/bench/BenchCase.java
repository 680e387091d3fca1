package io.normcl.bench;

import io.normcl.tensor.Activation;
import io.normcl.tensor.DataType;
import io.normcl.tensor.Layout;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.stream.Collectors;
import java.util.stream.LongStream;

/**
 * A layer and a tensor to time it on.
 *
 * @param op the layer
 * @param layout where the channels stand; a tensor of two dimensions has its channels last
 * @param type how the tensors are stored
 * @param shape N, C and the spatial dimensions, in this order in either layout
 * @param groups of a group norm; of another layer it plays no part
 * @param activation what follows
 * @param residual whether a residual is added before the activation
 */
public record BenchCase(
        Op op, Layout layout, DataType type, List<Long> shape, int groups, Activation activation, boolean residual) {
    /** Group norm's usual number of groups (Wu and He 2018). */
    public static final int GROUPS = 32;

    /** The layers. */
    public enum Op {
        /** Batch norm. */
        BATCH_NORM,
        /** Group norm. */
        GROUP_NORM,
        /** Group norm with statistics at each place alone; of one group, the layer norm over channels. */
        GROUP_NORM_PER_LOCATION,
        /** Instance norm, with gamma, beta and running statistics. */
        INSTANCE_NORM,
        /** Layer norm over all dimensions but the first. */
        LAYER_NORM,
        /** RMS norm over all dimensions but the first. */
        RMS_NORM
    }

    /** What is timed. */
    public enum Pass {
        /** The forward of a training step. */
        FORWARD_TRAINING,
        /** The forward of an evaluation, which in layers without running statistics is the same. */
        FORWARD_EVALUATION,
        /** dx, dGamma and dBeta, and dz where there is a residual. */
        BACKWARD
    }

    /**
     * Checks the shape.
     *
     * @param op the layer
     * @param layout where the channels stand; a tensor of two dimensions has its channels last
     * @param type how the tensors are stored
     * @param shape N, C and the spatial dimensions, in this order in either layout
     * @param groups of a group norm; of another layer it plays no part
     * @param activation what follows
     * @param residual whether a residual is added before the activation
     * @throws IllegalArgumentException if there are fewer than two dimensions, or one is less than 1
     */
    public BenchCase {
        if (shape.size() < 2 || shape.stream().anyMatch(size -> size < 1)) {
            throw new IllegalArgumentException(
                    "a shape to time needs N, C and perhaps places, each at least 1: shape=" + joined(shape));
        }
        if (shape.stream().mapToDouble(Long::doubleValue).reduce(1, (a, b) -> a * b) > 1L << 40) {
            throw new IllegalArgumentException(
                    "a shape to time must have less than 2^40 values: shape=" + joined(shape));
        }
        shape = List.copyOf(shape);
        layout = shape.size() == 2 ? Layout.CHANNELS_LAST : layout;
    }

    /**
     * A case of floats with nothing fused and {@value #GROUPS} groups, or one per location.
     *
     * @param op the layer
     * @param layout where the channels stand
     * @param shape as {@link #shape(String)} reads it
     * @return the case
     */
    public static BenchCase of(Op op, Layout layout, String shape) {
        return new BenchCase(op, layout, DataType.FLOAT, shape(shape), groups(op), Activation.NONE, false);
    }

    private static int groups(Op op) {
        return op == Op.GROUP_NORM_PER_LOCATION ? 1 : GROUPS;
    }

    /**
     * Reads a shape.
     *
     * @param text numbers with x between, as 32x64x112x112
     * @return the numbers
     * @throws IllegalArgumentException if it is something else
     */
    public static List<Long> shape(String text) {
        try {
            return Arrays.stream(text.split("x", -1)).map(Long::valueOf).toList();
        } catch (NumberFormatException e) {
            throw new IllegalArgumentException("a shape must be numbers with x between: shape=" + text, e);
        }
    }

    /**
     * Stored otherwise.
     *
     * @param newType the data type
     * @return the changed case
     */
    public BenchCase withType(DataType newType) {
        return new BenchCase(op, layout, newType, shape, groups, activation, residual);
    }

    /**
     * With something fused.
     *
     * @param newActivation what follows
     * @param newResidual whether a residual is added before it
     * @return the changed case
     */
    public BenchCase withFused(Activation newActivation, boolean newResidual) {
        return new BenchCase(op, layout, type, shape, groups, newActivation, newResidual);
    }

    /**
     * With other groups.
     *
     * @param newGroups of a group norm
     * @return the changed case
     */
    public BenchCase withGroups(int newGroups) {
        return new BenchCase(op, layout, type, shape, newGroups, activation, residual);
    }

    /**
     * The dimensions in the order they are stored in.
     *
     * @return N, C and the places, or N, the places and C
     */
    public long[] stored() {
        long[] sizes = LongStream.concat(
                        LongStream.of(shape.get(0)),
                        shape.stream()
                                .skip(layout == Layout.CHANNELS_LAST ? 2 : 1)
                                .mapToLong(Long::longValue))
                .toArray();
        if (layout == Layout.CHANNELS_LAST) {
            sizes = Arrays.copyOf(sizes, sizes.length + 1);
            sizes[sizes.length - 1] = shape.get(1);
        }
        return sizes;
    }

    /**
     * The number of values of a tensor.
     *
     * @return the product of the dimensions
     */
    public long elements() {
        return shape.stream().reduce(1L, (a, b) -> a * b);
    }

    /**
     * The size of a tensor.
     *
     * @return bytes
     */
    public long tensorBytes() {
        return elements() * type.bytes();
    }

    /**
     * What the results call the layer.
     *
     * @return its name, its groups where they are unusual, and what is fused
     */
    public String name() {
        boolean grouped = op == Op.GROUP_NORM || op == Op.GROUP_NORM_PER_LOCATION;
        return lower(op)
                + (grouped && groups != groups(op) ? "/" + groups : "")
                + (residual ? "+residual" : "")
                + (activation.kind() == Activation.Kind.NONE ? "" : "+" + lower(activation.kind()));
    }

    /**
     * What the results call the shape.
     *
     * @return the dimensions with x between
     */
    public String shapeName() {
        return joined(shape);
    }

    /** A constant's name as the results and the command line have it. */
    static String lower(Enum<?> constant) {
        return constant.name().toLowerCase(Locale.ROOT);
    }

    private static String joined(List<Long> sizes) {
        return sizes.stream().map(Object::toString).collect(Collectors.joining("x"));
    }

    @Override
    public String toString() {
        return name() + " " + lower(layout) + " " + lower(type) + " " + shapeName();
    }
}
