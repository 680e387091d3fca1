package io.normcl.verify;

import io.normcl.BatchNormSpec;
import io.normcl.Momentum;
import io.normcl.RunningVariance;
import io.normcl.tensor.Activation;
import io.normcl.tensor.Layout;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * The cases of batch norm, plain and fused with what follows, its sequences of steps and its synchronization over
 * shards, as calls of one layer.
 */
public final class BatchNormProgram implements Program {
    private final Engine engine;

    /**
     * A program that runs its layers on an engine.
     *
     * @param engine opens the layers
     */
    public BatchNormProgram(Engine engine) {
        this.engine = engine;
    }

    /** What offers batch norm layers: the library on one or more devices, or the reference. */
    @FunctionalInterface
    public interface Engine {
        /**
         * Opens a layer.
         *
         * @param setup what the layer is to be
         * @return the layer, closed by the caller
         * @throws IllegalArgumentException if there can't be such a layer
         */
        Layer open(Setup setup);
    }

    /** A layer with its parameters, running statistics and counter, on as many replicas as it was opened for. */
    public interface Layer extends AutoCloseable {
        /**
         * Forward over all shards, backward where a shard brings a dy, and in training the commit.
         *
         * @param training training, else evaluation
         * @param shards one per replica
         * @return what was computed, and the state afterwards
         * @throws IllegalArgumentException if the call is refused
         */
        Step step(boolean training, List<Shard> shards);

        @Override
        void close();
    }

    /**
     * A layer as a case describes it.
     *
     * @param replicas how many shards each step has
     * @param layout where the channels stand
     * @param spec what the layer is
     * @param gamma the scale, null for none
     * @param beta the offset, null for none
     * @param runningMean the running mean to begin with, null for a layer without running statistics
     * @param runningVar the running variance to begin with, null for a layer without running statistics
     * @param batchesTracked the counter to begin with
     */
    @SuppressWarnings("ArrayRecordComponent") // a name for what a case gives
    public record Setup(
            int replicas,
            Layout layout,
            BatchNormSpec spec,
            double @Nullable [] gamma,
            double @Nullable [] beta,
            double @Nullable [] runningMean,
            double @Nullable [] runningVar,
            long batchesTracked) {}

    /**
     * The part of a batch that one replica gets.
     *
     * @param shape its dimensions as stored
     * @param x its values
     * @param z the residual added before the activation, null where there is none
     * @param dy the gradient of its output, null where only forward is asked for
     */
    @SuppressWarnings("ArrayRecordComponent") // a name for what a case gives
    public record Shard(long[] shape, double[] x, double @Nullable [] z, double @Nullable [] dy) {}

    /**
     * What a step gave.
     *
     * @param results one per shard
     * @param runningMean the running mean afterwards, the same on every replica, null where there is none
     * @param runningVar the running variance afterwards, the same on every replica, null where there is none
     * @param batchesTracked the counter afterwards
     * @param mean the mean normalized with, null where the engine doesn't show it
     * @param invStd the factor normalized with, null where the engine doesn't show it
     */
    @SuppressWarnings("ArrayRecordComponent") // a name for what a case wants
    public record Step(
            List<Result> results,
            double @Nullable [] runningMean,
            double @Nullable [] runningVar,
            long batchesTracked,
            double @Nullable [] mean,
            double @Nullable [] invStd) {}

    /**
     * What a step gave for one shard.
     *
     * @param y its output
     * @param dx the gradient of x, null without a dy
     * @param dz the gradient of z, null without a dy or a z
     * @param dGamma the shard's own gradient of gamma, null without a dy or a gamma
     * @param dBeta the shard's own gradient of beta, null without a dy or a beta
     */
    @SuppressWarnings("ArrayRecordComponent") // a name for what a case wants
    public record Result(
            double[] y,
            double @Nullable [] dx,
            double @Nullable [] dz,
            double @Nullable [] dGamma,
            double @Nullable [] dBeta) {}

    /**
     * The operations that this runs, for a judge.
     *
     * @return this program by operation
     */
    public Map<String, Program> byOperation() {
        return Map.of(
                "batch_norm", this,
                "batch_norm_relu", this,
                "batch_norm_add_relu", this,
                "batch_norm_sequence", this,
                "sync_batch_norm", this);
    }

    @Override
    public Map<String, double[]> run(ConformanceCase run) throws IOException {
        return switch (run.operation()) {
            case "batch_norm", "batch_norm_relu", "batch_norm_add_relu" -> runOnce(run);
            case "batch_norm_sequence" -> runSequence(run);
            case "sync_batch_norm" -> runShards(run);
            default -> throw new IllegalStateException("not batch norm: op=" + run.operation());
        };
    }

    private Map<String, double[]> runOnce(ConformanceCase run) throws IOException {
        Map<String, double[]> outputs = new HashMap<>();
        try (Layer layer = engine.open(setup(run, 1, "x"))) {
            Step step = layer.step(run.flag("training"), List.of(shard(run, "x", "z", "dy")));
            Result result = step.results().get(0);
            put(outputs, "y", result.y());
            put(outputs, "dx", result.dx());
            put(outputs, "dz", result.dz());
            put(outputs, "dweight", result.dGamma());
            put(outputs, "dbias", result.dBeta());
            putState(outputs, step);
        }
        return outputs;
    }

    private Map<String, double[]> runShards(ConformanceCase run) throws IOException {
        int replicas = Integer.parseInt(run.property("shards"));
        List<Shard> shards = new ArrayList<>();
        for (int i = 0; i < replicas; i++) {
            shards.add(shard(run, "x_" + i, "z_" + i, "dy_" + i));
        }
        Map<String, double[]> outputs = new HashMap<>();
        try (Layer layer = engine.open(setup(run, replicas, "x_0"))) {
            Step step = layer.step(run.flag("training"), shards);
            for (int i = 0; i < replicas; i++) {
                Result result = step.results().get(i);
                put(outputs, "y_" + i, result.y());
                put(outputs, "dx_" + i, result.dx());
                put(outputs, "dweight_" + i, result.dGamma());
                put(outputs, "dbias_" + i, result.dBeta());
                add(outputs, "dweight_total", result.dGamma());
                add(outputs, "dbias_total", result.dBeta());
            }
            putState(outputs, step);
        }
        return outputs;
    }

    private Map<String, double[]> runSequence(ConformanceCase run) throws IOException {
        List<String> modes = run.list("step_modes");
        Map<String, double[]> outputs = new HashMap<>();
        try (Layer layer = engine.open(setup(run, 1, "x_0"))) {
            for (int i = 0; i < modes.size(); i++) {
                Step step =
                        layer.step(modes.get(i).equals("train"), List.of(shard(run, "x_" + i, "z_" + i, "dy_" + i)));
                put(outputs, "y_" + i, step.results().get(0).y());
                put(outputs, "running_mean_" + i, step.runningMean());
                put(outputs, "running_var_" + i, step.runningVar());
            }
            Step last = layer.step(false, List.of(shard(run, "x_eval", "z_eval", "dy_eval")));
            put(outputs, "y_eval", last.results().get(0).y());
            put(outputs, "final_num_batches_tracked", new double[] {last.batchesTracked()});
        }
        return outputs;
    }

    private static Setup setup(ConformanceCase run, int replicas, String x) throws IOException {
        int channelAxis = Integer.parseInt(run.property("channel_axis"));
        String momentum = run.property("momentum");
        boolean biased = run.property("running_var_correction", "unbiased").equals("biased");
        BatchNormSpec spec = BatchNormSpec.of(Math.toIntExact(run.shape(x)[channelAxis]))
                .withEps(Double.parseDouble(run.property("eps")))
                .withMomentum(
                        momentum.equals("none") ? Momentum.cumulative() : Momentum.ofNew(Double.parseDouble(momentum)))
                .withRunningVariance(biased ? RunningVariance.BIASED : RunningVariance.UNBIASED)
                .withAffine(run.has("weight"), run.has("bias"))
                .withRunningStatistics(run.has("running_mean"))
                .withActivation(run.flag("relu") ? Activation.RELU : Activation.NONE);
        return new Setup(
                replicas,
                channelAxis == 1 ? Layout.CHANNELS_FIRST : Layout.CHANNELS_LAST,
                spec,
                input(run, "weight"),
                input(run, "bias"),
                input(run, "running_mean"),
                input(run, "running_var"),
                Long.parseLong(run.property("num_batches_tracked", "0")));
    }

    private static Shard shard(ConformanceCase run, String x, String z, String dy) throws IOException {
        return new Shard(run.shape(x), run.values(x), input(run, z), input(run, dy));
    }

    private static double @Nullable [] input(ConformanceCase run, String tensor) throws IOException {
        return run.has(tensor) ? run.values(tensor) : null;
    }

    private static void putState(Map<String, double[]> outputs, Step step) {
        put(outputs, "new_running_mean", step.runningMean());
        put(outputs, "new_running_var", step.runningVar());
        put(outputs, "new_num_batches_tracked", new double[] {step.batchesTracked()});
        put(outputs, "save_mean", step.mean());
        put(outputs, "save_invstd", step.invStd());
    }

    private static void put(Map<String, double[]> outputs, String name, double @Nullable [] values) {
        if (values != null) {
            outputs.put(name, values);
        }
    }

    private static void add(Map<String, double[]> outputs, String name, double @Nullable [] values) {
        if (values != null) {
            double[] sum = outputs.getOrDefault(name, new double[values.length]);
            outputs.put(name, sum);
            Arrays.setAll(sum, c -> sum[c] + values[c]);
        }
    }
}
