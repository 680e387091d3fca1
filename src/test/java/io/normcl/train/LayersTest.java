package io.normcl.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import io.normcl.Rig;
import io.normcl.device.Buffer;
import io.normcl.device.Device;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** The trainer's own layers against plain loops, and their gradients against differences under a random cotangent. */
class LayersTest {
    private static final int N = 3;
    private static Device device;
    private final Random random = new Random(7);

    @BeforeAll
    static void open() {
        device = Rig.open();
    }

    @AfterAll
    static void close() {
        device.close();
        assertEquals(0, Device.liveHandles());
    }

    private float[] floats(int count) {
        float[] values = new float[count];
        for (int i = 0; i < count; i++) {
            values[i] = (float) random.nextGaussian();
        }
        return values;
    }

    /** Values at least 1/8 apart, so that a small change moves no maximum and none crosses 0. */
    private float[] apart(int count) {
        List<Float> values = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            values.add((i - count / 2 + 0.5f) / 8);
        }
        Collections.shuffle(values, random);
        float[] array = new float[count];
        for (int i = 0; i < count; i++) {
            array[i] = values.get(i);
        }
        return array;
    }

    private static float[] read(Buffer buffer) {
        float[] values = new float[(int) (buffer.bytes() / Float.BYTES)];
        buffer.read(values);
        return values;
    }

    private static float[] forward(Memory memory, Layer layer, Buffer x) {
        Buffer y = memory.floats((long) N * layer.outputs());
        layer.forward(x, y, N);
        return read(y);
    }

    private void checkGradients(Memory memory, Layer layer, float[] x, float step) {
        Buffer xs = memory.floats(x.length);
        xs.write(x);
        for (Parameter parameter : layer.parameters()) {
            parameter.value().write(floats(parameter.count()));
        }
        float[] cotangent = floats(N * layer.outputs());
        Buffer dy = memory.floats(cotangent.length);
        dy.write(cotangent);
        Buffer dx = memory.floats(x.length);
        dx.fill(Float.NaN);
        forward(memory, layer, xs);
        layer.backward(xs, dy, dx, N);
        checkGradient(memory, layer, xs, xs, read(dx), cotangent, step);
        for (Parameter parameter : layer.parameters()) {
            float[] gradient = read(parameter.gradient());
            checkGradient(memory, layer, xs, parameter.value(), gradient, cotangent, step);
        }
    }

    private void checkGradient(
            Memory memory, Layer layer, Buffer x, Buffer input, float[] gradient, float[] cotangent, float step) {
        float[] values = read(input);
        for (int tries = 0; tries < 12; tries++) {
            int i = random.nextInt(values.length);
            float value = values[i];
            double[] sums = new double[2];
            for (int side = 0; side < 2; side++) {
                values[i] = value + (side == 0 ? -step : step);
                input.write(values);
                float[] y = forward(memory, layer, x);
                for (int j = 0; j < y.length; j++) {
                    sums[side] += (double) y[j] * cotangent[j];
                }
            }
            values[i] = value;
            input.write(values);
            double expected = (sums[1] - sums[0]) / (2 * step);
            assertEquals(expected, gradient[i], 2e-3 * Math.max(1, Math.abs(expected)));
        }
    }

    @Test
    void gradients() {
        try (Memory memory = new Memory(device)) {
            checkGradients(memory, new Linear(memory, "0", 1, 5, 7, true, 7, 5), floats(N * 5), 0.1f);
            checkGradients(memory, new Convolution(memory, "0", 6, 4, 5, N), floats(N * 36 * 4), 0.1f);
            checkGradients(memory, new ReluPool(device, 6, 4, 2, false), apart(N * 36 * 4), 0.03f);
            checkGradients(memory, new ReluPool(device, 6, 4, 2, true), apart(N * 36 * 4), 0.03f);
            checkGradients(memory, new ReluPool(device, 1, 9, 1, false), apart(N * 9), 0.03f);
        }
    }

    @Test
    void convolutionTakesPyTorchsWeights() {
        int side = 5;
        int in = 2;
        int out = 3;
        try (Memory memory = new Memory(device)) {
            Layer layer = new Convolution(memory, "0", side, in, out, N);
            float[] x = floats(N * side * side * in);
            float[] w = floats(out * in * 9);
            Buffer xs = memory.floats(x.length);
            xs.write(x);
            layer.parameters().get(0).value().write(w);
            float[] expected = new float[N * side * side * out];
            for (int i = 0; i < expected.length; i++) {
                int o = i % out;
                int column = i / out % side;
                int row = i / out / side % side;
                int n = i / out / side / side;
                double sum = 0;
                for (int c = 0; c < in; c++) {
                    for (int tap = 0; tap < 9; tap++) {
                        int h = row + tap / 3 - 1;
                        int v = column + tap % 3 - 1;
                        if (h >= 0 && h < side && v >= 0 && v < side) {
                            sum += (double) x[((n * side + h) * side + v) * in + c] * w[(o * in + c) * 9 + tap];
                        }
                    }
                }
                expected[i] = (float) sum;
            }
            assertArrayEquals(expected, forward(memory, layer, xs), 1e-5f);
        }
    }

    @Test
    void poolingFlattensAsPyTorch() {
        int side = 4;
        int channels = 3;
        try (Memory memory = new Memory(device)) {
            float[] x = apart(N * side * side * channels);
            x[0] = Float.NaN;
            Buffer xs = memory.floats(x.length);
            xs.write(x);
            float[] expected = new float[x.length / 4];
            for (int i = 0; i < expected.length; i++) {
                int column = i % 2;
                int row = i / 2 % 2;
                int c = i / 4 % channels;
                int n = i / 4 / channels;
                float best = 0;
                for (int p = 0; p < 4; p++) {
                    int h = 2 * row + p / 2;
                    int w = 2 * column + p % 2;
                    best = Math.max(best, x[((n * side + h) * side + w) * channels + c]); // NaN wins here too
                }
                expected[i] = best;
            }
            assertArrayEquals(expected, forward(memory, new ReluPool(device, side, channels, 2, true), xs));
        }
    }

    @Test
    void softmaxCrossEntropy() {
        int classes = 10;
        float[] logits = floats(N * classes);
        logits[3] = 90; // far from the others: no overflow
        int[] labels = {3, 0, 7};
        try (Memory memory = new Memory(device)) {
            Buffer z = memory.floats(logits.length);
            z.write(logits);
            Buffer label = memory.floats(N);
            float[] bits = new float[N];
            for (int i = 0; i < N; i++) {
                bits[i] = Float.intBitsToFloat(labels[i]);
            }
            label.write(bits);
            Buffer scores = memory.floats(2 * N);
            Buffer dz = memory.floats(logits.length);
            Layer.launch(device, "loss.cl", "train_softmax_cross_entropy", N, z, label, scores, dz, N, classes, 0.25f);
            float[] gradient = read(dz);
            float[] found = read(scores);
            for (int n = 0; n < N; n++) {
                double sum = 0;
                int best = 0;
                for (int c = 0; c < classes; c++) {
                    sum += Math.exp(logits[n * classes + c] - (double) logits[n * classes + labels[n]]);
                    best = logits[n * classes + c] > logits[n * classes + best] ? c : best;
                }
                assertEquals(Math.log(sum), found[2 * n], 1e-5);
                assertEquals(best == labels[n] ? 1 : 0, found[2 * n + 1]);
                for (int c = 0; c < classes; c++) {
                    double p = Math.exp(logits[n * classes + c] - (double) logits[n * classes + labels[n]]) / sum;
                    assertEquals(0.25 * (p - (c == labels[n] ? 1 : 0)), gradient[n * classes + c], 1e-6);
                }
            }
        }
    }
}
