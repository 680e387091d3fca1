package io.normcl.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.device.DeviceException;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Steps over several devices: that they learn, repeat, agree with one device's, and refuse what can't be. */
class TrainerTest {
    private static final int BATCH = 16;

    @TempDir
    static Path folder;

    private static List<Device> devices;
    private static FashionMnist pictures;

    @BeforeAll
    static void open() {
        devices = Device.open("cpu:2");
        pictures = FashionMnist.read(TinyPictures.write(folder, 200, 60));
    }

    @AfterAll
    static void close() {
        devices.forEach(Device::close);
        assertEquals(0, Device.liveHandles());
    }

    private static Trainer trainer(Norm norm, int count, long seed) {
        return new Trainer(devices.subList(0, count), Settings.of(norm, count, BATCH / count, 200, seed));
    }

    private static double learn(Trainer trainer, int steps) {
        double loss = 0;
        for (int i = 0; i < steps; i++) {
            loss = trainer.learn(pictures.train(), trainer.batch()).loss();
        }
        return loss;
    }

    private static void assertSameBits(State expected, State found) {
        assertEquals(expected.tensors().keySet(), found.tensors().keySet());
        expected.tensors()
                .forEach((name, values) ->
                        assertArrayEquals(bits(values), bits(found.tensors().get(name)), name));
    }

    private static int[] bits(float[] values) {
        int[] bits = new int[values.length];
        Arrays.setAll(bits, i -> Float.floatToRawIntBits(values[i]));
        return bits;
    }

    private static double relative(float[] expected, float[] found) {
        double difference = 0;
        double length = 0;
        for (int i = 0; i < expected.length; i++) {
            difference += Math.pow((double) found[i] - expected[i], 2);
            length += Math.pow(expected[i], 2);
        }
        return Math.sqrt(difference / length);
    }

    @Test
    void learns() {
        try (Trainer trainer = trainer(Norm.SYNC, 2, 1)) {
            double before = learn(trainer, 1);
            double after = learn(trainer, 39);
            assertTrue(after < 0.5 * before, before + " -> " + after);
            Trainer.Score score = trainer.evaluate(pictures.test(), 60);
            assertTrue(score.accuracy() > 0.9, score.toString());
        }
    }

    @ParameterizedTest
    @EnumSource(Norm.class)
    void repeatsItsBits(Norm norm) {
        try (Trainer first = trainer(norm, 2, 5);
                Trainer second = trainer(norm, 2, 5);
                Trainer other = trainer(norm, 2, 6)) {
            assertNotEquals(Arrays.toString(first.batch()), Arrays.toString(other.batch()));
            learn(first, 8);
            learn(second, 8);
            assertSameBits(first.state(), second.state());
            learn(other, 8);
            float[] otherWeight = other.state().tensors().get("0.weight");
            assertFalse(Arrays.equals(first.state().tensors().get("0.weight"), otherWeight));
        }
    }

    @ParameterizedTest
    @EnumSource(Norm.class)
    void replicasKeepTheSameBits(Norm norm) {
        try (Trainer trainer = trainer(norm, 2, 5)) {
            learn(trainer, 5);
            Network a = trainer.networks.get(0);
            Network b = trainer.networks.get(1);
            for (int p = 0; p < a.parameters.size(); p++) {
                assertSameBits(a.parameters.get(p).value(), b.parameters.get(p).value());
            }
            assertSameBits(a.velocity, b.velocity);
            if (norm == Norm.SYNC) {
                for (int i = 0; i < a.norms.size(); i++) {
                    assertSameBits(a.norms.get(i).runningMean(), b.norms.get(i).runningMean());
                    assertSameBits(a.norms.get(i).runningVar(), b.norms.get(i).runningVar());
                }
            }
        }
    }

    private static void assertSameBits(Buffer expected, Buffer found) {
        float[] a = new float[(int) (expected.bytes() / Float.BYTES)];
        float[] b = new float[a.length];
        expected.read(a);
        found.read(b);
        assertArrayEquals(bits(a), bits(b));
    }

    @Test
    void aSynchronizedStepIsTheOneDevicesHoweverItIsShared() {
        try (Trainer one = trainer(Norm.LOCAL, 1, 3);
                Trainer two = trainer(Norm.SYNC, 2, 3)) {
            learn(one, 3);
            for (int samples : new int[] {BATCH, BATCH - 3, BATCH / 2}) { // even, uneven, the second shard empty
                State state = one.state();
                two.state(state);
                int[] batch = Arrays.copyOf(one.batch(), samples);
                double expected = one.differentiate(pictures.train(), batch).loss();
                assertEquals(
                        expected, two.differentiate(pictures.train(), batch).loss(), 1e-6);
                assertTrue(relative(one.logits(), two.logits()) < 1e-5);
                Map<String, float[]> gradients = two.gradients();
                one.gradients()
                        .forEach((name, values) -> assertTrue(relative(values, gradients.get(name)) < 1e-5, name));
                State after = two.state();
                one.state()
                        .tensors()
                        .forEach((name, values) -> assertTrue(
                                name.startsWith("momentum")
                                        || relative(values, after.tensors().get(name)) < 1e-5,
                                name));
            }
        }
    }

    @Test
    void gradientsAreTheLossesDifferences() {
        try (Trainer trainer = trainer(Norm.SYNC, 2, 3)) {
            learn(trainer, 2);
            int[] batch = trainer.batch();
            State state = trainer.state();
            trainer.differentiate(pictures.train(), batch);
            Map<String, float[]> gradients = trainer.gradients();
            for (String name : List.of("0.weight", "1.weight", "5.bias", "9.weight", "12.weight", "12.bias")) {
                float[] values = state.tensors().get(name);
                float[] gradient = gradients.get(name);
                int steepest = 0;
                for (int i = 0; i < gradient.length; i++) {
                    steepest = Math.abs(gradient[i]) > Math.abs(gradient[steepest]) ? i : steepest;
                }
                float value = values[steepest];
                double[] losses = new double[2];
                for (int side = 0; side < 2; side++) {
                    values[steepest] = value + (side == 0 ? -2e-3f : 2e-3f);
                    trainer.state(state);
                    losses[side] =
                            trainer.differentiate(pictures.train(), batch).loss();
                }
                values[steepest] = value;
                double expected = (losses[1] - losses[0]) / 4e-3;
                assertEquals(expected, gradient[steepest], 0.03 * Math.abs(expected) + 1e-4, name);
            }
        }
    }

    @Test
    void weightDecayLeavesGammaBetaAndBiasAlone() {
        Settings settings = new Settings(Norm.LOCAL, 1, 8, 200, 1, 0, 0.9f, 0.5f);
        try (Trainer trainer = new Trainer(devices.subList(0, 1), settings)) {
            trainer.learn(pictures.train(), trainer.batch());
            Map<String, float[]> gradients = trainer.gradients();
            Map<String, float[]> state = trainer.state().tensors();
            gradients.forEach((name, gradient) -> {
                boolean decays = name.matches("(0|4|9|12).weight");
                float[] velocity = state.get("momentum." + name);
                for (int i = 0; i < gradient.length; i++) {
                    float decay = decays ? 0.5f * state.get(name)[i] : 0;
                    assertEquals(gradient[i] + decay, velocity[i], 1e-6f, name);
                }
            });
        }
    }

    @Test
    void refusals() {
        refused("as many devices", () -> new Trainer(devices, Settings.of(Norm.SYNC, 3, 2, 200, 1)));
        refused("one whole batch", () -> Settings.of(Norm.SYNC, 2, 8, 15, 1));
        refused("samples on each", () -> Settings.of(Norm.SYNC, 2, 0, 15, 1));
        refused("more samples", () -> Settings.of(Norm.SYNC, 2, 8, 201, 1).requireSamplesOf(pictures));
        try (Trainer trainer = trainer(Norm.SYNC, 2, 1)) {
            refused("from 1 to 16", () -> trainer.learn(pictures.train(), new int[17]));
            refused("of this network", () -> trainer.state(new State(0, Map.of())));
        }
        try (Trainer trainer = new Trainer(devices, Settings.of(Norm.LOCAL, 2, 1, 200, 1))) {
            refused("more than one value per channel", () -> trainer.learn(pictures.train(), trainer.batch()));
        }
    }

    @ParameterizedTest
    @EnumSource(Norm.class)
    void stepsAllocateNothingOnTheDevices(Norm norm) {
        List<Device> own = Device.open("cpu:2");
        try (Trainer trainer = new Trainer(own, Settings.of(norm, 2, BATCH / 2, 200, 1))) {
            learn(trainer, 1);
            own.forEach(device -> device.budget(0));
            int handles = Device.liveHandles();
            learn(trainer, 3);
            assertEquals(handles, Device.liveHandles());
        } finally {
            own.forEach(Device::close);
        }
    }

    private static void refused(String rule, Runnable call) {
        String message = assertThrows(IllegalArgumentException.class, call::run).getMessage();
        assertTrue(message.contains(rule), message);
    }

    @Test
    void outOfDeviceMemoryReleasesWhatItHad() {
        Device device = Device.open("cpu").get(0);
        int handles = Device.liveHandles();
        device.budget(2_000_000);
        Settings settings = Settings.of(Norm.LOCAL, 1, 8, 200, 1);
        String message = assertThrows(DeviceException.class, () -> new Trainer(List.of(device), settings))
                .getMessage();
        assertTrue(message.contains("out of device memory") && message.contains("asked="), message);
        assertEquals(handles, Device.liveHandles());
        device.close();
    }
}
