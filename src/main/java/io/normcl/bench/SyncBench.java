package io.normcl.bench;

import io.normcl.BatchNorm;
import io.normcl.BatchNormSpec;
import io.normcl.Gradients;
import io.normcl.Input;
import io.normcl.Mode;
import io.normcl.Replicas;
import io.normcl.Saved;
import io.normcl.bench.BenchLayer.Tensors;
import io.normcl.bench.Listing.Column;
import io.normcl.bench.Rounds.Millis;
import io.normcl.bench.Rounds.Rotation;
import io.normcl.bench.Rounds.Work;
import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.device.DeviceException;
import io.normcl.plan.Tuning;
import io.normcl.tensor.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Consumer;

/**
 * Times a step of batch norm, forward in training and backward, over shards on several devices: each for itself, and
 * synchronized. What the second takes longer is what synchronization costs: the host's merge, the waits for it, and
 * kernels that are cut in two.
 */
public final class SyncBench {
    /** The columns of the results. */
    public static final List<Column> COLUMNS = List.of(
            new Column("devices", 7, 0),
            new Column("layout", -14, 0),
            new Column("dtype", -8, 0),
            new Column("shard", -13, 0),
            new Column("local_ms", 9, 3),
            new Column("sync_ms", 9, 3),
            new Column("share", 6, 2));

    private SyncBench() {}

    /**
     * What was measured.
     *
     * @param devices how many
     * @param shard the case that each of them has
     * @param local a step without synchronization
     * @param sync a step with it
     */
    public record Row(int devices, BenchCase shard, Millis local, Millis sync) {
        /**
         * What synchronization costs.
         *
         * @return its share of the synchronized step, the median of the rounds'
         */
        public double share() {
            return 1 - local.by(sync);
        }

        /**
         * The values of the columns.
         *
         * @return as many as there are {@link #COLUMNS}
         */
        public Object[] cells() {
            return new Object[] {
                (long) devices,
                BenchCase.lower(shard.layout()),
                BenchCase.lower(shard.type()),
                shard.shapeName(),
                local.median(),
                sync.median(),
                share()
            };
        }
    }

    private static BenchCase shard(BenchCase whole, int devices) {
        if (whole.op() != BenchCase.Op.BATCH_NORM) {
            throw new IllegalArgumentException("only batch norm can be synchronized: case=" + whole);
        }
        List<Long> shape = new ArrayList<>(whole.shape());
        shape.set(0, shape.get(0) / devices);
        return new BenchCase(
                whole.op(), whole.layout(), whole.type(), shape, whole.groups(), whole.activation(), whole.residual());
    }

    /**
     * Measures.
     *
     * @param devices one for each shard
     * @param whole the whole batch's case
     * @param settings how; passes play no part
     * @param rows takes what was measured
     * @param skipped takes a line on a batch that the devices can't hold or share out evenly; nothing is measured then
     * @throws IllegalArgumentException if the layer is no batch norm, or refuses the shard
     */
    public static void run(
            List<Device> devices,
            BenchCase whole,
            LayerBench.Settings settings,
            Consumer<Row> rows,
            Consumer<String> skipped) {
        if (whole.shape().get(0) % devices.size() != 0) {
            skipped.accept("skipped " + whole + ": its samples can't be shared out evenly over " + devices.size()
                    + " devices");
            return;
        }
        BenchCase shard = shard(whole, devices.size());
        int count = TensorSets.count(whole, devices.get(0).limits(), settings.cached(), 1);
        List<BatchNorm> norms = new ArrayList<>();
        List<TensorSets> sets = new ArrayList<>();
        List<Buffer> parameters = new ArrayList<>();
        try {
            int c = Math.toIntExact(shard.shape().get(1));
            BatchNormSpec spec = BatchNormSpec.of(c).withActivation(shard.activation());
            Tuning tuning = settings.tuning();
            for (Device device : devices) {
                norms.add(tuning == null ? BatchNorm.open(device, spec) : BatchNorm.open(device, spec, tuning));
                parameters.add(device.allocate((long) Float.BYTES * c));
                parameters.add(device.allocate((long) Float.BYTES * c));
            }
            try {
                for (Device device : devices) {
                    sets.add(TensorSets.allocate(device, shard, count));
                }
            } catch (DeviceException e) {
                skipped.accept("skipped " + whole + ": " + e.getMessage());
                return;
            }
            Steps steps = new Steps(devices, norms, sets, parameters);
            List<Work> works = List.of(Work.done(steps::local), Work.done(steps::synchronizedStep));
            List<Millis> millis = Rounds.time(List.of(new Rotation(works, count, 1)), settings.rounds(), 0);
            rows.accept(new Row(devices.size(), shard, millis.get(0), millis.get(1)));
        } finally {
            sets.forEach(TensorSets::close);
            parameters.forEach(Buffer::close);
            norms.forEach(BatchNorm::close);
        }
    }

    private record Steps(List<Device> devices, List<BatchNorm> norms, List<TensorSets> sets, List<Buffer> parameters) {
        /** Each device for itself; all are at work before the first is waited for. */
        void local(int set) {
            for (int i = 0; i < norms.size(); i++) {
                Tensors tensors = sets.get(i).get(set);
                try (Saved saved = norms.get(i).forward(Mode.TRAINING, tensors.input(), tensors.y())) {
                    norms.get(i).backward(saved, tensors.input(), tensors.dy(), gradients(i, tensors));
                }
                devices.get(i).flush();
            }
            devices.forEach(Device::finish);
        }

        void synchronizedStep(int set) {
            List<Input> xs = new ArrayList<>();
            List<Tensor> ys = new ArrayList<>();
            List<Tensor> dys = new ArrayList<>();
            List<Gradients> outs = new ArrayList<>();
            for (int i = 0; i < norms.size(); i++) {
                Tensors tensors = sets.get(i).get(set);
                xs.add(tensors.input());
                ys.add(tensors.y());
                dys.add(tensors.dy());
                outs.add(gradients(i, tensors));
            }
            Replicas replicas = Replicas.of(norms);
            List<Saved> saved = replicas.forward(xs, ys);
            replicas.backward(saved, xs, dys, outs);
            saved.forEach(Saved::close);
            devices.forEach(Device::finish);
        }

        private Gradients gradients(int i, Tensors tensors) {
            return new Gradients(tensors.dx(), tensors.dz(), parameters.get(2 * i), parameters.get(2 * i + 1), false);
        }
    }
}
