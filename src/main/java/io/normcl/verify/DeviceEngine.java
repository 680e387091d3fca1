package io.normcl.verify;

import io.normcl.BatchNorm;
import io.normcl.BatchNorm.Parameters;
import io.normcl.Gradients;
import io.normcl.Input;
import io.normcl.Mode;
import io.normcl.Replicas;
import io.normcl.Saved;
import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.plan.Tuning;
import io.normcl.tensor.Tensor;
import io.normcl.verify.BatchNormProgram.Result;
import io.normcl.verify.BatchNormProgram.Setup;
import io.normcl.verify.BatchNormProgram.Shard;
import io.normcl.verify.BatchNormProgram.Step;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** Layers of the library, each replica on a device of its own. */
final class DeviceEngine implements BatchNormProgram.Engine {
    private final List<Device> devices;
    private final Tuning tuning;
    private final boolean synchronize;

    /**
     * @param devices at least as many as a case has shards
     * @param tuning the kernels to use
     * @param synchronize whether a layer alone trains as a synchronized one too
     */
    DeviceEngine(List<Device> devices, Tuning tuning, boolean synchronize) {
        this.devices = devices;
        this.tuning = tuning;
        this.synchronize = synchronize;
    }

    @Override
    public BatchNormProgram.Layer open(Setup setup) {
        return new Layer(setup);
    }

    private final class Layer implements BatchNormProgram.Layer {
        private final Setup setup;
        private final List<BatchNorm> layers = new ArrayList<>();

        Layer(Setup setup) {
            this.setup = setup;
            try {
                for (Device device : devices.subList(0, setup.replicas())) {
                    BatchNorm layer = BatchNorm.open(device, setup.spec(), tuning);
                    layers.add(layer);
                    requireSizes(device);
                    DeviceMemory.write(layer.gamma(), setup.gamma());
                    DeviceMemory.write(layer.beta(), setup.beta());
                    DeviceMemory.write(layer.runningMean(), setup.runningMean());
                    DeviceMemory.write(layer.runningVar(), setup.runningVar());
                    layer.batchesTracked(setup.batchesTracked());
                }
            } catch (RuntimeException e) {
                close();
                throw e;
            }
        }

        /** Lets the library refuse parameters of another size, as those that a caller brings. */
        private void requireSizes(Device device) {
            try (DeviceMemory memory = new DeviceMemory()) {
                Parameters given = new Parameters(
                        memory.optional(device, setup.gamma()),
                        memory.optional(device, setup.beta()),
                        memory.optional(device, setup.runningMean()),
                        memory.optional(device, setup.runningVar()));
                BatchNorm.open(device, setup.spec(), given).close();
            }
        }

        @Override
        public Step step(boolean training, List<Shard> shards) {
            try (DeviceMemory memory = new DeviceMemory()) {
                List<Input> xs = new ArrayList<>();
                List<Tensor> ys = new ArrayList<>();
                List<Tensor> dys = new ArrayList<>();
                List<Gradients> outs = new ArrayList<>();
                for (int i = 0; i < shards.size(); i++) {
                    Device device = devices.get(i);
                    Shard shard = shards.get(i);
                    Input in = Input.of(tensor(memory.written(device, shard.x()), shard));
                    xs.add(shard.z() == null ? in : in.withResidual(tensor(memory.written(device, shard.z()), shard)));
                    ys.add(tensor(memory.unwritten(device, shard.x().length), shard));
                    if (shard.dy() != null) {
                        dys.add(tensor(memory.written(device, shard.dy()), shard));
                        int channels = setup.spec().channels();
                        Gradients out = Gradients.of(
                                tensor(memory.unwritten(device, shard.x().length), shard),
                                setup.gamma() == null ? null : memory.unwritten(device, channels),
                                setup.beta() == null ? null : memory.unwritten(device, channels));
                        outs.add(
                                shard.z() == null
                                        ? out
                                        : out.withDz(tensor(memory.unwritten(device, shard.x().length), shard)));
                    }
                }
                List<Saved> saved = run(training, xs, ys, dys, outs);
                List<Result> results = new ArrayList<>();
                for (int i = 0; i < shards.size(); i++) {
                    double[] y = DeviceMemory.read(ys.get(i).buffer());
                    results.add(outs.isEmpty() ? new Result(y, null, null, null, null) : result(y, outs.get(i)));
                }
                return commit(training, results, saved);
            }
        }

        private List<Saved> run(
                boolean training, List<Input> xs, List<Tensor> ys, List<Tensor> dys, List<Gradients> outs) {
            if (training && (synchronize || layers.size() > 1)) {
                Replicas replicas = Replicas.of(layers);
                List<Saved> saved = replicas.forward(xs, ys);
                if (!dys.isEmpty()) {
                    replicas.backward(saved, xs, dys, outs);
                }
                return saved;
            }
            BatchNorm layer = layers.get(0);
            Saved saved = layer.forward(training ? Mode.TRAINING : Mode.EVALUATION, xs.get(0), ys.get(0));
            if (!dys.isEmpty()) {
                layer.backward(saved, xs.get(0), dys.get(0), outs.get(0));
            }
            return List.of(saved);
        }

        /** Moves the running statistics and sees that the replicas agree to the bit. */
        private Step commit(boolean training, List<Result> results, List<Saved> saved) {
            List<Step> steps = new ArrayList<>();
            for (int i = 0; i < saved.size(); i++) {
                BatchNorm layer = layers.get(i);
                layer.commit(saved.get(i));
                Step step = new Step(
                        results,
                        DeviceMemory.optional(layer.runningMean()),
                        DeviceMemory.optional(layer.runningVar()),
                        layer.batchesTracked(),
                        training ? saved.get(i).mean() : null,
                        training ? DeviceMemory.doubles(saved.get(i).invStd()) : null);
                saved.get(i).close();
                steps.add(step);
                Step first = steps.get(0);
                if (!Arrays.equals(first.runningMean(), step.runningMean())
                        || !Arrays.equals(first.runningVar(), step.runningVar())
                        || !Arrays.equals(first.mean(), step.mean())
                        || !Arrays.equals(first.invStd(), step.invStd())
                        || first.batchesTracked() != step.batchesTracked()) {
                    throw new IllegalStateException("replica " + i + " has other statistics than replica 0");
                }
            }
            return steps.get(0);
        }

        private Tensor tensor(Buffer buffer, Shard shard) {
            return Tensor.of(buffer, setup.layout(), shard.shape());
        }

        private static Result result(double[] y, Gradients out) {
            Tensor dx = out.dx();
            Tensor dz = out.dz();
            return new Result(
                    y,
                    DeviceMemory.optional(dx == null ? null : dx.buffer()),
                    DeviceMemory.optional(dz == null ? null : dz.buffer()),
                    DeviceMemory.optional(out.dGamma()),
                    DeviceMemory.optional(out.dBeta()));
        }

        @Override
        public void close() {
            layers.forEach(BatchNorm::close);
        }
    }
}
