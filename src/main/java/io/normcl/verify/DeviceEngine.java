package io.normcl.verify;

import io.normcl.BatchNorm;
import io.normcl.BatchNorm.Mode;
import io.normcl.BatchNorm.Parameters;
import io.normcl.BatchNorm.Saved;
import io.normcl.Gradients;
import io.normcl.Replicas;
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
import org.jspecify.annotations.Nullable;

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
                    write(layer.gamma(), setup.gamma());
                    write(layer.beta(), setup.beta());
                    write(layer.runningMean(), setup.runningMean());
                    write(layer.runningVar(), setup.runningVar());
                    layer.batchesTracked(setup.batchesTracked());
                }
            } catch (RuntimeException e) {
                close();
                throw e;
            }
        }

        /** Lets the library refuse parameters of another size, as those that a caller brings. */
        private void requireSizes(Device device) {
            try (Memory memory = new Memory()) {
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
            try (Memory memory = new Memory()) {
                List<Tensor> xs = new ArrayList<>();
                List<Tensor> ys = new ArrayList<>();
                List<Tensor> dys = new ArrayList<>();
                List<Gradients> outs = new ArrayList<>();
                for (int i = 0; i < shards.size(); i++) {
                    Device device = devices.get(i);
                    Shard shard = shards.get(i);
                    xs.add(tensor(memory.written(device, shard.x()), shard));
                    ys.add(tensor(memory.unwritten(device, shard.x().length), shard));
                    if (shard.dy() != null) {
                        dys.add(tensor(memory.written(device, shard.dy()), shard));
                        int channels = setup.spec().channels();
                        outs.add(Gradients.of(
                                tensor(memory.unwritten(device, shard.x().length), shard),
                                setup.gamma() == null ? null : memory.unwritten(device, channels),
                                setup.beta() == null ? null : memory.unwritten(device, channels)));
                    }
                }
                List<Saved> saved = run(training, xs, ys, dys, outs);
                List<Result> results = new ArrayList<>();
                for (int i = 0; i < shards.size(); i++) {
                    double[] y = read(ys.get(i).buffer());
                    results.add(outs.isEmpty() ? new Result(y, null, null, null) : result(y, outs.get(i)));
                }
                return commit(training, results, saved);
            }
        }

        private List<Saved> run(
                boolean training, List<Tensor> xs, List<Tensor> ys, List<Tensor> dys, List<Gradients> outs) {
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
                        optional(layer.runningMean()),
                        optional(layer.runningVar()),
                        layer.batchesTracked(),
                        training ? saved.get(i).mean() : null,
                        training ? doubles(saved.get(i).invStd()) : null);
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
            return new Result(
                    y, optional(dx == null ? null : dx.buffer()), optional(out.dGamma()), optional(out.dBeta()));
        }

        @Override
        public void close() {
            layers.forEach(BatchNorm::close);
        }
    }

    /** The buffers of one call. */
    private static final class Memory implements AutoCloseable {
        private final List<Buffer> buffers = new ArrayList<>();

        Buffer written(Device device, double[] values) {
            Buffer buffer = device.allocate((long) Float.BYTES * values.length);
            buffers.add(buffer);
            write(buffer, values);
            return buffer;
        }

        @Nullable
        Buffer optional(Device device, double @Nullable [] values) {
            return values == null ? null : written(device, values);
        }

        /** Memory full of NaN, so that what an operation leaves out shows. */
        Buffer unwritten(Device device, int count) {
            Buffer buffer = device.allocate((long) Float.BYTES * count);
            buffers.add(buffer);
            buffer.fill(Float.NaN);
            return buffer;
        }

        @Override
        public void close() {
            buffers.forEach(Buffer::close);
        }
    }

    private static void write(@Nullable Buffer buffer, double @Nullable [] values) {
        if (buffer != null && values != null) {
            float[] floats = new float[values.length];
            for (int i = 0; i < floats.length; i++) {
                floats[i] = (float) values[i];
            }
            buffer.write(floats);
        }
    }

    private static double @Nullable [] optional(@Nullable Buffer buffer) {
        return buffer == null ? null : read(buffer);
    }

    private static double[] read(Buffer buffer) {
        float[] floats = new float[(int) (buffer.bytes() / Float.BYTES)];
        buffer.read(floats);
        return doubles(floats);
    }

    private static double[] doubles(float[] floats) {
        double[] doubles = new double[floats.length];
        Arrays.setAll(doubles, i -> floats[i]);
        return doubles;
    }
}
