package io.normcl.verify;

import io.normcl.Momentum;
import io.normcl.tensor.Layout;
import java.io.IOException;
import java.util.HashMap;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** The cases of layer, RMS, group and instance norm, each a call of one layer. */
public final class RowNormProgram implements Program {
    private final Engine engine;

    /**
     * A program that runs its layers on an engine.
     *
     * @param engine opens and runs the layers
     */
    public RowNormProgram(Engine engine) {
        this.engine = engine;
    }

    /** The layers. */
    public enum Kind {
        /** Layer norm over the last dimensions. */
        LAYER,
        /** RMS norm over the last dimensions. */
        RMS,
        /** Group norm. */
        GROUP,
        /** Instance norm. */
        INSTANCE
    }

    /** What offers these layers: the library on a device, or the reference. */
    @FunctionalInterface
    public interface Engine {
        /**
         * Opens a layer, calls it forward, backward where there is a dy, in training commits, and closes it.
         *
         * @param setup what the layer is to be
         * @param inputs what it is called with
         * @return what was computed, and the state afterwards
         * @throws IllegalArgumentException if there can't be such a layer, or the call is refused
         */
        Outputs run(Setup setup, Inputs inputs);
    }

    /**
     * A layer as a case describes it.
     *
     * @param kind which layer
     * @param normalized in layer and RMS norm the dimensions normalized over, that x's shape is to end in; else empty
     * @param layout in group and instance norm where the channels stand; else channels first
     * @param channels in group and instance norm the channels of x; else 0
     * @param groups in group norm the groups; else 0
     * @param eps added to the variance inside the root
     * @param momentum in instance norm how far the running statistics move
     * @param gamma the scale, null for none
     * @param beta the offset, null for none
     * @param runningMean the running mean to begin with, null for a layer without running statistics
     * @param runningVar the running variance to begin with, null for a layer without running statistics
     */
    @SuppressWarnings("ArrayRecordComponent") // a name for what a case gives
    public record Setup(
            Kind kind,
            long[] normalized,
            Layout layout,
            int channels,
            int groups,
            double eps,
            Momentum momentum,
            double @Nullable [] gamma,
            double @Nullable [] beta,
            double @Nullable [] runningMean,
            double @Nullable [] runningVar) {}

    /**
     * What a layer is called with.
     *
     * @param training training, else evaluation, where a layer with running statistics takes them
     * @param shape the dimensions of x as stored
     * @param x its values
     * @param dy the gradient of the output, null where only forward is asked for
     */
    @SuppressWarnings("ArrayRecordComponent") // a name for what a case gives
    public record Inputs(boolean training, long[] shape, double[] x, double @Nullable [] dy) {}

    /**
     * What a call gave.
     *
     * @param y the output
     * @param dx the gradient of x, null without a dy
     * @param dGamma the gradient of gamma, null without a dy or a gamma
     * @param dBeta the gradient of beta, null without a dy or a beta
     * @param mean the mean of each row, null where there is none or the engine doesn't show it
     * @param invStd the factor of each row, null where the engine doesn't show it
     * @param runningMean the running mean afterwards, null where there is none
     * @param runningVar the running variance afterwards, null where there is none
     */
    @SuppressWarnings("ArrayRecordComponent") // a name for what a case wants
    public record Outputs(
            double[] y,
            double @Nullable [] dx,
            double @Nullable [] dGamma,
            double @Nullable [] dBeta,
            double @Nullable [] mean,
            double @Nullable [] invStd,
            double @Nullable [] runningMean,
            double @Nullable [] runningVar) {}

    /**
     * The operations that this runs, for a judge.
     *
     * @return this program by operation
     */
    public Map<String, Program> byOperation() {
        return Map.of("layer_norm", this, "rms_norm", this, "group_norm", this, "instance_norm", this);
    }

    @Override
    public Map<String, double[]> run(ConformanceCase run) throws IOException {
        Inputs inputs = new Inputs(
                Boolean.parseBoolean(run.property("training", "true")), // only instance norm's cases say
                run.shape("x"),
                run.values("x"),
                input(run, "dy"));
        Outputs result = engine.run(setup(run, inputs.shape()), inputs);
        Map<String, double[]> outputs = new HashMap<>();
        put(outputs, "y", result.y());
        put(outputs, "dx", result.dx());
        put(outputs, "dweight", result.dGamma());
        put(outputs, "dbias", result.dBeta());
        put(outputs, "save_mean", result.mean());
        put(outputs, "save_invstd", result.invStd());
        put(outputs, "new_running_mean", result.runningMean());
        put(outputs, "new_running_var", result.runningVar());
        return outputs;
    }

    private static Setup setup(ConformanceCase run, long[] shape) throws IOException {
        Kind kind = switch (run.operation()) {
            case "layer_norm" -> Kind.LAYER;
            case "rms_norm" -> Kind.RMS;
            case "group_norm" -> Kind.GROUP;
            case "instance_norm" -> Kind.INSTANCE;
            default -> throw new IllegalStateException("not a norm of rows: op=" + run.operation());
        };
        int channelAxis = Integer.parseInt(run.property("channel_axis", "-1"));
        return new Setup(
                kind,
                run.list("normalized_shape").stream().mapToLong(Long::parseLong).toArray(),
                channelAxis > 1 ? Layout.CHANNELS_LAST : Layout.CHANNELS_FIRST,
                channelAxis < 0 ? 0 : Math.toIntExact(shape[channelAxis]),
                Integer.parseInt(run.property("num_groups", "0")),
                Double.parseDouble(run.property("eps")),
                Momentum.ofNew(Double.parseDouble(run.property("momentum", "0.1"))),
                input(run, "weight"),
                input(run, "bias"),
                input(run, "running_mean"),
                input(run, "running_var"));
    }

    private static double @Nullable [] input(ConformanceCase run, String tensor) throws IOException {
        return run.has(tensor) ? run.values(tensor) : null;
    }

    private static void put(Map<String, double[]> outputs, String name, double @Nullable [] values) {
        if (values != null) {
            outputs.put(name, values);
        }
    }
}
