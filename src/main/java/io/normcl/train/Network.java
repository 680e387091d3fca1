package io.normcl.train;

import io.normcl.NamedParameter;
import io.normcl.ParameterGroups;
import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.train.FashionMnist.Pictures;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;

/**
 * One replica of the network on one device. It is PyTorch's
 *
 * <pre>
 * Sequential(Conv2d(1, 16, 3, padding=1, bias=False), BatchNorm2d(16), ReLU(), MaxPool2d(2),
 *            Conv2d(16, 16, 3, padding=1, bias=False), BatchNorm2d(16), ReLU(), MaxPool2d(2), Flatten(),
 *            Linear(784, 64, bias=False), BatchNorm1d(64), ReLU(), Linear(64, 10))
 * </pre>
 *
 * and its parameters have the names that they have there. Activations are channels last; the second pooling writes
 * channels first, in the order of PyTorch's flatten.
 */
final class Network {
    /** What the network is, for checkpoints. */
    static final String NAME = "fashion-mnist 16-16-64";

    final Device device;
    final List<Layer> layers = new ArrayList<>();
    final List<Normalization> norms = new ArrayList<>();
    final List<Parameter> parameters = new ArrayList<>();
    /** What the weight decay pulls on. */
    private final Set<NamedParameter> decayed;
    /** Floats of all parameters, which gradients and velocity hold one after the other. */
    final int size;

    private final List<Buffer> values = new ArrayList<>(); // what layer i reads; the last holds the logits
    private final List<Buffer> gradients = new ArrayList<>(); // of the same; the first has none
    private final Buffer labels;
    private final Buffer scores;
    private final Buffer reduced;
    final Buffer velocity;
    private final ByteBuffer pictureStaging;
    private final ByteBuffer labelStaging;
    final ByteBuffer gradientStaging;
    final ByteBuffer scoreStaging;
    private int n;

    /** A network for batches of up to batch samples, and up to inferred where nothing is learned. */
    Network(Memory memory, int batch, int inferred) {
        device = memory.device;
        int capacity = Math.max(batch, inferred);
        layers.add(new Convolution(memory, "0", 28, 1, 16, capacity));
        layers.add(new Normalization(memory, "1", 28 * 28, 16));
        layers.add(new ReluPool(device, 28, 16, 2, false));
        layers.add(new Convolution(memory, "4", 14, 16, 16, capacity));
        layers.add(new Normalization(memory, "5", 14 * 14, 16));
        layers.add(new ReluPool(device, 14, 16, 2, true));
        layers.add(new Linear(memory, "9", 1, 7 * 7 * 16, 64, false, 64, 7 * 7 * 16));
        layers.add(new Normalization(memory, "10", 1, 64));
        layers.add(new ReluPool(device, 1, 64, 1, false));
        layers.add(new Linear(memory, "12", 1, 64, FashionMnist.CLASSES, true, FashionMnist.CLASSES, 64));
        values.add(memory.floats((long) capacity * FashionMnist.PIXELS));
        gradients.add(memory.floats(0));
        for (Layer layer : layers) {
            values.add(memory.floats((long) capacity * layer.outputs()));
            boolean last = layer == layers.get(layers.size() - 1);
            gradients.add(memory.floats((long) (last ? capacity : batch) * layer.outputs()));
            parameters.addAll(layer.parameters());
            if (layer instanceof Normalization norm) {
                norms.add(norm);
            }
        }
        decayed = Set.copyOf(
                ParameterGroups.of(parameters.stream().map(Parameter::named).toList())
                        .decayed());
        size = parameters.stream().mapToInt(Parameter::count).sum();
        labels = memory.floats(capacity);
        scores = memory.floats(2L * capacity);
        reduced = memory.floats(size);
        velocity = memory.floats(size);
        velocity.fill(0);
        pictureStaging = direct(capacity * FashionMnist.PIXELS);
        labelStaging = direct(capacity);
        gradientStaging = direct(size);
        scoreStaging = direct(2 * capacity);
    }

    private static ByteBuffer direct(int floats) {
        return ByteBuffer.allocateDirect(Math.multiplyExact(Float.BYTES, floats))
                .order(ByteOrder.nativeOrder());
    }

    /** Samples of the batch at hand. */
    int n() {
        return n;
    }

    /** Hands over a batch, the samples from first to end, without it; the step waits later on. */
    void load(Pictures pictures, int[] samples, int first, int end) {
        n = end - first;
        pictureStaging.clear();
        labelStaging.clear();
        for (int i = first; i < end; i++) {
            pictures.put(samples[i], pictureStaging);
            labelStaging.putInt(pictures.labels()[samples[i]]);
        }
        values.get(0).enqueueWrite(0, pictureStaging.flip());
        labels.enqueueWrite(0, labelStaging.flip());
    }

    Buffer value(int layer) {
        return values.get(layer);
    }

    Buffer gradient(int layer) {
        return gradients.get(layer);
    }

    void forward(int layer) {
        if (n > 0) {
            layers.get(layer).forward(values.get(layer), values.get(layer + 1), n);
        }
    }

    void backward(int layer) {
        if (n > 0) {
            Buffer dx = layer == 0 ? null : gradients.get(layer);
            layers.get(layer).backward(values.get(layer), gradients.get(layer + 1), dx, n);
        }
    }

    /** The loss of each sample and whether it was hit, to be read with the gradients, and the logits' gradient. */
    void loss(float scale) {
        if (n > 0) {
            Buffer logits = values.get(layers.size());
            Buffer dLogits = gradients.get(layers.size());
            int classes = FashionMnist.CLASSES;
            String kernel = "train_softmax_cross_entropy";
            Layer.launch(device, "loss.cl", kernel, n, logits, labels, scores, dLogits, n, classes, scale);
            scores.enqueueRead(0, scoreStaging.clear().limit(2 * Float.BYTES * n));
        }
    }

    void infer() {
        for (int i = 0; i < layers.size(); i++) {
            layers.get(i).infer(values.get(i), values.get(i + 1), n);
        }
        loss(0);
    }

    /** Starts reading every gradient into the staging memory. */
    void readGradients() {
        int offset = 0;
        for (Parameter parameter : parameters) {
            int bytes = Float.BYTES * parameter.count();
            parameter
                    .gradient()
                    .enqueueRead(0, gradientStaging.clear().position(offset).limit(offset + bytes));
            offset += bytes;
        }
        gradientStaging.clear();
    }

    /** One step of gradient descent by the gradients of the whole batch, which must stay until the next step's wait. */
    void descend(ByteBuffer all, Settings settings) {
        reduced.enqueueWrite(0, all);
        int offset = 0;
        for (Parameter parameter : parameters) {
            float decay = decayed.contains(parameter.named()) ? settings.decay() : 0;
            int count = parameter.count();
            Layer.launch(
                    device,
                    "sgd.cl",
                    "train_sgd",
                    count,
                    parameter.value(),
                    reduced,
                    velocity,
                    offset,
                    count,
                    settings.rate(),
                    settings.momentum(),
                    decay);
            offset += count;
        }
        device.flush();
    }

    float[] logits() {
        float[] logits = new float[n * FashionMnist.CLASSES];
        values.get(layers.size()).read(logits);
        return logits;
    }
}
