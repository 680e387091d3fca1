package io.normcl.bench;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.normcl.Rig;
import io.normcl.TuningFile;
import io.normcl.bench.BenchCase.Op;
import io.normcl.bench.Tuner.Choice;
import io.normcl.device.Device;
import io.normcl.plan.Family;
import io.normcl.plan.ShapeClass;
import io.normcl.plan.Tuned;
import io.normcl.plan.Tuning;
import io.normcl.tensor.Layout;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** A choice must gain in every case of its class, and what is kept is kept whole. */
class TunerTest {
    private static final ShapeClass ROWS = ShapeClass.parse("rows.forward.float.32x8");
    private static final ShapeClass MORE = ShapeClass.parse("rows.backward.float.32x8");
    private static final Tuning CUT = Tuning.NONE.withFused(false);
    private static final Tuning OTHER = Tuning.of(Family.COOPERATIVE);

    private static Device device;

    @TempDir
    Path folder;

    @BeforeAll
    static void open() {
        device = Rig.open();
    }

    @AfterAll
    static void close() {
        device.close();
        assertEquals(0, Device.liveHandles());
    }

    private static Choice choice(double[]... cases) {
        List<Map<Tuning, Double>> gains = new ArrayList<>();
        for (double[] gained : cases) {
            Map<Tuning, Double> of = new LinkedHashMap<>();
            of.put(Tuning.NONE, 1.0);
            of.put(CUT, gained[0]);
            of.put(OTHER, gained[1]);
            gains.add(of);
        }
        return Tuner.choice(ROWS, gains);
    }

    @Test
    void aChoiceMustGainInEveryCase() {
        assertEquals(new Choice(ROWS, OTHER, 1.2), choice(new double[] {1.1, 1.2}));
        assertEquals(new Choice(ROWS, CUT, 1.1), choice(new double[] {1.1, 1.1}));
        assertEquals(new Choice(ROWS, CUT, 1.1), choice(new double[] {1.1, 2}, new double[] {1.3, 1.01}));
        assertEquals(new Choice(ROWS, Tuning.NONE, 1), choice(new double[] {1.03, 0.9}));
        assertEquals(new Choice(ROWS, Tuning.NONE, 1), choice(new double[] {2, 0.5}, new double[] {0.5, 2}));
    }

    @Test
    void tunesASmallShape() throws IOException {
        Tuner tuner = new Tuner(device, 2);
        List<String> skipped = new ArrayList<>();
        tuner.measure(BenchCase.of(Op.BATCH_NORM, Layout.CHANNELS_LAST, "32x10"), skipped::add);
        tuner.measure(BenchCase.of(Op.RMS_NORM, Layout.CHANNELS_LAST, "32x10"), skipped::add);
        tuner.measure(BenchCase.of(Op.RMS_NORM, Layout.CHANNELS_LAST, "32x9"), skipped::add);
        assertEquals(List.of(), skipped);
        List<Choice> choices = tuner.choices();
        assertEquals(
                List.of(
                        "channels_last.forward.float.8x32",
                        "channels_last.forward_running.float.8x32",
                        "channels_last.backward.float.8x32",
                        "rows.forward.float.32x8",
                        "rows.backward.float.32x8"),
                choices.stream().map(choice -> choice.shapes().toString()).toList());
        for (Choice choice : choices) {
            assertEquals(choice.tuning().equals(Tuning.NONE), choice.gain() == 1, choice.toString());
            assertTrue(choice.gain() == 1 || choice.gain() > 1.03, choice.toString());
            assertNotEquals(true, choice.tuning().streams(), "it gains only where nobody reads the output");
        }
        TuningFile file = TuningFile.of(folder.resolve("new"), device);
        Tuner.keep(file, choices);
        Tuned kept = file.read();
        choices.forEach(choice -> assertEquals(choice.tuning(), kept.of(choice.shapes())));
        assertEquals(
                choices.stream().filter(choice -> choice.gain() > 1).count(),
                kept.classes().size());
    }

    @Test
    void keepsWhatItHasOfOtherClasses() throws IOException {
        TuningFile file = TuningFile.of(folder, device);
        Tuner.keep(file, List.of(new Choice(ROWS, CUT, 2), new Choice(MORE, CUT, 2)));
        Tuner.keep(file, List.of(new Choice(ROWS, OTHER, 2)));
        assertEquals(Map.of(ROWS, OTHER, MORE, CUT), file.read().classes());
        Tuner.keep(file, List.of(new Choice(ROWS, Tuning.NONE, 1)));
        assertEquals(Map.of(MORE, CUT), file.read().classes());
        assertEquals(List.of(file.path()), files());
    }

    @Test
    void writesAllOrNothing() throws IOException {
        TuningFile file = TuningFile.of(folder, device);
        Path inside = Files.createFile(Files.createDirectory(file.path()).resolve("inside"));
        IOException told = assertThrows(IOException.class, () -> Tuner.keep(file, List.of(new Choice(ROWS, CUT, 2))));
        assertTrue(told.getMessage().contains("can't be written: file=" + file.path()), told.getMessage());
        assertTrue(Files.exists(inside));
        assertEquals(List.of(file.path()), files());
    }

    private List<Path> files() throws IOException {
        try (Stream<Path> all = Files.list(folder)) {
            return all.toList();
        }
    }

    @Test
    void whatDoesNotFitIsSkipped() {
        device.budget(1);
        try {
            Tuner tuner = new Tuner(device, 1);
            List<String> skipped = new ArrayList<>();
            tuner.measure(BenchCase.of(Op.LAYER_NORM, Layout.CHANNELS_LAST, "64x1024"), skipped::add);
            assertEquals(1, skipped.size());
            assertTrue(skipped.get(0).startsWith("skipped layer_norm"), skipped.get(0));
            assertEquals(List.of(), tuner.choices());
        } finally {
            device.budget(device.limits().globalMemoryBytes());
        }
    }
}
