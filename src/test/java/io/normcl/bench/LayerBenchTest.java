package io.normcl.bench;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.normcl.Rig;
import io.normcl.TuningFile;
import io.normcl.bench.BenchCase.Op;
import io.normcl.bench.BenchCase.Pass;
import io.normcl.device.Device;
import io.normcl.device.KernelTime;
import io.normcl.plan.Family;
import io.normcl.plan.KernelCall;
import io.normcl.plan.Plan;
import io.normcl.plan.ShapeClass;
import io.normcl.plan.Tuning;
import io.normcl.tensor.Activation;
import io.normcl.tensor.DataType;
import io.normcl.tensor.Layout;
import java.io.IOException;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** Measuring on the device: figures are there and add up, and the plans are those of what runs. */
class LayerBenchTest {
    private static Device device;

    private final List<LayerBench.Row> rows = new ArrayList<>();
    private final List<String> skipped = new ArrayList<>();

    @BeforeAll
    static void open() {
        device = Rig.open();
    }

    @AfterAll
    static void close() {
        device.close();
        assertEquals(0, Device.liveHandles());
    }

    @AfterEach
    void budgetAsBefore() {
        device.budget(device.limits().globalMemoryBytes());
    }

    private void run(BenchCase timed, Tuning tuning, boolean cached, Pass... passes) {
        LayerBench.run(
                device,
                List.of(timed),
                new LayerBench.Settings(List.of(passes), 2, cached, tuning),
                rows::add,
                skipped::add);
    }

    @Test
    void measuresEveryPass() {
        BenchCase timed = BenchCase.of(Op.BATCH_NORM, Layout.CHANNELS_FIRST, "2x8x5x7")
                .withFused(Activation.RELU, true)
                .withType(DataType.BFLOAT16);
        run(timed, Tuning.of(Family.COOPERATIVE), false, Pass.values());
        assertEquals(List.of(), skipped);
        assertEquals(
                List.of(Pass.values()), rows.stream().map(LayerBench.Row::pass).toList());
        for (LayerBench.Row row : rows) {
            assertEquals(Family.COOPERATIVE, row.family());
            assertTrue(
                    row.millis().min() > 0 && row.millis().min() <= row.millis().median(), row.toString());
            assertEquals(row.cells()[9], row.bytes() / row.millis().median() / 1e6);
        }
        // x and z are read and y is written; dy too, dx and dz are written, each of 560 values of 2 bytes
        assertEquals(3 * 1120, rows.get(1).bytes());
        assertEquals(5 * 1120, rows.get(2).bytes());
    }

    @Test
    void takesWhatTuneHasKept() throws IOException {
        BenchCase timed = BenchCase.of(Op.RMS_NORM, Layout.CHANNELS_LAST, "32x10");
        TuningFile file = TuningFile.of(device);
        Tuning found = Tuning.of(device.limits().cpu() ? Family.COOPERATIVE : Family.WIDE);
        try {
            Tuner.keep(file, List.of(new Tuner.Choice(ShapeClass.parse("rows.forward.float.32x8"), found, 2)));
            run(timed, null, true, Pass.FORWARD_TRAINING);
            run(timed, Tuning.NONE, true, Pass.FORWARD_TRAINING);
        } finally {
            Files.deleteIfExists(file.path());
        }
        assertEquals(found.family(), rows.get(0).family());
        assertNotEquals(found.family(), rows.get(1).family());
    }

    @Test
    void plansAreThoseOfWhatRuns() {
        for (Op op : Op.values()) {
            for (Layout layout : Layout.values()) {
                BenchCase timed = BenchCase.of(op, layout, "3x64x5x7");
                try (BenchLayer layer = BenchLayer.open(device, timed, Tuning.NONE);
                        TensorSets sets = TensorSets.allocate(device, timed, 1)) {
                    layer.prepare(sets.get(0));
                    for (Pass pass : Pass.values()) {
                        Plan plan = layer.plan(pass, sets.get(0));
                        List<KernelTime> ran = device.profile(() -> layer.enqueue(pass, sets.get(0)));
                        assertEquals(
                                plan.calls().stream().map(KernelCall::kernel).toList(),
                                ran.stream().map(KernelTime::kernel).toList(),
                                timed + " " + pass);
                        assertEquals(
                                plan.calls().stream().map(KernelCall::range).toList(),
                                ran.stream().map(KernelTime::range).toList());
                        assertTrue(plan.bytes() >= 2 * timed.tensorBytes(), timed + " " + pass);
                    }
                }
            }
        }
    }

    @Test
    void whatDoesNotFitIsSkipped() {
        BenchCase timed = BenchCase.of(Op.LAYER_NORM, Layout.CHANNELS_LAST, "64x1024");
        device.budget(timed.tensorBytes());
        run(timed, Tuning.NONE, true, Pass.BACKWARD);
        assertEquals(List.of(), rows);
        assertEquals(1, skipped.size());
        assertTrue(
                skipped.get(0).startsWith("skipped layer_norm channels_last float 64x1024: out of device memory"),
                skipped.get(0));
        assertEquals(1, skipped.get(0).lines().count());
        device.budget(device.limits().globalMemoryBytes());
        run(timed, Tuning.NONE, true, Pass.BACKWARD);
        assertEquals(1, rows.size());
    }

    @Test
    void typesAreMeasuredByTurnsAndWhatDoesNotFitBesideIsSkipped() {
        BenchCase timed = BenchCase.of(Op.LAYER_NORM, Layout.CHANNELS_LAST, "64x1024");
        BenchCase half = timed.withType(DataType.HALF);
        LayerBench.Settings settings =
                new LayerBench.Settings(List.of(Pass.FORWARD_TRAINING, Pass.BACKWARD), 2, true, Tuning.NONE);
        LayerBench.run(device, List.of(timed, half), settings, rows::add, skipped::add);
        assertEquals(
                List.of(timed, timed, half, half),
                rows.stream().map(LayerBench.Row::timed).toList());
        assertEquals(rows.get(0).bytes(), 2 * rows.get(2).bytes());
        device.budget(5 * timed.tensorBytes());
        LayerBench.run(device, List.of(timed, half), settings, rows::add, skipped::add);
        assertEquals(6, rows.size());
        assertEquals(1, skipped.size());
        assertTrue(skipped.get(0).startsWith("skipped layer_norm channels_last half 64x1024"), skipped.get(0));
    }

    @Test
    void measuresSynchronization() {
        BenchCase timed = BenchCase.of(Op.BATCH_NORM, Layout.CHANNELS_LAST, "4x6x3x3");
        LayerBench.Settings settings = new LayerBench.Settings(List.of(), 2, true, Tuning.NONE);
        List<SyncBench.Row> found = new ArrayList<>();
        List<Device> parts = Device.open(Rig.SELECTOR + ":4");
        try {
            SyncBench.run(parts, timed, settings, found::add, skipped::add);
            SyncBench.run(parts.subList(0, 3), timed, settings, found::add, skipped::add);
        } finally {
            parts.forEach(Device::close);
        }
        assertEquals(1, found.size());
        assertEquals(4, found.get(0).devices());
        assertEquals("1x6x3x3", found.get(0).shard().shapeName());
        assertTrue(found.get(0).share() < 1);
        assertEquals(1, skipped.size());
        assertTrue(skipped.get(0).contains("evenly"), skipped.get(0));
    }
}
