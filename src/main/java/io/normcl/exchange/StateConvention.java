package io.normcl.exchange;

import io.normcl.BatchNormSpec;
import io.normcl.Momentum;
import io.normcl.RunningVariance;
import io.normcl.exchange.Safetensors.Entry;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * How a framework names and means the state of a batch norm. Reading and writing never turn one variance
 * into the other: a state whose running variance is not the convention's is refused, until
 * {@link BatchNormState#convertedTo} or {@link BatchNormState#keptAs} says what is to happen.
 *
 * <p>A state does not hold eps and momentum: {@link #spec} has a framework's defaults, {@link #momentum} reads its
 * number. Only PyTorch stores the count of batches; from the others it is read as 0, and to them it is not written.
 */
public enum StateConvention {
    /**
     * PyTorch: {@code weight, bias, running_mean, running_var}, unbiased, and {@code num_batches_tracked} as an I64
     * scalar, which counts as 0 where old files lack it. Source: {@code torch.nn.modules.batchnorm}.
     */
    PYTORCH("weight", "bias", "running_mean", "running_var", RunningVariance.UNBIASED, 1e-5, 0.1),
    /**
     * Keras 3: {@code gamma, beta, moving_mean, moving_variance}, biased. Source: {@code
     * keras.layers.BatchNormalization}, whose call takes {@code ops.moments}. Keras on TensorFlow 1 and 2 held the
     * unbiased variance where the fused kernel ran (tensorflow issue 55545): read such a state and say {@code
     * keptAs(UNBIASED)}.
     */
    KERAS("gamma", "beta", "moving_mean", "moving_variance", RunningVariance.BIASED, 1e-3, 0.99),
    /**
     * Flax: {@code scale, bias, mean, var}, biased. Source: {@code flax.linen.BatchNorm} and {@code
     * flax.nnx.BatchNorm}; linen keeps the first two in the collection {@code params} and the others in {@code
     * batch_stats}.
     */
    FLAX("scale", "bias", "mean", "var", RunningVariance.BIASED, 1e-5, 0.99),
    /**
     * ONNX: the operator's inputs {@code scale, B, input_mean, input_var}, biased. Source: {@code
     * BatchNormalization-15}, where {@code ReduceVar} is the population variance.
     */
    ONNX("scale", "B", "input_mean", "input_var", RunningVariance.BIASED, 1e-5, 0.9),
    /**
     * DL4J with {@code useLogStd(false)}, the only one up to 1.0.0-beta3: {@code gamma, beta, mean, var}, biased, as
     * {@code backpropGradient} takes {@code input.var(false, ...)} and its cuDNN helper {@code 1/invStd² − eps}. gamma
     * and beta are missing where {@code lockGammaBeta} fixes them, at 1 and 0 unless the configuration says otherwise.
     * Old releases (so the sources of 2018) store variance + eps in {@code var} and add none in evaluation: their
     * states need eps 0. Source: {@code org.deeplearning4j.nn.params.BatchNormalizationParamInitializer} and {@code
     * org.deeplearning4j.nn.layers.normalization.BatchNormalization}.
     */
    DL4J("gamma", "beta", "mean", "var", RunningVariance.BIASED, 1e-5, 0.9),
    /**
     * DL4J with {@code useLogStd(true)}, the default after 1.0.0-beta3: as {@link #DL4J} with {@code log10stdev} in
     * place of {@code var}.
     *
     * <pre>
     * log10stdev = log10(√variance)     variance = (10^log10stdev)²
     * </pre>
     *
     * <p>Without eps: {@code preOutput} raises 10 to it, squares that and only then adds eps inside the root; a
     * variance of 1 is stored as 0. Converted in double and rounded once; in float it holds fewer bits of a variance
     * the farther that is from 1.
     */
    DL4J_LOG_STD("gamma", "beta", "mean", "log10stdev", RunningVariance.BIASED, 1e-5, 0.9);

    private static final String TRACKED = "num_batches_tracked";

    private final String gamma;
    private final String beta;
    private final String mean;
    private final String variance;
    private final RunningVariance runningVariance;
    private final double eps;
    private final double momentum;

    StateConvention(
            String gamma,
            String beta,
            String mean,
            String variance,
            RunningVariance runningVariance,
            double eps,
            double momentum) {
        this.gamma = gamma;
        this.beta = beta;
        this.mean = mean;
        this.variance = variance;
        this.runningVariance = runningVariance;
        this.eps = eps;
        this.momentum = momentum;
    }

    /**
     * Reads a state.
     *
     * @param tensors tensors by name, as {@link Safetensors#tensors} has them
     * @param prefix what stands before the names, with what separates them: {@code "layer1.bn."}, {@code "1_"}, none
     * @return the state, with what is missing missing
     * @throws IllegalArgumentException if no tensor of a batch norm has the prefix, or one is not C values of F32
     */
    public BatchNormState read(Map<String, Entry> tensors, String prefix) {
        float[] runningVar = vector(tensors, prefix + variance);
        if (this == DL4J_LOG_STD && runningVar != null) {
            for (int c = 0; c < runningVar.length; c++) {
                runningVar[c] = (float) Math.pow(10, 2.0 * runningVar[c]);
            }
        }
        float[] scale = vector(tensors, prefix + gamma);
        float[] offset = vector(tensors, prefix + beta);
        float[] runningMean = vector(tensors, prefix + mean);
        if (scale == null && offset == null && runningMean == null && runningVar == null) {
            throw new IllegalArgumentException("a batch norm's tensors have its prefix: convention=" + this
                    + ", prefix=" + prefix + ", looked for=" + gamma + " " + beta + " " + mean + " " + variance);
        }
        return new BatchNormState(
                scale, offset, runningMean, runningVar, runningVariance, this == PYTORCH ? count(tensors, prefix) : 0);
    }

    /**
     * Names a state's tensors, to be written.
     *
     * @param state the state; its values are copied
     * @param prefix what stands before the names, with what separates them
     * @return a new map of F32 vectors, in PyTorch's case with the count of batches where there are running statistics
     * @throws IllegalArgumentException if the state's running variance is not this convention's, or is below 0 where
     *     its logarithm is to be written
     */
    public Map<String, Entry> write(BatchNormState state, String prefix) {
        float[] runningVar = state.runningVar();
        if (runningVar != null && state.runningVariance() != runningVariance) {
            throw new IllegalArgumentException(
                    "a running variance is converted by a count or kept as it is, as you say:" + " convention=" + this
                            + ", wanted=" + runningVariance + ", state=" + state.runningVariance());
        }
        Map<String, Entry> tensors = new LinkedHashMap<>();
        put(tensors, prefix + gamma, state.gamma());
        put(tensors, prefix + beta, state.beta());
        put(tensors, prefix + mean, state.runningMean());
        put(tensors, prefix + variance, this == DL4J_LOG_STD && runningVar != null ? log(runningVar) : runningVar);
        if (this == PYTORCH && runningVar != null) {
            tensors.put(prefix + TRACKED, Entry.of(new long[] {state.batchesTracked()}));
        }
        return tensors;
    }

    /**
     * A batch norm with this framework's defaults of eps and momentum, and its running variance.
     *
     * @param channels C
     * @return the spec
     */
    public BatchNormSpec spec(int channels) {
        return BatchNormSpec.of(channels)
                .withEps(eps)
                .withMomentum(momentum(momentum))
                .withRunningVariance(runningVariance);
    }

    /**
     * Reads a number as this framework means it: PyTorch's weighs the batch, the others' what was there.
     *
     * @param number the framework's momentum (DL4J: decay)
     * @return the momentum
     * @throws IllegalArgumentException if it is not finite
     */
    public Momentum momentum(double number) {
        return this == PYTORCH ? Momentum.ofNew(number) : Momentum.ofKept(number);
    }

    /**
     * The variance that this framework's running variance is.
     *
     * @return biased or unbiased
     */
    public RunningVariance runningVariance() {
        return runningVariance;
    }

    private float[] log(float[] variances) {
        float[] logs = new float[variances.length];
        for (int c = 0; c < logs.length; c++) {
            if (variances[c] < 0) {
                throw new IllegalArgumentException("the logarithm needs a variance that is not below 0: convention="
                        + this + ", channel=" + c + ", runningVar=" + variances[c]);
            }
            logs[c] = (float) (0.5 * Math.log10(variances[c]));
        }
        return logs;
    }

    private static float @Nullable [] vector(Map<String, Entry> tensors, String name) {
        Entry entry = tensors.get(name);
        if (entry == null) {
            return null;
        }
        if (!entry.dtype().equals("F32") || entry.shape().length != 1) {
            throw new IllegalArgumentException(
                    "a batch norm's tensor is F32 with one value per channel: tensor=" + name + ", found=" + entry);
        }
        return entry.floats();
    }

    private static long count(Map<String, Entry> tensors, String prefix) {
        Entry entry = tensors.get(prefix + TRACKED);
        if (entry == null) {
            return 0;
        }
        if (!entry.dtype().equals("I64") || Arrays.stream(entry.shape()).anyMatch(size -> size != 1)) {
            throw new IllegalArgumentException(
                    "a count of batches is one I64: tensor=" + prefix + TRACKED + ", found=" + entry);
        }
        return entry.longs()[0];
    }

    private static void put(Map<String, Entry> tensors, String name, float @Nullable [] values) {
        if (values != null) {
            tensors.put(name, Entry.of(values, values.length));
        }
    }
}
