package io.normcl.examples;

import static java.util.Objects.requireNonNull;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.normcl.BatchNorm;
import io.normcl.BatchNormSpec;
import io.normcl.Input;
import io.normcl.Momentum;
import io.normcl.Rig;
import io.normcl.RunningVariance;
import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.exchange.BatchNormState;
import io.normcl.exchange.Safetensors;
import io.normcl.exchange.Safetensors.Entry;
import io.normcl.exchange.StateConvention;
import io.normcl.reference.NormReference;
import io.normcl.reference.NormReference.Statistics;
import io.normcl.tensor.Activation;
import io.normcl.tensor.Layout;
import io.normcl.tensor.Tensor;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.DoubleStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The pages' examples run, and the pages show them as they are. */
class PageExamplesTest {
    @TempDir
    Path folder;

    @Test
    void folding() throws IOException {
        Random random = new Random(1);
        Map<String, Entry> tensors = StateConvention.PYTORCH.write(state(random, RunningVariance.UNBIASED), "bn1.");
        float[] weight = Rig.normal(random, 64 * 3 * 49);
        tensors.put("conv1.weight", Entry.of(weight, 64, 3, 7, 7));
        Path file = folder.resolve("model.safetensors");
        Path fused = folder.resolve("fused.safetensors");
        Safetensors.write(file, tensors, Map.of());
        double error = PageExamples.folding(file, fused);
        assertTrue(error > 0 && error < 1e-7, () -> "error=" + error);

        Map<String, Entry> one = Safetensors.read(fused).tensors();
        assertEquals("{conv1.bias=F32[64], conv1.weight=F32[64, 3, 7, 7]}", new TreeMap<>(one).toString());
        double scale = tensors.get("bn1.weight").floats()[63]
                / Math.sqrt(tensors.get("bn1.running_var").floats()[63] + 1e-5);
        int last = weight.length - 1;
        assertEquals((float) (weight[last] * scale), one.get("conv1.weight").floats()[last]);
    }

    @Test
    void exchange() throws IOException {
        BatchNormState state = state(new Random(2), RunningVariance.BIASED);
        Path keras = folder.resolve("keras.safetensors");
        Path pytorch = folder.resolve("pytorch.safetensors");
        Safetensors.write(keras, StateConvention.KERAS.write(state, "bn/"), Map.of());
        BatchNormSpec spec = PageExamples.exchange(keras, pytorch);
        assertEquals(1e-3, spec.eps());
        assertEquals(Momentum.ofKept(0.95), spec.momentum());

        BatchNormState read =
                StateConvention.PYTORCH.read(Safetensors.read(pytorch).tensors(), "bn.");
        assertArrayEquals(state.gamma(), read.gamma());
        assertEquals((float) (state.runningVar()[5] * 6272.0 / 6271), read.runningVar()[5]);
    }

    private static BatchNormState state(Random random, RunningVariance which) {
        float[] variance = Rig.normal(random, 64);
        for (int c = 0; c < variance.length; c++) {
            variance[c] *= variance[c];
        }
        return new BatchNormState(
                Rig.normal(random, 64), Rig.normal(random, 64), Rig.normal(random, 64), variance, which, 0);
    }

    private final Random random = new Random(3);

    @Test
    void batchNorm() {
        int n = 2;
        int c = 64;
        int s = 9;
        float[] x = Rig.normal(random, n * c * s);
        float[] z = Rig.normal(random, n * c * s);
        float[] dy = Rig.normal(random, n * c * s);
        try (Device device = Rig.open();
                Rig rig = new Rig(device)) {
            Tensor y = first(rig, x, n, c, s);
            Tensor dx = first(rig, x, n, c, s);
            Tensor dz = first(rig, x, n, c, s);
            Buffer dGamma = rig.floats(c);
            Buffer dBeta = rig.floats(c);
            PageExamples.batchNorm(
                    device,
                    first(rig, x, n, c, s),
                    first(rig, z, n, c, s),
                    y,
                    first(rig, dy, n, c, s),
                    dx,
                    dz,
                    dGamma,
                    dBeta);

            NormReference reference = NormReference.batchNorm(n, c, s, false).withActivation(Activation.RELU);
            Statistics batch = reference.statistics(Rig.doubles(x));
            NormReference.Gradients gradients =
                    reference.backward(batch, null, null, Rig.doubles(x), Rig.doubles(z), Rig.doubles(dy));
            close(gradients.dx(), dx, "dx");
            close(gradients.dz(), dz, "dz");
            close(gradients.dGamma(), dGamma, "dGamma");
            close(gradients.dBeta(), dBeta, "dBeta");
            double[] mean = new double[c];
            double[] variance = DoubleStream.generate(() -> 1).limit(c).toArray();
            reference.update(batch, 0.1, true, mean, variance);
            Statistics running = reference.running(mean, variance); // the last call is an evaluation
            close(reference.forward(running, null, null, Rig.doubles(x), Rig.doubles(z)), y, "y");
        }
    }

    @Test
    void layerNorm() {
        int rows = 4 * 16;
        int d = 768;
        double[] attention = bfloats(rows * d);
        double[] stream = bfloats(rows * d);
        double[] dy = bfloats(rows * d);
        try (Device device = Rig.open();
                Rig rig = new Rig(device)) {
            Buffer sum = stored(rig, stream);
            Buffer y = stored(rig, dy);
            Buffer dx = stored(rig, dy);
            Buffer dGamma = rig.floats(d);
            Buffer dBeta = rig.floats(d);
            PageExamples.layerNorm(device, stored(rig, attention), sum, y, stored(rig, dy), dx, dGamma, dBeta);

            double[] x = new double[rows * d];
            Arrays.setAll(x, i -> bfloat((float) (attention[i] + stream[i])));
            assertArrayEquals(x, loaded(sum), "the sum, rounded as it is stored");
            NormReference reference = NormReference.layerNorm(rows, d);
            Statistics statistics = reference.statistics(x);
            NormReference.Gradients gradients = reference.backward(statistics, null, null, x, null, dy);
            rounded(reference.forward(statistics, null, null, x, null), loaded(y), "y");
            rounded(gradients.dx(), loaded(dx), "dx");
            close(gradients.dGamma(), dGamma, "dGamma");
            close(gradients.dBeta(), dBeta, "dBeta");
        }
    }

    @Test
    void rmsNorm() {
        int rows = 12;
        int d = 640;
        float[] x = Rig.normal(random, rows * d);
        float[] dy = Rig.normal(random, rows * d);
        float[] gamma = Rig.normal(random, d);
        try (Device device = Rig.open();
                Rig rig = new Rig(device)) {
            Tensor y = rig.tensor(dy, Layout.CHANNELS_LAST, 3, 4, d);
            Tensor dx = rig.tensor(dy, Layout.CHANNELS_LAST, 3, 4, d);
            Buffer dGamma = rig.floats(d);
            PageExamples.rmsNorm(
                    device,
                    rig.floats(gamma),
                    rig.tensor(x, Layout.CHANNELS_LAST, 3, 4, d),
                    y,
                    rig.tensor(dy, Layout.CHANNELS_LAST, 3, 4, d),
                    dx,
                    dGamma);

            NormReference reference = NormReference.rmsNorm(rows, d, true).withEps(1e-6);
            Statistics statistics = reference.statistics(Rig.doubles(x));
            NormReference.Gradients gradients =
                    reference.backward(statistics, Rig.doubles(gamma), null, Rig.doubles(x), null, Rig.doubles(dy));
            close(reference.forward(statistics, Rig.doubles(gamma), null, Rig.doubles(x), null), y, "y");
            close(gradients.dx(), dx, "dx");
            close(gradients.dGamma(), dGamma, "dGamma");
        }
    }

    @Test
    void groupNorm() {
        int n = 2;
        int c = 128;
        int s = 10;
        float[] x = Rig.normal(random, n * c * s);
        float[] dy = Rig.normal(random, n * c * s);
        try (Device device = Rig.open();
                Rig rig = new Rig(device)) {
            Tensor y = first(rig, x, n, c, s);
            Tensor dx = first(rig, x, n, c, s);
            Tensor perPixel = first(rig, x, n, c, s);
            Buffer dGamma = rig.floats(c);
            Buffer dBeta = rig.floats(c);
            PageExamples.groupNorm(
                    device, first(rig, x, n, c, s), y, first(rig, dy, n, c, s), dx, dGamma, dBeta, perPixel);

            NormReference reference =
                    NormReference.groupNorm(n, c, s, false, 32).withEps(1e-6).withActivation(Activation.SILU);
            Statistics statistics = reference.statistics(Rig.doubles(x));
            NormReference.Gradients gradients =
                    reference.backward(statistics, null, null, Rig.doubles(x), null, Rig.doubles(dy));
            close(reference.forward(statistics, null, null, Rig.doubles(x), null), y, "y");
            close(gradients.dx(), dx, "dx");
            close(gradients.dGamma(), dGamma, "dGamma");
            close(gradients.dBeta(), dBeta, "dBeta");
            NormReference overChannels = NormReference.perLocation(n, c, s, false, 1);
            Statistics each = overChannels.statistics(Rig.doubles(x));
            close(overChannels.forward(each, null, null, Rig.doubles(x), null), perPixel, "per place");
        }
    }

    @Test
    void instanceNorm() {
        int n = 3;
        int c = 80;
        int s = 300;
        float[] x = Rig.normal(random, n * c * s);
        float[] dy = Rig.normal(random, n * c * s);
        try (Device device = Rig.open();
                Rig rig = new Rig(device)) {
            Tensor y = first(rig, x, n, c, s);
            Tensor dx = first(rig, x, n, c, s);
            Buffer dGamma = rig.floats(c);
            Buffer dBeta = rig.floats(c);
            PageExamples.instanceNorm(device, first(rig, x, n, c, s), y, first(rig, dy, n, c, s), dx, dGamma, dBeta);

            NormReference reference = NormReference.instanceNorm(n, c, s, false)
                    .withCounted(NormReference.counted(n, c, s, false, s, 300, 120, 7));
            Statistics statistics = reference.statistics(Rig.doubles(x));
            NormReference.Gradients gradients =
                    reference.backward(statistics, null, null, Rig.doubles(x), null, Rig.doubles(dy));
            close(reference.forward(statistics, null, null, Rig.doubles(x), null), y, "y");
            close(gradients.dx(), dx, "dx");
            close(gradients.dGamma(), dGamma, "dGamma");
            close(gradients.dBeta(), dBeta, "dBeta");
        }
    }

    @Test
    void microBatchesAndPreciseBatchNorm() {
        int c = 5;
        int s = 7;
        int[] sizes = {3, 1, 2};
        float[] x = Rig.perChannel(random, 6, c, s, Layout.CHANNELS_FIRST);
        float[] dy = Rig.normal(random, 6 * c * s);
        try (Device device = Rig.open();
                Rig rig = new Rig(device);
                BatchNorm norm = BatchNorm.open(device, BatchNormSpec.of(c))) {
            List<Input> xs = new ArrayList<>();
            List<Tensor> ys = new ArrayList<>();
            List<Tensor> dys = new ArrayList<>();
            List<Tensor> dxs = new ArrayList<>();
            int at = 0;
            for (int size : sizes) {
                float[] part = Arrays.copyOfRange(x, at, at + size * c * s);
                xs.add(Input.of(first(rig, part, size, c, s)));
                ys.add(first(rig, part, size, c, s));
                dys.add(first(rig, Arrays.copyOfRange(dy, at, at + size * c * s), size, c, s));
                dxs.add(first(rig, part, size, c, s));
                at += size * c * s;
            }
            Buffer dGamma = rig.floats(c);
            Buffer dBeta = rig.floats(c);
            PageExamples.microBatches(norm, xs, ys, dys, dxs, dGamma, dBeta);

            NormReference whole = NormReference.batchNorm(6, c, s, false);
            Statistics batch = whole.statistics(Rig.doubles(x));
            NormReference.Gradients gradients =
                    whole.backward(batch, null, null, Rig.doubles(x), null, Rig.doubles(dy));
            close(whole.forward(batch, null, null, Rig.doubles(x), null), joined(ys), "y");
            close(gradients.dx(), joined(dxs), "dx");
            close(gradients.dGamma(), dGamma, "dGamma");
            close(gradients.dBeta(), dBeta, "dBeta");
            double[] mean = new double[c];
            double[] variance = DoubleStream.generate(() -> 1).limit(c).toArray();
            whole.update(batch, 0.1, true, mean, variance);
            close(mean, requireNonNull(norm.runningMean()), "runningMean");
            close(variance, requireNonNull(norm.runningVar()), "runningVar");
            assertEquals(1, norm.batchesTracked());

            PageExamples.preciseBatchNorm(norm, xs);
            whole.update(batch, 1, true, mean, variance);
            close(mean, requireNonNull(norm.runningMean()), "precise mean");
            close(variance, requireNonNull(norm.runningVar()), "precise variance");
        }
    }

    /** The estimate of a deviation from 4096 trials is off by 1/√8192 of itself, and the formula by some 3/m. */
    @Test
    void scatter() {
        try (Device device = Rig.open()) {
            for (int m : new int[] {64, 256}) {
                double formula = Math.sqrt(1.5 / m);
                assertEquals(formula, PageExamples.scatter(device, m), (5 / Math.sqrt(8192) + 3.0 / m) * formula);
            }
        }
    }

    private static Tensor first(Rig rig, float[] values, long n, long c, long s) {
        return rig.tensor(values, Layout.CHANNELS_FIRST, n, c, s);
    }

    private static float[] joined(List<Tensor> parts) {
        int count = (int) parts.stream().mapToLong(Tensor::elements).sum();
        FloatBuffer all = FloatBuffer.allocate(count);
        parts.forEach(part -> all.put(Rig.read(part)));
        return all.array();
    }

    private static void close(double[] expected, Tensor got, String what) {
        close(expected, Rig.read(got), what);
    }

    private static void close(double[] expected, Buffer got, String what) {
        close(expected, Rig.read(got), what);
    }

    /** Within 16 roundings of the largest value. */
    private static void close(double[] expected, float[] got, String what) {
        double largest = Arrays.stream(expected).map(Math::abs).max().orElseThrow();
        assertTrue(largest > 0.1, () -> what + " is worth comparing: largest=" + largest);
        assertArrayEquals(expected, Rig.doubles(got), 16 * 0x1p-24 * largest, what);
    }

    /** Within the rounding to bfloat16, and that of floats before it. */
    private static void rounded(double[] expected, double[] got, String what) {
        for (int i = 0; i < expected.length; i++) {
            double allowed = 0x1p-8 * Math.abs(expected[i]) + 16 * 0x1p-24 * 8;
            assertEquals(expected[i], got[i], allowed, what);
        }
    }

    private double[] bfloats(int count) {
        double[] values = Rig.doubles(Rig.normal(random, count));
        Arrays.setAll(values, i -> bfloat((float) values[i]));
        return values;
    }

    /** Rounded to bfloat16, to even. */
    private static float bfloat(float value) {
        int bits = Float.floatToIntBits(value);
        return Float.intBitsToFloat((bits + 0x7fff + ((bits >>> 16) & 1)) & 0xffff0000);
    }

    private static Buffer stored(Rig rig, double[] values) {
        ByteBuffer host = ByteBuffer.allocateDirect(2 * values.length).order(ByteOrder.nativeOrder());
        for (double value : values) {
            host.putShort((short) (Float.floatToIntBits((float) value) >>> 16));
        }
        Buffer buffer = rig.floats(values.length / 2);
        buffer.write(0, host.flip());
        return buffer;
    }

    private static double[] loaded(Buffer buffer) {
        ByteBuffer host = ByteBuffer.allocateDirect((int) buffer.bytes()).order(ByteOrder.nativeOrder());
        buffer.read(0, host);
        double[] values = new double[host.capacity() / 2];
        Arrays.setAll(values, i -> Float.intBitsToFloat(host.getShort(2 * i) << 16));
        return values;
    }

    @Test
    void thePagesShowThem() throws IOException {
        String source = Files.readString(Path.of("src/test/java/io/normcl/examples/PageExamples.java"));
        Matcher example =
                Pattern.compile("// ([a-z-]+\\.md)\\n((?s:.*?))\\s+// \\1: end").matcher(source);
        int shown = 0;
        while (example.find()) {
            String page = example.group(1);
            String code = example.group(2).stripIndent();
            String text = Files.readString(Path.of("src/site/markdown", page));
            assertTrue(text.contains("```java\n" + code + "\n```"), () -> page + " lacks:\n" + code);
            shown++;
        }
        assertEquals(10, shown);
    }

    private static List<Path> pages() throws IOException {
        try (Stream<Path> files = Files.list(Path.of("src/site/markdown"))) {
            return files.toList();
        }
    }

    /** A page names tests as {@code SomeTest.method}, and each is there. */
    @Test
    void theTestsThatPagesNameAreThere() throws IOException {
        Map<String, String> sources = new TreeMap<>();
        try (Stream<Path> files = Files.walk(Path.of("src/test/java"))) {
            for (Path file :
                    files.filter(f -> f.toString().endsWith("Test.java")).toList()) {
                sources.put(file.getFileName().toString().replace(".java", ""), Files.readString(file));
            }
        }
        int named = 0;
        for (Path page : pages()) {
            Matcher test = Pattern.compile("`([A-Z]\\w+Test)(\\.(\\w+))?`").matcher(Files.readString(page));
            while (test.find()) {
                String method = test.group(3) == null ? "" : "void " + test.group(3) + "(";
                String source = sources.getOrDefault(test.group(1), "");
                assertTrue(!source.isEmpty() && source.contains(method), () -> page + " names " + test.group());
                named++;
            }
        }
        assertTrue(named > 9, "tests are named: " + named);
    }

    /** The README and the pages link to files that are there, and every page is linked from the README. */
    @Test
    void linksLeadSomewhere() throws IOException {
        Set<Path> linked = new TreeSet<>();
        List<Path> pages = pages();
        for (Path page :
                Stream.concat(Stream.of(Path.of("README.md")), pages.stream()).toList()) {
            Matcher link = Pattern.compile("\\]\\(([^):#]+)(#[^)]*)?\\)").matcher(Files.readString(page));
            while (link.find()) {
                Path target = page.resolveSibling(link.group(1)).normalize();
                assertTrue(Files.exists(target), () -> page + " links to " + target);
                if (page.endsWith("README.md")) {
                    linked.add(target);
                }
            }
        }
        assertTrue(linked.containsAll(pages), () -> "linked from the README: " + linked + ", pages: " + pages);
    }
}
