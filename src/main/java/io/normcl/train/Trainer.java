package io.normcl.train;

import io.normcl.Gradients;
import io.normcl.Input;
import io.normcl.NamedParameter.Kind;
import io.normcl.Replicas;
import io.normcl.Saved;
import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.tensor.Tensor;
import io.normcl.train.FashionMnist.Pictures;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;

/**
 * Trains one network on several devices at once: each has a replica and a share of every batch. The gradients are
 * summed over the devices, in their order, in double, and every replica takes the same step, so that all keep the
 * same bits.
 *
 * <p>Random numbers come from {@link SplittableRandom}: the seed itself draws the initial parameters, one after the
 * other in the order of the state's names; epoch e shuffles the samples (Fisher and Yates) with
 * {@code 1_000_003·seed + 1 + e}.
 */
public final class Trainer implements AutoCloseable {
    private static final int INFERRED = 50; // more at a time is slower: the matrix product allocates

    private final Settings settings;
    final List<Network> networks = new ArrayList<>();
    private final List<Memory> memories = new ArrayList<>();
    private final List<Replicas> replicas = new ArrayList<>(); // of each norm, where synchronized
    private final double[] sum;
    private final ByteBuffer reduced;
    private long step;
    private int[] order = new int[0];
    private long orderEpoch = -1;

    /**
     * What the network makes of pictures.
     *
     * @param loss mean cross-entropy
     * @param accuracy share of hits
     */
    public record Score(double loss, double accuracy) {}

    /**
     * A network with its initial parameters on each device.
     *
     * @param devices one a replica, as many as the settings say; they stay the caller's
     * @param settings what the run depends on
     * @throws io.normcl.device.DeviceException if a device has not enough memory
     */
    public Trainer(List<Device> devices, Settings settings) {
        if (devices.size() != settings.devices()) {
            throw new IllegalArgumentException("there must be as many devices as the settings say: devices="
                    + devices.size() + ", settings=" + settings.devices());
        }
        this.settings = settings;
        try {
            for (Device device : devices) {
                Memory memory = new Memory(device);
                memories.add(memory);
                networks.add(new Network(memory, settings.batchPerDevice(), networks.isEmpty() ? INFERRED : 0));
            }
            Network first = networks.get(0);
            for (int i = 0; i < first.norms.size() && settings.norm() == Norm.SYNC; i++) {
                int at = i;
                replicas.add(Replicas.of(
                        networks.stream().map(n -> n.norms.get(at).norm).toList()));
            }
            sum = new double[first.size];
            reduced = ByteBuffer.allocateDirect(Float.BYTES * first.size).order(ByteOrder.nativeOrder());
            initialize();
        } catch (RuntimeException e) {
            close();
            throw e;
        }
    }

    /** As PyTorch begins: uniform within 1/sqrt(inputs of an output), biases too (He et al. 2015 with a = sqrt(5)). */
    private void initialize() {
        SplittableRandom random = new SplittableRandom(settings.seed());
        double bound = 0;
        for (int p = 0; p < networks.get(0).parameters.size(); p++) {
            Parameter parameter = networks.get(0).parameters.get(p);
            Kind kind = parameter.named().kind();
            if (kind == Kind.GAMMA || kind == Kind.BETA) {
                continue; // they are 1 and 0
            }
            if (kind == Kind.WEIGHT) {
                bound = 1 / Math.sqrt((double) parameter.count() / parameter.shape()[0]);
            }
            float[] values = new float[parameter.count()];
            for (int i = 0; i < values.length; i++) {
                values[i] = (float) (bound * (2 * random.nextDouble() - 1));
            }
            for (Network network : networks) {
                network.parameters.get(p).value().write(values);
            }
        }
    }

    /**
     * What the run depends on.
     *
     * @return the settings
     */
    public Settings settings() {
        return settings;
    }

    /**
     * Steps done.
     *
     * @return their number
     */
    public long step() {
        return step;
    }

    /**
     * The samples of the step to come.
     *
     * @return indices into the training pictures
     */
    public int[] batch() {
        long epoch = step / settings.stepsPerEpoch();
        if (epoch != orderEpoch) {
            SplittableRandom random = new SplittableRandom(1_000_003 * settings.seed() + 1 + epoch);
            order = new int[settings.samples()];
            for (int i = 0; i < order.length; i++) {
                int j = random.nextInt(i + 1);
                order[i] = order[j];
                order[j] = i;
            }
            orderEpoch = epoch;
        }
        int first = (int) (step % settings.stepsPerEpoch()) * settings.batch();
        return Arrays.copyOfRange(order, first, first + settings.batch());
    }

    /**
     * Learns from a batch; waits for the devices once, before the step is taken.
     *
     * @param pictures what the samples are of
     * @param samples indices, shared out in their order; fewer than a batch leave the last devices with less
     * @return the batch's loss and hits before the step
     */
    public Score learn(Pictures pictures, int[] samples) {
        Score score = differentiate(pictures, samples);
        for (Network network : networks) {
            network.descend(reduced, settings);
        }
        step++;
        return score;
    }

    /**
     * All of {@link #learn} but the step itself: forward, backward, and the running statistics move.
     *
     * @param pictures what the samples are of
     * @param samples indices, shared out in their order
     * @return the batch's loss and hits
     */
    public Score differentiate(Pictures pictures, int[] samples) {
        int most = settings.batchPerDevice();
        if (samples.length < 1 || samples.length > settings.batch()) {
            throw new IllegalArgumentException(
                    "a batch must have from 1 to " + settings.batch() + " samples: samples=" + samples.length);
        }
        for (int k = 0; k < networks.size(); k++) {
            int first = Math.min(k * most, samples.length);
            networks.get(k).load(pictures, samples, first, Math.min(first + most, samples.length));
        }
        int layers = networks.get(0).layers.size();
        for (int layer = 0, norm = 0; layer < layers; layer++) {
            if (!replicas.isEmpty() && networks.get(0).layers.get(layer) instanceof Normalization) {
                synchronizedForward(layer, norm++);
            } else {
                for (Network network : networks) {
                    network.forward(layer);
                }
            }
        }
        for (Network network : networks) {
            network.loss(1f / samples.length);
        }
        for (int layer = layers - 1, norm = replicas.size(); layer >= 0; layer--) {
            if (!replicas.isEmpty() && networks.get(0).layers.get(layer) instanceof Normalization) {
                synchronizedBackward(layer, --norm);
            } else {
                for (Network network : networks) {
                    network.backward(layer);
                }
            }
        }
        for (Network network : networks) {
            if (network.n() > 0 || !replicas.isEmpty()) {
                network.norms.forEach(Normalization::commit);
            }
            network.readGradients();
            network.device.flush();
        }
        Score score = score(networks);
        reduce();
        return score;
    }

    private void synchronizedForward(int layer, int norm) {
        List<Input> xs = new ArrayList<>();
        List<Tensor> ys = new ArrayList<>();
        for (Network network : networks) {
            xs.add(Input.of(network.norms.get(norm).tensor(network.value(layer), network.n())));
            ys.add(network.norms.get(norm).tensor(network.value(layer + 1), network.n()));
        }
        List<Saved> saved = replicas.get(norm).forward(xs, ys);
        for (int k = 0; k < networks.size(); k++) {
            networks.get(k).norms.get(norm).saved(saved.get(k));
        }
    }

    private void synchronizedBackward(int layer, int norm) {
        List<Saved> saved = new ArrayList<>();
        List<Input> xs = new ArrayList<>();
        List<Tensor> dys = new ArrayList<>();
        List<Gradients> out = new ArrayList<>();
        for (Network network : networks) {
            Normalization replica = network.norms.get(norm);
            saved.add(replica.saved());
            xs.add(Input.of(replica.tensor(network.value(layer), network.n())));
            dys.add(replica.tensor(network.gradient(layer + 1), network.n()));
            out.add(replica.gradients(network.gradient(layer), network.n()));
        }
        replicas.get(norm).backward(saved, xs, dys, out);
    }

    /** Waits for the networks and adds up their samples' losses and hits. */
    private static Score score(List<Network> networks) {
        double loss = 0;
        double hits = 0;
        int samples = 0;
        for (Network network : networks) {
            network.device.finish();
            for (int i = 0; i < network.n(); i++) {
                loss += network.scoreStaging.getFloat(8 * i);
                hits += network.scoreStaging.getFloat(8 * i + 4);
            }
            samples += network.n();
        }
        return new Score(loss / samples, hits / samples);
    }

    /** Each device's gradients are already divided by the whole batch's size: their sum is the mean over the batch. */
    private void reduce() {
        Arrays.fill(sum, 0);
        for (Network network : networks) {
            if (network.n() > 0) {
                for (int i = 0; i < sum.length; i++) {
                    sum[i] += network.gradientStaging.getFloat(Float.BYTES * i);
                }
            }
        }
        for (int i = 0; i < sum.length; i++) {
            reduced.putFloat(Float.BYTES * i, (float) sum[i]);
        }
    }

    /**
     * Judges pictures in evaluation mode, with the first replica and its running statistics.
     *
     * @param pictures what to judge
     * @param count how many of them, the first ones
     * @return the mean loss and the share of hits
     */
    public Score evaluate(Pictures pictures, int count) {
        Network network = networks.get(0);
        int[] samples = new int[count];
        Arrays.setAll(samples, i -> i);
        double loss = 0;
        double accuracy = 0;
        for (int first = 0; first < count; first += INFERRED) {
            int end = Math.min(first + INFERRED, count);
            network.load(pictures, samples, first, end);
            network.infer();
            Score score = score(List.of(network));
            loss += score.loss() * (end - first) / count;
            accuracy += score.accuracy() * (end - first) / count;
        }
        return new Score(loss, accuracy);
    }

    /**
     * The last batch's logits.
     *
     * @return ten a sample, in the batch's order
     */
    public float[] logits() {
        float[] logits = new float[0];
        for (Network network : networks) {
            float[] part = network.logits();
            logits = Arrays.copyOf(logits, logits.length + part.length);
            System.arraycopy(part, 0, logits, logits.length - part.length, part.length);
        }
        return logits;
    }

    /**
     * The last batch's gradients over all devices.
     *
     * @return the parameters' gradients by their names
     */
    public Map<String, float[]> gradients() {
        Map<String, float[]> gradients = new LinkedHashMap<>();
        int offset = 0;
        for (Parameter parameter : networks.get(0).parameters) {
            float[] values = new float[parameter.count()];
            reduced.asFloatBuffer().get(offset, values);
            gradients.put(parameter.name(), values);
            offset += values.length;
        }
        return gradients;
    }

    /**
     * Reads all that was learned.
     *
     * @return a copy
     */
    public State state() {
        Map<String, float[]> tensors = new LinkedHashMap<>();
        buffers().forEach((name, copies) -> tensors.put(name, read(copies.get(0))));
        Network first = networks.get(0);
        float[] velocity = read(first.velocity);
        int offset = 0;
        for (Parameter parameter : first.parameters) {
            int end = offset + parameter.count();
            tensors.put(MOMENTUM + parameter.name(), Arrays.copyOfRange(velocity, offset, end));
            offset = end;
        }
        return new State(step, tensors);
    }

    private static final String MOMENTUM = "momentum.";

    /**
     * Goes on from a state of the same network: of this run or, for what is absent, with the first replica's running
     * statistics for all.
     *
     * @param state as {@link #state} gave it
     * @throws IllegalArgumentException if a tensor is missing or has another size
     */
    public void state(State state) {
        Map<String, float[]> tensors = state.tensors();
        buffers().forEach((name, copies) -> {
            String given = tensors.containsKey(name) ? name : name.replaceFirst("^replica\\d+\\.", "");
            float[] values = tensor(tensors, given, (int) (copies.get(0).bytes() / Float.BYTES));
            copies.forEach(copy -> copy.write(values));
        });
        float[] velocity = new float[networks.get(0).size];
        int offset = 0;
        for (Parameter parameter : networks.get(0).parameters) {
            float[] values = tensor(tensors, MOMENTUM + parameter.name(), parameter.count());
            System.arraycopy(values, 0, velocity, offset, values.length);
            offset += values.length;
        }
        for (Network network : networks) {
            network.velocity.write(velocity);
            network.norms.forEach(norm -> norm.norm.batchesTracked(state.step()));
        }
        step = state.step();
    }

    private static float[] tensor(Map<String, float[]> tensors, String name, int count) {
        float[] values = tensors.get(name);
        if (values == null || values.length != count) {
            throw new IllegalArgumentException("a state must be of this network: tensor=" + name + ", values="
                    + (values == null ? "none" : values.length) + ", expected=" + count);
        }
        return values;
    }

    /** By the state's names the buffers that hold the same values. */
    private Map<String, List<Buffer>> buffers() {
        Map<String, List<Buffer>> buffers = new LinkedHashMap<>();
        for (int k = 0; k < networks.size(); k++) {
            Network network = networks.get(k);
            for (Layer layer : network.layers) {
                for (Parameter parameter : layer.parameters()) {
                    add(buffers, parameter.name(), parameter.value());
                }
                if (layer instanceof Normalization norm) {
                    String own = k == 0 || settings.norm() == Norm.SYNC ? "" : "replica" + k + ".";
                    add(buffers, own + norm.name + ".running_mean", norm.runningMean());
                    add(buffers, own + norm.name + ".running_var", norm.runningVar());
                }
            }
        }
        return buffers;
    }

    private static void add(Map<String, List<Buffer>> buffers, String name, Buffer buffer) {
        buffers.computeIfAbsent(name, n -> new ArrayList<>()).add(buffer);
    }

    private static float[] read(Buffer buffer) {
        float[] values = new float[(int) (buffer.bytes() / Float.BYTES)];
        buffer.read(values);
        return values;
    }

    /**
     * The shapes of the state's tensors.
     *
     * @return PyTorch's shapes by the state's names
     */
    Map<String, long[]> shapes() {
        Map<String, long[]> shapes = new LinkedHashMap<>();
        for (Parameter parameter : networks.get(0).parameters) {
            shapes.put(parameter.name(), parameter.shape());
            shapes.put(MOMENTUM + parameter.name(), parameter.shape());
        }
        buffers()
                .forEach((name, copies) ->
                        shapes.putIfAbsent(name, new long[] {copies.get(0).bytes() / Float.BYTES}));
        return shapes;
    }

    /** Releases what the trainer made on the devices; a second call does nothing. */
    @Override
    public void close() {
        memories.forEach(Memory::close);
    }
}
