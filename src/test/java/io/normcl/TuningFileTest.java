package io.normcl;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import ch.qos.logback.classic.Logger;
import ch.qos.logback.classic.spi.ILoggingEvent;
import ch.qos.logback.core.read.ListAppender;
import io.normcl.device.Device;
import io.normcl.plan.Family;
import io.normcl.plan.Plan;
import io.normcl.plan.ShapeClass;
import io.normcl.plan.ShapeClass.Pass;
import io.normcl.plan.Tuned;
import io.normcl.plan.Tuning;
import io.normcl.tensor.Layout;
import io.normcl.tensor.Tensor;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.slf4j.LoggerFactory;

/** What was tuned is read where it fits and whole, and is named and ignored elsewhere. */
class TuningFileTest {
    private static final Logger LOG = (Logger) LoggerFactory.getLogger(TuningFile.class);
    private static final ShapeClass ROWS = ShapeClass.parse("rows.forward.float.32x8");
    private static final Tuned SOME = new Tuned(
            Map.of(
                    ROWS,
                    Tuning.of(Family.COOPERATIVE),
                    ShapeClass.parse("channels_last.backward.half.64x1024"),
                    Tuning.NONE.withFused(false).withStreams(true)),
            Tuning.NONE);

    private static Device device;

    @TempDir
    Path folder;

    private final ListAppender<ILoggingEvent> warnings = new ListAppender<>();

    @BeforeAll
    static void open() {
        device = Rig.open();
    }

    @AfterAll
    static void close() {
        device.close();
        assertEquals(0, Device.liveHandles());
    }

    @BeforeEach
    void listen() {
        warnings.start();
        LOG.setAdditive(false);
        LOG.addAppender(warnings);
    }

    @AfterEach
    void listenNoMore() {
        LOG.detachAppender(warnings);
        LOG.setAdditive(true);
    }

    private void warned(TuningFile file, String reason) {
        assertEquals(1, warnings.list.size(), warnings.list.toString());
        String message = warnings.list.get(0).getFormattedMessage();
        assertTrue(message.contains(file.path().toString()) && message.contains(reason), message);
        warnings.list.clear();
    }

    /** A file counts for a version of all kernels that plans call, but for the copy. */
    @Test
    void everyKernelsVersionCounts() throws IOException {
        assertEquals(
                KernelNames.files().values().stream()
                        .filter(name -> !name.startsWith("train/") && !name.equals("copy.cl"))
                        .distinct()
                        .sorted()
                        .toList(),
                TuningFile.KERNELS);
    }

    @Test
    void givesBackWhatWasWritten() throws IOException {
        TuningFile file = TuningFile.of(folder, device);
        assertEquals(Tuned.NOTHING, file.read());
        Files.write(file.path(), file.bytes(SOME));
        assertEquals(SOME, file.read());
        Files.write(file.path(), file.bytes(Tuned.NOTHING));
        assertEquals(Tuned.NOTHING, TuningFile.of(folder, device).read());
        assertEquals(List.of(), warnings.list);
    }

    @Test
    void damagedFilesAreIgnored() throws IOException {
        byte[] whole = TuningFile.of(folder, device).bytes(SOME);
        for (int length = 0; length < whole.length - 1; length += 7) {
            damaged("cut" + length, Arrays.copyOf(whole, length), "damaged");
        }
        String text = new String(whole, StandardCharsets.ISO_8859_1);
        damaged("other", text.replace("cooperative", "wide").getBytes(StandardCharsets.ISO_8859_1), "damaged");
        damaged("escape", (text + "\\u12").getBytes(StandardCharsets.ISO_8859_1), "ncoding");
        Path inTheWay = Files.createFile(folder.resolve("file"));
        TuningFile file = TuningFile.of(inTheWay, device);
        assertEquals(Tuned.NOTHING, file.read());
        assertEquals(Tuned.NOTHING, file.read());
        warned(file, "file");
    }

    private void damaged(String name, byte[] bytes, String reason) throws IOException {
        TuningFile file = TuningFile.of(Files.createDirectory(folder.resolve(name)), device);
        Files.write(file.path(), bytes);
        for (int i = 0; i < 2; i++) {
            assertEquals(Tuned.NOTHING, file.read(), name);
        }
        warned(file, reason);
    }

    @Test
    void foreignFilesAreIgnored() throws Exception {
        for (String what : List.of("device", "driver", "kernels")) {
            damaged(what, changed(what, "another"), "of another " + what);
        }
        damaged("unknown", changed("later", "version"), "no such class of shapes: class=later");
        damaged("class", changed("class.rows.forward.float.3x4", "wide"), "no such class");
        damaged("choice", changed("class." + ROWS, "narrow"), "choice=narrow");
    }

    /** A whole file, but with another line. */
    private byte[] changed(String name, String value) throws Exception {
        Properties properties = new Properties();
        properties.load(new ByteArrayInputStream(TuningFile.of(folder, device).bytes(SOME)));
        properties.setProperty(name, value);
        properties.remove("digest");
        byte[] lines = new TreeMap<>(properties).toString().getBytes(StandardCharsets.UTF_8);
        properties.setProperty(
                "digest",
                HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(lines)));
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        properties.store(out, null);
        return out.toByteArray();
    }

    @Test
    void layersOpenedWithoutATuningTakeIt() throws IOException {
        TuningFile file = TuningFile.of(device);
        assertTrue(file.path().startsWith(Path.of("target").toAbsolutePath()), "the user's own: " + file.path());
        Family other = device.limits().cpu() ? Family.COOPERATIVE : Family.WIDE;
        try (Rig rig = new Rig(device)) {
            Tensor x = rig.tensor(new float[4 * 8 * 16], Layout.CHANNELS_FIRST, 4, 8, 16);
            Tensor last = Tensor.of(x.buffer(), Layout.CHANNELS_LAST, 4, 16, 8);
            try (BatchNorm before = BatchNorm.open(device, BatchNormSpec.of(8))) {
                TreeMap<String, String> lines = new TreeMap<>();
                for (Pass pass : Pass.values()) {
                    for (Tensor tensor : List.of(x, last)) {
                        lines.put(before.shapeClass(pass, tensor).toString(), Tuned.words(Tuning.of(other)));
                        try (GroupNorm group = GroupNorm.open(device, GroupNormSpec.of(2, 8));
                                LayerNorm rows = LayerNorm.open(device, LayerNormSpec.of(8))) {
                            lines.put(group.shapeClass(pass, tensor).toString(), Tuned.words(Tuning.of(other)));
                            lines.put(rows.shapeClass(pass, last).toString(), Tuned.words(Tuning.of(other)));
                        }
                    }
                }
                Files.createDirectories(file.path().getParent());
                Files.write(file.path(), file.bytes(Tuned.parse(lines)));
                for (Tensor tensor : List.of(x, last)) {
                    assertEquals(0, tunedPasses(before, tensor, other), "opened before");
                }
            }
            for (Tensor tensor : List.of(x, last)) {
                try (BatchNorm batch = BatchNorm.open(device, BatchNormSpec.of(8));
                        BatchNorm explicit = BatchNorm.open(device, BatchNormSpec.of(8), Tuning.NONE);
                        GroupNorm group = GroupNorm.open(device, GroupNormSpec.of(2, 8));
                        InstanceNorm instance =
                                InstanceNorm.open(device, InstanceNormSpec.of(8).withRunningStatistics(true))) {
                    assertEquals(3, tunedPasses(batch, tensor, other), tensor.toString());
                    assertEquals(0, tunedPasses(explicit, tensor, other));
                    assertEquals(3, tunedPasses(group, tensor, other), tensor.toString());
                    assertTrue(isOf(other, instance.forwardPlan(Mode.EVALUATION, Input.of(tensor))));
                }
            }
            try (LayerNorm rows = LayerNorm.open(device, LayerNormSpec.of(8))) {
                assertEquals(3, tunedPasses(rows, last, other));
            }
        } finally {
            Files.deleteIfExists(file.path());
        }
        assertEquals(List.of(), warnings.list);
    }

    /** How many of a layer's three passes over x run in a family. */
    private static int tunedPasses(NormLayer layer, Tensor x, Family family) {
        try (Saved saved = layer instanceof BatchNorm norm ? norm.forward(x, x) : ((RowNorm) layer).forward(x, x);
                Rig rig = new Rig(layer.device())) {
            Tensor dx = Tensor.of(rig.floats(4 * 8 * 16), x.layout(), x.shape());
            Gradients out = Gradients.of(dx, rig.floats(8), rig.floats(8));
            return (int) List.of(
                            layer.forwardPlan(Mode.TRAINING, Input.of(x)),
                            layer.forwardPlan(Mode.EVALUATION, Input.of(x)),
                            layer.backwardPlan(saved, Input.of(x), out))
                    .stream()
                    .filter(plan -> isOf(family, plan))
                    .count();
        }
    }

    private static boolean isOf(Family family, Plan plan) {
        String prefix = family == Family.WIDE ? "wide_" : "cooperative_";
        return plan.calls().stream().anyMatch(call -> call.kernel().startsWith(prefix));
    }
}
