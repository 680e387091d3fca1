package io.normcl.bench;

import io.normcl.BatchNorm;
import io.normcl.BatchNormSpec;
import io.normcl.Gradients;
import io.normcl.GroupNorm;
import io.normcl.GroupNormSpec;
import io.normcl.Input;
import io.normcl.InstanceNorm;
import io.normcl.InstanceNormSpec;
import io.normcl.LayerNorm;
import io.normcl.LayerNormSpec;
import io.normcl.Mode;
import io.normcl.NormLayer;
import io.normcl.RmsNorm;
import io.normcl.RmsNormSpec;
import io.normcl.RowNorm;
import io.normcl.Saved;
import io.normcl.bench.BenchCase.Pass;
import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.plan.Plan;
import io.normcl.plan.Tuning;
import io.normcl.tensor.Activation;
import io.normcl.tensor.Tensor;
import java.util.stream.LongStream;
import org.jspecify.annotations.Nullable;

/** The layer of a case on a device, and its passes. */
public final class BenchLayer implements AutoCloseable {
    /**
     * The tensors of a pass.
     *
     * @param x the input; read
     * @param y overwritten by a forward
     * @param dy the gradient of y; read by a backward
     * @param dx overwritten by a backward
     * @param z what is added before the activation, read; null where the case has none
     * @param dz overwritten by a backward; null where the case has no residual
     */
    public record Tensors(
            Tensor x,
            Tensor y,
            Tensor dy,
            Tensor dx,
            @Nullable Tensor z,
            @Nullable Tensor dz) {
        Input input() {
            return z == null ? Input.of(x) : Input.of(x).withResidual(z);
        }
    }

    private static final double EPS = 1e-5; // every layer's, so that others' results can be compared

    private final NormLayer layer;
    private final Buffer dGamma;
    private final @Nullable Buffer dBeta;
    private @Nullable Saved saved;

    private BenchLayer(NormLayer layer) {
        this.layer = layer;
        Buffer gamma = layer.gamma();
        if (gamma == null) {
            throw new IllegalArgumentException("a layer to time needs a gamma: layer=" + layer);
        }
        this.dGamma = layer.device().allocate(gamma.bytes());
        this.dBeta = layer.beta() == null ? null : layer.device().allocate(gamma.bytes());
    }

    /**
     * Opens the layer of a case.
     *
     * @param device where it runs; retained
     * @param timed the case
     * @param tuning what overrides its plans; null for what {@code normcl tune} has kept
     * @return the layer; the caller closes it
     * @throws IllegalArgumentException if the case is none that the layer can be of
     * @throws io.normcl.device.DeviceException if the device has not enough memory
     */
    public static BenchLayer open(Device device, BenchCase timed, @Nullable Tuning tuning) {
        NormLayer layer = layer(device, timed, tuning);
        try {
            return new BenchLayer(layer);
        } catch (RuntimeException e) {
            layer.close();
            throw e;
        }
    }

    private static NormLayer layer(Device device, BenchCase timed, @Nullable Tuning tuning) {
        int c = Math.toIntExact(timed.shape().get(1));
        long[] row = LongStream.of(timed.stored()).skip(1).toArray();
        Activation activation = timed.activation();
        return switch (timed.op()) {
            case BATCH_NORM -> {
                BatchNormSpec spec = BatchNormSpec.of(c).withActivation(activation);
                yield tuning == null ? BatchNorm.open(device, spec) : BatchNorm.open(device, spec, tuning);
            }
            case GROUP_NORM, GROUP_NORM_PER_LOCATION -> {
                GroupNormSpec spec = GroupNormSpec.of(timed.groups(), c)
                        .withPerLocation(timed.op() == BenchCase.Op.GROUP_NORM_PER_LOCATION)
                        .withActivation(activation);
                yield tuning == null ? GroupNorm.open(device, spec) : GroupNorm.open(device, spec, tuning);
            }
            case INSTANCE_NORM -> {
                InstanceNormSpec spec = InstanceNormSpec.of(c)
                        .withAffine(true, true)
                        .withRunningStatistics(true)
                        .withActivation(activation);
                yield tuning == null ? InstanceNorm.open(device, spec) : InstanceNorm.open(device, spec, tuning);
            }
            case LAYER_NORM -> {
                LayerNormSpec spec = LayerNormSpec.of(row).withActivation(activation);
                yield tuning == null ? LayerNorm.open(device, spec) : LayerNorm.open(device, spec, tuning);
            }
            case RMS_NORM -> {
                RmsNormSpec spec = RmsNormSpec.of(row).withEps(EPS).withActivation(activation);
                yield tuning == null ? RmsNorm.open(device, spec) : RmsNorm.open(device, spec, tuning);
            }
        };
    }

    /**
     * The layer itself.
     *
     * @return the layer, for its parameters
     */
    public NormLayer layer() {
        return layer;
    }

    /**
     * Where backwards write the gradient of gamma.
     *
     * @return as many floats as gamma has
     */
    public Buffer dGamma() {
        return dGamma;
    }

    /**
     * Where backwards write the gradient of beta.
     *
     * @return as many floats as beta has, or null where there is none
     */
    public @Nullable Buffer dBeta() {
        return dBeta;
    }

    /**
     * Runs a training forward whose saved statistics all later backwards take, over whichever tensors.
     *
     * @param tensors of the forward
     */
    public void prepare(Tensors tensors) {
        if (saved != null) {
            saved.close();
        }
        saved = forward(Mode.TRAINING, tensors);
    }

    /**
     * Enqueues a pass. A backward needs {@link #prepare} before it.
     *
     * @param pass which
     * @param tensors on what
     */
    public void enqueue(Pass pass, Tensors tensors) {
        switch (pass) {
            case FORWARD_TRAINING -> forward(Mode.TRAINING, tensors).close();
            case FORWARD_EVALUATION -> forward(Mode.EVALUATION, tensors).close();
            case BACKWARD -> {
                if (layer instanceof BatchNorm norm) {
                    norm.backward(prepared(), tensors.input(), tensors.dy(), gradients(tensors));
                } else if (layer instanceof RowNorm norm) {
                    norm.backward(prepared(), tensors.input(), tensors.dy(), gradients(tensors));
                }
            }
        }
    }

    private Saved forward(Mode mode, Tensors tensors) {
        if (layer instanceof BatchNorm norm) {
            return norm.forward(mode, tensors.input(), tensors.y());
        }
        return layer instanceof InstanceNorm norm
                ? norm.forward(mode, tensors.input(), tensors.y())
                : ((RowNorm) layer).forward(tensors.input(), tensors.y());
    }

    /**
     * What a pass launches. That of a backward needs {@link #prepare} before it.
     *
     * @param pass which
     * @param tensors on what
     * @return the plan, as the layer has it
     */
    public Plan plan(Pass pass, Tensors tensors) {
        return switch (pass) {
            case FORWARD_TRAINING -> layer.forwardPlan(Mode.TRAINING, tensors.input());
            case FORWARD_EVALUATION -> layer.forwardPlan(Mode.EVALUATION, tensors.input());
            case BACKWARD -> layer.backwardPlan(prepared(), tensors.input(), gradients(tensors));
        };
    }

    private Gradients gradients(Tensors tensors) {
        return new Gradients(tensors.dx(), tensors.dz(), dGamma, dBeta, false);
    }

    private Saved prepared() {
        Saved held = saved;
        if (held == null) {
            throw new IllegalStateException("a backward needs a forward before it: layer=" + layer);
        }
        return held;
    }

    /** Releases all that was made; a second call does nothing. */
    @Override
    public void close() {
        layer.close();
        dGamma.close();
        if (dBeta != null) {
            dBeta.close();
        }
    }
}
