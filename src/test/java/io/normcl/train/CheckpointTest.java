package io.normcl.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.normcl.device.Device;
import io.normcl.exchange.Safetensors;
import io.normcl.exchange.Safetensors.Entry;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Runs stopped and gone on with, and files that are not a checkpoint of the run. */
class CheckpointTest {
    @TempDir
    static Path folder;

    private static List<Device> devices;
    private static FashionMnist pictures;

    @BeforeAll
    static void open() {
        devices = Device.open("cpu:2");
        pictures = FashionMnist.read(TinyPictures.write(folder, 40, 10));
    }

    @AfterAll
    static void close() {
        devices.forEach(Device::close);
        assertEquals(0, Device.liveHandles());
    }

    /** Stops after a step, or never. */
    private static final class StopAt implements Watcher {
        private final long step;
        private long done;

        StopAt(long step) {
            this.step = step;
        }

        @Override
        public void trained(String run, long at, long steps, double loss) {
            done = at;
        }

        @Override
        public void judged(String run, long at, Trainer.Score score) {}

        @Override
        public boolean stopped() {
            return done == step;
        }
    }

    private static Trainer trainer(Norm norm) {
        return new Trainer(devices, Settings.of(norm, 2, 4, 40, 1)); // 5 steps an epoch
    }

    private static boolean run(Trainer trainer, Path file, long stopAt) throws IOException {
        return Training.run(trainer, pictures, 2, file, new StopAt(stopAt));
    }

    @ParameterizedTest
    @EnumSource(Norm.class)
    void resumesToTheSameBits(Norm norm) throws IOException {
        Path whole = folder.resolve(norm + "-whole");
        Path parts = folder.resolve(norm + "-parts");
        try (Trainer trainer = trainer(norm)) {
            assertTrue(run(trainer, whole, -1));
        }
        try (Trainer trainer = trainer(norm)) {
            assertFalse(run(trainer, parts, 3));
            assertEquals(3, trainer.step());
        }
        for (long stop : new long[] {7, -1}) {
            Checkpoint checkpoint = Checkpoint.read(parts);
            try (Trainer trainer = new Trainer(devices, checkpoint.settings())) {
                checkpoint.restore(trainer);
                assertEquals(stop < 0, run(trainer, parts, stop));
            }
        }
        assertArrayEquals(Files.readAllBytes(whole), Files.readAllBytes(parts));
    }

    @ParameterizedTest
    @EnumSource(Norm.class)
    void hasPyTorchsNames(Norm norm) throws IOException {
        Path file = folder.resolve(norm + "-names");
        try (Trainer trainer = trainer(norm)) {
            trainer.learn(pictures.train(), trainer.batch());
            Checkpoint.of(trainer).write(file);
        }
        Map<String, Entry> tensors = Safetensors.read(file).tensors();
        TreeSet<String> names = new TreeSet<>(tensors.keySet());
        names.removeIf(name -> name.startsWith("momentum.") || name.startsWith("replica1."));
        TreeSet<String> expected = new TreeSet<>(List.of("0.weight", "4.weight", "9.weight", "12.weight", "12.bias"));
        for (String norms : List.of("1", "5", "10")) {
            Stream.of("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
                    .forEach(name -> expected.add(norms + "." + name));
        }
        assertEquals(expected, names);
        assertEquals(norm == Norm.LOCAL, tensors.containsKey("replica1.5.running_var"));
        assertEquals("F32[16, 1, 3, 3]", tensors.get("0.weight").toString());
        assertEquals("F32[16, 16, 3, 3]", tensors.get("momentum.4.weight").toString());
        assertEquals("F32[64, 784]", tensors.get("9.weight").toString());
        assertEquals("I64[]", tensors.get("5.num_batches_tracked").toString());
        assertEquals(1, tensors.get("5.num_batches_tracked").longs()[0]);
    }

    @Test
    void refusals() throws IOException {
        Path file = folder.resolve("refused");
        try (Trainer trainer = trainer(Norm.SYNC)) {
            trainer.learn(pictures.train(), trainer.batch());
            Checkpoint.of(trainer).write(file);
            byte[] bytes = Files.readAllBytes(file);
            Files.write(file, Arrays.copyOf(bytes, bytes.length - 5));
            refused("a whole safetensors file", () -> Checkpoint.read(file));
            refused("no such file", () -> Checkpoint.read(folder.resolve("nowhere")));
            Files.write(file, bytes);

            Safetensors read = Safetensors.read(file);
            Map<String, Entry> tensors = new HashMap<>(read.tensors());
            Map<String, String> metadata = new HashMap<>(read.metadata());
            Safetensors.write(file, Map.of("weight", Entry.of(new float[1], 1)), Map.of());
            refused("of this network: checkpoint=" + file + ", network=unknown", () -> Checkpoint.read(file));
            metadata.put("network", "fashion-mnist 1-2-3");
            Safetensors.write(file, tensors, metadata);
            refused("network=fashion-mnist 1-2-3", () -> Checkpoint.read(file));

            metadata.put("network", Network.NAME);
            metadata.put("seed", "many");
            Safetensors.write(file, tensors, metadata);
            refused("name its settings", () -> Checkpoint.read(file).settings());
            metadata.put("seed", "2");
            metadata.put("norm", "local");
            tensors.remove("5.running_var");
            tensors.put("9.weight", Entry.of(new float[6], 2, 3));
            Safetensors.write(file, tensors, metadata);
            State before = trainer.state();
            refused(
                    "norm=local in the checkpoint, sync asked",
                    () -> Checkpoint.read(file).restore(trainer));
            refused(
                    "seed=2 in the checkpoint, 1 asked",
                    () -> Checkpoint.read(file).restore(trainer));
            refused("5.running_var=missing", () -> Checkpoint.read(file).restore(trainer));
            refused(
                    "9.weight=F32[2, 3] in the checkpoint",
                    () -> Checkpoint.read(file).restore(trainer));
            State after = trainer.state();
            before.tensors()
                    .forEach((name, values) ->
                            assertArrayEquals(values, after.tensors().get(name)));
        }
    }

    @FunctionalInterface
    private interface Call {
        void run() throws IOException;
    }

    private static void refused(String rule, Call call) {
        String message = assertThrows(IllegalArgumentException.class, call::run).getMessage();
        assertTrue(message.contains(rule), message);
        assertEquals(1, message.lines().count());
    }
}
