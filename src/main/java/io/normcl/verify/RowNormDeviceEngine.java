package io.normcl.verify;

import io.normcl.BatchNorm;
import io.normcl.Gradients;
import io.normcl.GroupNorm;
import io.normcl.GroupNormSpec;
import io.normcl.Input;
import io.normcl.InstanceNorm;
import io.normcl.InstanceNormSpec;
import io.normcl.LayerNorm;
import io.normcl.LayerNormSpec;
import io.normcl.Mode;
import io.normcl.RmsNorm;
import io.normcl.RmsNormSpec;
import io.normcl.RowNorm;
import io.normcl.Saved;
import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.plan.Tuning;
import io.normcl.tensor.Tensor;
import io.normcl.verify.RowNormProgram.Inputs;
import io.normcl.verify.RowNormProgram.Kind;
import io.normcl.verify.RowNormProgram.Outputs;
import io.normcl.verify.RowNormProgram.Setup;
import org.jspecify.annotations.Nullable;

/** The library's layer, RMS, group and instance norms on a device. */
final class RowNormDeviceEngine implements RowNormProgram.Engine {
    private final Device device;
    private final Tuning tuning;

    RowNormDeviceEngine(Device device, Tuning tuning) {
        this.device = device;
        this.tuning = tuning;
    }

    @Override
    public Outputs run(Setup setup, Inputs inputs) {
        try (DeviceMemory memory = new DeviceMemory();
                RowNorm layer = open(setup)) {
            requireSizes(setup, memory);
            DeviceMemory.write(layer.gamma(), setup.gamma());
            DeviceMemory.write(layer.beta(), setup.beta());
            Tensor x = tensor(setup, inputs, memory.written(device, inputs.x()));
            Tensor y = tensor(setup, inputs, memory.unwritten(device, inputs.x().length));
            InstanceNorm instance = layer instanceof InstanceNorm norm ? norm : null;
            if (instance != null) {
                DeviceMemory.write(instance.runningMean(), setup.runningMean());
                DeviceMemory.write(instance.runningVar(), setup.runningVar());
            }
            Mode mode = inputs.training() ? Mode.TRAINING : Mode.EVALUATION;
            try (Saved saved = instance == null ? layer.forward(x, y) : instance.forward(mode, Input.of(x), y)) {
                double[] dy = inputs.dy();
                Gradients out = dy == null ? null : gradients(setup, inputs, memory);
                if (dy != null && out != null) {
                    layer.backward(saved, x, tensor(setup, inputs, memory.written(device, dy)), out);
                }
                if (instance != null && inputs.training()) {
                    instance.commit(saved);
                }
                return new Outputs(
                        DeviceMemory.read(y.buffer()),
                        out == null || out.dx() == null
                                ? null
                                : DeviceMemory.read(out.dx().buffer()),
                        out == null ? null : DeviceMemory.optional(out.dGamma()),
                        out == null ? null : DeviceMemory.optional(out.dBeta()),
                        saved.ofBatch() && setup.kind() != Kind.RMS ? saved.mean() : null,
                        saved.ofBatch() ? DeviceMemory.doubles(saved.invStd()) : null,
                        instance == null ? null : DeviceMemory.optional(instance.runningMean()),
                        instance == null ? null : DeviceMemory.optional(instance.runningVar()));
            }
        }
    }

    private RowNorm open(Setup setup) {
        boolean gamma = setup.gamma() != null;
        boolean beta = setup.beta() != null;
        return switch (setup.kind()) {
            case LAYER -> LayerNorm.open(device, layer(setup), tuning);
            case RMS -> RmsNorm.open(device, rms(setup), tuning);
            case GROUP -> GroupNorm.open(device, group(setup), tuning);
            case INSTANCE ->
                InstanceNorm.open(
                        device,
                        InstanceNormSpec.of(setup.channels())
                                .withEps(setup.eps())
                                .withAffine(gamma, beta)
                                .withMomentum(setup.momentum())
                                .withRunningStatistics(setup.runningMean() != null),
                        tuning);
        };
    }

    private static LayerNormSpec layer(Setup setup) {
        return LayerNormSpec.of(setup.normalized())
                .withEps(setup.eps())
                .withAffine(setup.gamma() != null, setup.beta() != null);
    }

    private static RmsNormSpec rms(Setup setup) {
        return RmsNormSpec.of(setup.normalized()).withEps(setup.eps()).withGamma(setup.gamma() != null);
    }

    private static GroupNormSpec group(Setup setup) {
        return GroupNormSpec.of(setup.groups(), setup.channels())
                .withEps(setup.eps())
                .withAffine(setup.gamma() != null, setup.beta() != null);
    }

    /** Lets the library refuse parameters of another size, as those that a caller brings. */
    private void requireSizes(Setup setup, DeviceMemory memory) {
        Buffer gamma = memory.optional(device, setup.gamma());
        Buffer beta = memory.optional(device, setup.beta());
        RowNorm given = switch (setup.kind()) {
            case LAYER -> LayerNorm.open(device, layer(setup), gamma, beta);
            case RMS -> RmsNorm.open(device, rms(setup), gamma);
            case GROUP -> GroupNorm.open(device, group(setup), gamma, beta);
            case INSTANCE ->
                InstanceNorm.open(
                        device,
                        InstanceNormSpec.of(setup.channels())
                                .withAffine(gamma != null, beta != null)
                                .withRunningStatistics(setup.runningMean() != null),
                        new BatchNorm.Parameters(
                                gamma,
                                beta,
                                memory.optional(device, setup.runningMean()),
                                memory.optional(device, setup.runningVar())));
        };
        given.close();
    }

    private Gradients gradients(Setup setup, Inputs inputs, DeviceMemory memory) {
        return Gradients.of(
                tensor(setup, inputs, memory.unwritten(device, inputs.x().length)),
                unwritten(setup.gamma(), memory),
                unwritten(setup.beta(), memory));
    }

    private @Nullable Buffer unwritten(double @Nullable [] like, DeviceMemory memory) {
        return like == null ? null : memory.unwritten(device, like.length);
    }

    private static Tensor tensor(Setup setup, Inputs inputs, Buffer buffer) {
        return Tensor.of(buffer, setup.layout(), inputs.shape());
    }
}
