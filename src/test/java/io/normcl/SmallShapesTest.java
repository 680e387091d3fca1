package io.normcl;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.DynamicTest.dynamicTest;

import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.device.KernelTime;
import io.normcl.device.Limits;
import io.normcl.device.Range;
import io.normcl.plan.CopyPlan;
import io.normcl.plan.Family;
import io.normcl.plan.KernelCall;
import io.normcl.plan.Tuning;
import io.normcl.tensor.Layout;
import io.normcl.tensor.Tensor;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Random;
import java.util.Set;
import java.util.TreeSet;
import java.util.function.Consumer;
import java.util.function.Function;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

/**
 * Every kernel at small shapes on oclgrind, which logs races, diverging barriers, accesses out of bounds and values that
 * nobody wrote; the log must stay empty. Whether the numbers are right other tests say.
 *
 * <p>Fill memory by writing: to oclgrind, what {@code clEnqueueFillBuffer} filled is not written. Outputs are best left
 * unwritten, so that a value that a kernel leaves out shows.
 */
@Tag("oclgrind")
class SmallShapesTest {
    private static final Path LOG = Path.of(Objects.requireNonNullElse(System.getenv("OCLGRIND_LOG"), "no log"));
    private static final Random RANDOM = new Random(1);
    private static final int MOST_BYTES = 1 << 16;
    private static final int MOST_TOLD = 4000;
    private final Set<String> launched = new TreeSet<>();

    /** Some launches; what they allocate in the rig must all have been written when they are done. */
    private record Case(String name, Consumer<Rig> launches) {}

    /** A kernel or layer more is a line more. */
    private static Stream<Case> cases() {
        return Stream.of(
                        copy(Family.WIDE, 100),
                        copy(Family.COOPERATIVE, 3000),
                        batchNorms(3, 5, 7), // odd: vectors of one
                        batchNorms(2, 4, 20), // vectors of four, parts of sixteen
                        batchNorms(9, 2, 1), // rows of channels alone
                        batchNorm(Family.COOPERATIVE, Layout.CHANNELS_LAST, true, 3, 70, 2), // two tiles
                        batchNorm(Family.COOPERATIVE, Layout.CHANNELS_LAST, false, 3, 70, 2),
                        batchNorm(Family.COOPERATIVE, Layout.CHANNELS_FIRST, false, 2, 1, 2101), // several splits
                        train("bias.cl", "train_bias_rows", 70, rig -> args(read(rig, 7), rig.floats(70), 70, 7)),
                        train("bias.cl", "train_bias_sums", 7, rig -> args(read(rig, 70), rig.floats(7), 10, 7)),
                        train(
                                "convolution.cl",
                                "train_im2col",
                                24,
                                rig -> args(read(rig, 24 * 3), rig.floats(24 * 3 * 9), 24, 4, 3, 3)),
                        train(
                                "convolution.cl",
                                "train_col2im",
                                24,
                                rig -> args(read(rig, 24 * 3 * 9), rig.floats(24 * 3), 24, 4, 3, 3)),
                        train(
                                "loss.cl",
                                "train_softmax_cross_entropy",
                                5,
                                rig -> args(
                                        read(rig, 50),
                                        rig.floats(new float[5]),
                                        rig.floats(10),
                                        rig.floats(50),
                                        5,
                                        10,
                                        0.2f)),
                        train(
                                "pool.cl",
                                "train_relu_pool",
                                12,
                                rig -> args(read(rig, 48 * 3), rig.floats(12 * 3), 12, 4, 6, 3, 0)),
                        train(
                                "pool.cl",
                                "train_relu_pool",
                                12,
                                rig -> args(read(rig, 48 * 3), rig.floats(12 * 3), 12, 4, 6, 3, 1)),
                        train(
                                "pool.cl",
                                "train_relu_pool_backward",
                                12,
                                rig -> args(read(rig, 48 * 3), read(rig, 12 * 3), rig.floats(48 * 3), 12, 4, 6, 3, 0)),
                        train(
                                "pool.cl",
                                "train_relu_pool_backward",
                                12,
                                rig -> args(read(rig, 48 * 3), read(rig, 12 * 3), rig.floats(48 * 3), 12, 4, 6, 3, 1)),
                        train(
                                "sgd.cl",
                                "train_sgd",
                                70,
                                rig -> args(read(rig, 70), read(rig, 75), read(rig, 75), 5, 70, 0.1f, 0.9f, 0.01f)))
                .flatMap(s -> s);
    }

    private static Stream<Case> copy(Family family, int count) {
        return Stream.of(new Case("copy " + family, rig -> copy(family, read(rig, count), rig.floats(count), count)));
    }

    private static void copy(Family family, Buffer x, Buffer y, long count) {
        Device device = x.device();
        Limits own = device.limits();
        Limits limits = new Limits(
                family == Family.WIDE,
                own.computeUnits(),
                own.maxWorkGroupSize(),
                own.localMemoryBytes(),
                own.maxAllocationBytes(),
                own.globalMemoryBytes(),
                own.cacheBytes(),
                own.fp64(),
                own.loopSteps());
        KernelCall call = CopyPlan.of(count, limits, false).calls().get(0);
        device.enqueue(device.kernel(call.file(), call.kernel(), call.defines()), call.range(), x, y, count);
    }

    /** Both families, layouts and forms. */
    private static Stream<Case> batchNorms(int n, int c, int s) {
        return Stream.of(Family.values())
                .flatMap(family -> Stream.of(Layout.values())
                        .flatMap(layout ->
                                Stream.of(true, false).flatMap(fused -> batchNorm(family, layout, fused, n, c, s))));
    }

    private static Stream<Case> batchNorm(Family family, Layout layout, boolean fused, int n, int c, int s) {
        String name =
                "batch norm " + family + " " + layout + (fused ? " fused" : "") + " N=" + n + " C=" + c + " S=" + s;
        return Stream.of(new Case(name, rig -> batchNorm(rig, Tuning.of(family).withFused(fused), layout, n, c, s)));
    }

    /** Every mode, forward, backward and commit; with outputs of their own and in place. */
    private static void batchNorm(Rig rig, Tuning tuning, Layout layout, int n, int c, int s) {
        long[] shape = Rig.shape(layout, n, c, s);
        try (BatchNorm norm = BatchNorm.open(rig.device(), BatchNormSpec.of(c), tuning)) {
            for (Mode mode : Mode.values()) {
                Tensor x = Tensor.of(read(rig, n * c * s), layout, shape);
                Tensor y = Tensor.of(rig.floats(n * c * s), layout, shape);
                Tensor dy = Tensor.of(read(rig, n * c * s), layout, shape);
                Tensor dx = Tensor.of(rig.floats(n * c * s), layout, shape);
                Buffer dGamma = rig.floats(c);
                Buffer dBeta = rig.floats(c);
                try (Saved saved = norm.forward(mode, x, y)) {
                    norm.backward(saved, x, dy, Gradients.of(dx, dGamma, dBeta));
                    norm.backward(
                            saved, x, dy, Gradients.of(null, dGamma, dBeta).withAccumulate(true));
                    norm.backward(saved, x, dy, Gradients.of(dy, dGamma, dBeta));
                    norm.commit(saved);
                }
                norm.forward(mode, x, x).close();
            }
        }
    }

    /** A kernel of the trainer, one work-item for each item. */
    private static Stream<Case> train(String file, String kernel, int items, Function<Rig, Object[]> args) {
        return Stream.of(new Case(
                kernel, rig -> launch(rig, "train/" + file, kernel, Range.covering(items, 64), args.apply(rig))));
    }

    private static void launch(Rig rig, String file, String kernel, Range range, Object... args) {
        rig.device().enqueue(rig.device().kernel(file, kernel, Map.of()), range, args);
    }

    private static Object[] args(Object... args) {
        return args;
    }

    /** Memory to be read. */
    private static Buffer read(Rig rig, int count) {
        return rig.floats(Rig.normal(RANDOM, count));
    }

    @Test
    void oclgrindLooks() throws IOException {
        String log = log(device -> {
            try (Rig rig = new Rig(device)) {
                launch(rig, "faulty.cl", "faulty_race", Range.of(8, 1), rig.floats(8));
                launch(rig, "faulty.cl", "faulty_uninitialized", Range.of(8, 1), rig.floats(8), rig.floats(8));
                launch(rig, "faulty.cl", "faulty_bounds", Range.of(8, 1), rig.floats(8), 8);
                device.finish();
            }
        });
        for (String message : List.of("data race", "Uninitialized value", "Invalid write")) {
            assertTrue(log.contains(message), () -> "oclgrind must report: " + message + "\n" + log);
        }
    }

    @TestFactory
    Stream<DynamicTest> everyKernel() {
        return Stream.concat(
                cases().map(c -> dynamicTest(c.name(), () -> {
                    String log = log(device -> run(c, device));
                    assertEquals("", log.substring(0, Math.min(MOST_TOLD, log.length())), c.name());
                })),
                Stream.of(dynamicTest("none is left out", this::noneIsLeftOut)));
    }

    private void run(Case run, Device device) {
        Buffer workspace = device.workspace(MOST_BYTES); // so that it does not grow, and free what is too small
        try (Rig rig = new Rig(device)) {
            List<KernelTime> times = device.profile(() -> run.launches().accept(rig));
            times.forEach(time -> launched.add(time.kernel()));
            for (Buffer buffer : rig.buffers()) { // a copy of what nobody wrote is reported
                copy(Family.WIDE, buffer, workspace, buffer.bytes() / Float.BYTES);
            }
            device.finish();
        }
    }

    /**
     * What oclgrind logs of some work, on a device of its own: it begins its log anew for each context, and where a
     * buffer takes the place of one that was freed, it goes by the old one's size and reports values that were written.
     */
    private static String log(Consumer<Device> work) throws IOException {
        Files.deleteIfExists(LOG);
        String log;
        try (Device device = Rig.open()) {
            assertEquals("Oclgrind", device.description().platform());
            work.accept(device);
            log = Files.readString(LOG);
        }
        assertEquals(0, Device.liveHandles());
        return log;
    }

    private void noneIsLeftOut() throws IOException {
        Set<String> missing = new TreeSet<>(KernelNames.files().keySet());
        missing.removeAll(launched);
        assertTrue(missing.isEmpty(), () -> "every kernel needs a case in SmallShapesTest: missing=" + missing);
    }
}
