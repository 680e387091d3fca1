package io.normcl.cli;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.normcl.device.Device;
import io.normcl.train.Checkpoint;
import io.normcl.train.TinyPictures;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The command line as a person meets it: what it prints, its one line where something is wrong, its exit codes. */
class MainTest {
    private static final int TERMINATED = 128 + 15;

    @TempDir
    static Path folder;

    private static Path pictures;

    @BeforeAll
    static void write() {
        pictures = TinyPictures.write(folder.resolve("pictures"), 64, 20);
    }

    @AfterEach
    void nothingLeft() {
        assertEquals(0, Device.liveHandles());
    }

    private record Answer(int exit, String out, String err) {}

    private static Answer normcl(Object... args) {
        StringWriter out = new StringWriter();
        StringWriter err = new StringWriter();
        String[] words = Stream.of(args).map(Object::toString).toArray(String[]::new);
        int exit = Main.run(new PrintWriter(out, true), new PrintWriter(err, true), words);
        return new Answer(exit, out.toString(), err.toString());
    }

    private static Answer train(Path out, Object... more) {
        List<Object> args = new ArrayList<>(List.of("train", "--data", pictures, "--out", out));
        args.addAll(List.of(more));
        Map.of("--samples", 64, "--batch-per-device", 4).forEach((option, value) -> {
            if (!args.contains(option)) {
                args.addAll(List.of(option, value));
            }
        });
        return normcl(args.toArray());
    }

    private static void refused(int exit, String part, Answer answer) {
        assertEquals(exit, answer.exit(), answer.toString());
        assertEquals(1, answer.err().lines().count(), answer.err());
        assertTrue(answer.err().startsWith("normcl: ") && answer.err().contains(part), answer.err());
    }

    @Test
    void wrongUsage() {
        refused(2, "--nonsense", normcl("train", "--nonsense"));
        refused(2, "--epochs", normcl("train", "--epochs", "many"));
        refused(2, "--norm", normcl("train", "--norm", "some"));
        refused(2, "nonsense", normcl("nonsense"));
        assertEquals(0, normcl("--help").exit());
        assertTrue(normcl("demo", "--help").out().contains("--batch-per-device"));
    }

    @Test
    void describesAndTestsEveryDevice() {
        Answer answer = normcl("devices");
        assertEquals(0, answer.exit(), answer.toString());
        Device.list().forEach(device -> assertTrue(answer.out().contains(device.toString()), answer.out()));
        assertTrue(answer.out().contains("self-test passed"), answer.out());
    }

    @Test
    void trainsAndResumes() throws IOException {
        Path whole = folder.resolve("whole");
        Path parts = folder.resolve("parts");
        Path more = folder.resolve("more");
        Path file = parts.resolve("checkpoint.safetensors");
        assertEquals(0, train(whole, "--epochs", 2).exit());
        Answer first = train(parts);
        assertEquals(0, first.exit(), first.err());
        assertTrue(first.out().contains("step 8 of 8") && first.out().contains("test accuracy"), first.out());
        Answer second = normcl("train", "--data", pictures, "--resume", file, "--epochs", 2, "--out", more);
        assertEquals(0, second.exit(), second.err());
        assertArrayEquals(
                Files.readAllBytes(whole.resolve("checkpoint.safetensors")),
                Files.readAllBytes(more.resolve("checkpoint.safetensors")));

        refused(2, "not overwritten", train(parts));
        refused(2, "norm=sync in the checkpoint, local asked", train(parts, "--resume", file, "--norm", "local"));
        refused(2, "devices=2 in the checkpoint, 1 asked", train(parts, "--resume", file, "--devices", "cpu"));
        byte[] bytes = Files.readAllBytes(file);
        Files.write(file, Arrays.copyOf(bytes, 1000));
        refused(2, "a whole safetensors file", train(parts, "--resume", file));
        refused(2, "no such file", train(parts, "--resume", folder.resolve("nowhere")));
    }

    @Test
    void badInput() throws IOException {
        Path out = folder.resolve("bad");
        refused(2, "there is 0:", train(out, "--devices", "no such device"));
        refused(2, "file=" + folder, normcl("train", "--data", folder, "--out", out));
        refused(2, "file=" + folder, normcl("demo", "--data", folder, "--out", out));
        refused(2, "more samples", train(out, "--samples", 65));
        refused(2, "one whole batch", train(out, "--samples", 7));
        refused(2, "at least one epoch", train(out, "--epochs", 0));
        refused(2, "more than one value", train(out, "--batch-per-device", 1, "--norm", "local"));
        Path file = Files.createFile(folder.resolve("a file"));
        refused(2, "--out=" + file, train(file));
        refused(2, "--out=" + file.resolve("below"), train(file.resolve("below")));
        refused(2, "two devices", normcl("demo", "--data", pictures, "--devices", "cpu", "--out", out));
        try (Stream<Path> left = Files.list(out)) {
            assertEquals(0, left.count());
        }
    }

    @Test
    void verboseShowsWhere() {
        Answer answer = normcl(
                "train", "--devices", "no such device", "--data", pictures, "--out", folder.resolve("v"), "--verbose");
        assertEquals(2, answer.exit());
        assertTrue(answer.err().contains("\tat io.normcl."), answer.err());
    }

    @Test
    void demonstrates() throws IOException {
        Path out = folder.resolve("demo");
        Answer answer =
                normcl("demo", "--data", pictures, "--devices", "cpu:2", "--samples", 64, "--epochs", 2, "--out", out);
        assertEquals(0, answer.exit(), answer.toString());
        assertTrue(answer.out().contains("synchronized") && answer.out().contains("passed: "), answer.out());
        assertTrue(Files.size(out.resolve("report.html")) > 10_000);
    }

    @Test
    void tuneShowsResetsAndRefuses() {
        Answer shown = normcl("tune", "--show");
        assertEquals(0, shown.exit(), shown.err());
        assertTrue(shown.out().contains("0 classes of shapes in "), shown.out());
        Answer reset = normcl("tune", "--reset");
        assertEquals(0, reset.exit(), reset.err());
        assertTrue(reset.out().contains("there is none: "), reset.out());
        refused(2, "suite=some", normcl("tune", "--suite", "some"));
        refused(2, "at least one round", normcl("tune", "--rounds", 0));
        refused(2, "shown or deleted", normcl("tune", "--show", "--reset"));
        refused(2, "one device is tuned at a time: --device=cpu:2", normcl("tune", "--device", "cpu:2"));
        refused(2, "--dtype", normcl("tune", "--dtype", "int"));
        refused(2, "nonsense", normcl("tune", "--device", "nonsense"));
    }

    @Test
    void benches() {
        Answer answer = normcl("bench", "small", "--op", "rms_norm", "--rounds", 1, "--cached", "--format", "csv");
        assertEquals(0, answer.exit(), answer.toString());
        assertEquals("", answer.err());
        List<String> lines = answer.out().lines().toList();
        assertEquals(1 + 2 * 3, lines.size(), answer.out());
        assertTrue(lines.get(0).startsWith("op,pass,layout,dtype,shape,family,median_ms,min_ms,bytes,"), lines.get(0));
        assertTrue(lines.get(6).startsWith("rms_norm,backward,channels_last,float,32x10,"), lines.get(6));
        Answer one = normcl("bench", "--shape", "2x4x3x3", "--pass", "backward", "--rounds", 1, "--cached");
        assertEquals(0, one.exit(), one.toString());
        assertEquals(
                1,
                one.out().lines().filter(line -> line.startsWith("batch_norm ")).count(),
                one.out());
        Answer cost = normcl("bench", "--sync", "1,2", "--shape", "2x4x3x3", "--rounds", 1, "--cached");
        assertEquals(0, cost.exit(), cost.toString());
        assertEquals(3, cost.out().lines().count(), cost.out());
        Answer large = normcl("bench", "--shape", "64x1024x1024x1024", "--rounds", 1);
        assertEquals(0, large.exit(), large.toString());
        assertTrue(large.err().startsWith("skipped ") && large.err().lines().count() == 1, large.err());
    }

    @Test
    void badBenches() {
        refused(2, "suite=some", normcl("bench", "some"));
        refused(2, "shape=3x", normcl("bench", "--shape", "3x"));
        refused(2, "shape=0x4", normcl("bench", "--shape", "0x4"));
        refused(2, "--op", normcl("bench", "--op", "some"));
        refused(2, "own shapes", normcl("bench", "cnn", "--shape", "3x4"));
        refused(2, "something to time", normcl("bench", "--suite", "cnn", "--op", "layer_norm"));
        refused(2, "at least one round", normcl("bench", "--rounds", 0));
        refused(2, "given or as tuned", normcl("bench", "--tuned", "--family", "wide"));
        refused(2, "--format", normcl("bench", "--format", "xml"));
        refused(2, "groups must divide", normcl("bench", "--op", "group_norm", "--shape", "4x3x3"));
        refused(2, "--sync=[0]", normcl("bench", "--sync", 0));
    }

    @Test
    void interruptedItLeavesAWholeCheckpoint() throws IOException, InterruptedException {
        Path out = folder.resolve("interrupted");
        List<String> command = new ArrayList<>(List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "-cp",
                System.getProperty("java.class.path"),
                Main.class.getName()));
        command.addAll(List.of("train", "--data", pictures.toString(), "--samples", "64"));
        command.addAll(List.of("--batch-per-device", "4", "--epochs", "100000", "--out", out.toString()));
        Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
        StringBuilder said = new StringBuilder();
        try (BufferedReader reader =
                new BufferedReader(new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8))) {
            String line = reader.readLine();
            while (line != null) {
                said.append(line).append('\n');
                if (line.contains("test accuracy")) {
                    process.toHandle().destroy(); // SIGTERM; Ctrl-C takes the same way
                }
                line = reader.readLine();
            }
        } finally {
            assertTrue(process.waitFor(60, TimeUnit.SECONDS), said.toString());
        }
        assertEquals(TERMINATED, process.exitValue(), said.toString());
        assertTrue(said.toString().contains("go on with --resume"), said.toString());
        assertFalse(said.toString().contains("\tat "), said.toString());
        assertEquals(
                4,
                Checkpoint.read(out.resolve("checkpoint.safetensors"))
                        .settings()
                        .batchPerDevice());
        try (Stream<Path> left = Files.list(out)) {
            assertEquals(1, left.count());
        }
    }
}
