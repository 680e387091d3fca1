package io.normcl.exchange;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.normcl.BatchNorm;
import io.normcl.BatchNormSpec;
import io.normcl.GroupNorm;
import io.normcl.GroupNormSpec;
import io.normcl.Input;
import io.normcl.InstanceNorm;
import io.normcl.InstanceNormSpec;
import io.normcl.LayerNorm;
import io.normcl.LayerNormSpec;
import io.normcl.Mode;
import io.normcl.Rig;
import io.normcl.RmsNorm;
import io.normcl.RmsNormSpec;
import io.normcl.RowNorm;
import io.normcl.RunningVariance;
import io.normcl.Saved;
import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.exchange.Safetensors.Entry;
import io.normcl.tensor.Layout;
import io.normcl.tensor.Tensor;
import java.io.IOException;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** States from a layer on one device, through a file, into a layer on another. */
class LayerStateTest {
    private static final BatchNormSpec BATCH = BatchNormSpec.of(6);
    private static final InstanceNormSpec INSTANCE =
            InstanceNormSpec.of(6).withAffine(true, true).withRunningStatistics(true);

    @TempDir
    static Path folder;

    private static List<Device> devices;

    @BeforeAll
    static void open() {
        devices = Device.open(Rig.SELECTOR + ":2");
    }

    @AfterAll
    static void close() {
        devices.forEach(Device::close);
        assertEquals(0, Device.liveHandles());
    }

    private static void randomize(Random random, Buffer... buffers) {
        for (Buffer buffer : buffers) {
            if (buffer != null) {
                buffer.write(Rig.normal(random, (int) (buffer.bytes() / 4)));
            }
        }
    }

    private static Map<String, Entry> throughAFile(String name, Map<String, Entry> tensors) throws IOException {
        Path file = folder.resolve(name);
        Safetensors.write(file, tensors, Map.of());
        return Safetensors.read(file).tensors();
    }

    private static void assertSame(Buffer expected, Buffer got) {
        if (expected == null) {
            assertNull(got);
        } else {
            assertArrayEquals(Rig.read(expected), Rig.read(got));
        }
    }

    private static float[] infer(Rig rig, BatchNorm norm, float[] x) {
        Tensor y = rig.tensor(new float[x.length], Layout.CHANNELS_FIRST, 4, 6, 5);
        norm.infer(rig.tensor(x, Layout.CHANNELS_FIRST, 4, 6, 5), y);
        return Rig.read(y);
    }

    private static float[] infer(Rig rig, InstanceNorm norm, float[] x) {
        Tensor y = rig.tensor(new float[x.length], Layout.CHANNELS_FIRST, 4, 6, 5);
        norm.forward(Mode.EVALUATION, Input.of(rig.tensor(x, Layout.CHANNELS_FIRST, 4, 6, 5)), y)
                .close();
        return Rig.read(y);
    }

    @Test
    void batchAndInstanceNormsKeepTheirBits() throws IOException {
        Random random = new Random(6);
        float[] x = Rig.perChannel(random, 4, 6, 5, Layout.CHANNELS_FIRST);
        try (Rig one = new Rig(devices.get(0));
                Rig two = new Rig(devices.get(1));
                BatchNorm batch = BatchNorm.open(devices.get(0), BATCH);
                BatchNorm otherBatch = BatchNorm.open(devices.get(1), BATCH);
                InstanceNorm instance = InstanceNorm.open(devices.get(0), INSTANCE);
                InstanceNorm otherInstance = InstanceNorm.open(devices.get(1), INSTANCE)) {
            randomize(random, batch.gamma(), batch.beta(), instance.gamma(), instance.beta());
            Tensor in = one.tensor(x, Layout.CHANNELS_FIRST, 4, 6, 5);
            Tensor out = one.tensor(x, Layout.CHANNELS_FIRST, 4, 6, 5);
            for (int step = 0; step < 3; step++) {
                try (Saved ofBatch = batch.forward(in, out);
                        Saved ofInstance = instance.forward(in, out)) {
                    batch.commit(ofBatch);
                    instance.commit(ofInstance);
                }
            }
            instance.batchesTracked(8);
            Map<String, Entry> tensors = new LinkedHashMap<>();
            tensors.putAll(StateConvention.PYTORCH.write(BatchNormState.of(batch), "bn."));
            tensors.putAll(StateConvention.PYTORCH.write(BatchNormState.of(instance), "in."));
            Map<String, Entry> read = throughAFile("norms", tensors);
            StateConvention.PYTORCH.read(read, "bn.").writeTo(otherBatch);
            StateConvention.PYTORCH.read(read, "in.").writeTo(otherInstance);

            assertSame(batch.gamma(), otherBatch.gamma());
            assertSame(batch.beta(), otherBatch.beta());
            assertSame(batch.runningMean(), otherBatch.runningMean());
            assertSame(batch.runningVar(), otherBatch.runningVar());
            assertEquals(3, otherBatch.batchesTracked());
            assertArrayEquals(infer(one, batch, x), infer(two, otherBatch, x));
            assertSame(instance.gamma(), otherInstance.gamma());
            assertSame(instance.beta(), otherInstance.beta());
            assertSame(instance.runningMean(), otherInstance.runningMean());
            assertSame(instance.runningVar(), otherInstance.runningVar());
            assertEquals(8, otherInstance.batchesTracked());
            assertArrayEquals(infer(one, instance, x), infer(two, otherInstance, x));
        }
    }

    @Test
    void aLayerOfTheOtherVarianceSaysSo() throws IOException {
        BatchNormSpec biased = StateConvention.KERAS.spec(6);
        try (BatchNorm keras = BatchNorm.open(devices.get(0), biased);
                BatchNorm torch = BatchNorm.open(devices.get(1), BATCH)) {
            randomize(new Random(2), keras.gamma(), keras.beta(), keras.runningMean(), keras.runningVar());
            BatchNormState state = BatchNormState.of(keras);
            assertEquals(RunningVariance.BIASED, state.runningVariance());
            Map<String, Entry> read = throughAFile("keras", StateConvention.KERAS.write(state, "bn/"));
            BatchNormState theirs = StateConvention.KERAS.read(read, "bn/");
            refused("wanted=UNBIASED, state=BIASED", () -> theirs.writeTo(torch));
            assertArrayEquals(new float[6], Rig.read(torch.beta()));
            theirs.keptAs(RunningVariance.UNBIASED).writeTo(torch);
            assertSame(keras.runningVar(), torch.runningVar());
            refused(
                    "wanted=BIASED, state=UNBIASED",
                    () -> BatchNormState.of(torch).writeTo(keras));
        }
    }

    @Test
    void rowNormsKeepTheirBits() throws IOException {
        for (boolean affine : new boolean[] {true, false}) {
            for (int kind = 0; kind < 4; kind++) {
                try (RowNorm norm = rowNorm(kind, devices.get(0), affine);
                        RowNorm other = rowNorm(kind, devices.get(1), affine)) {
                    randomize(new Random(kind), norm.gamma(), norm.beta());
                    AffineState state = AffineState.of(norm);
                    Map<String, Entry> tensors = state.write("n.weight", "n.bias");
                    assertEquals((norm.gamma() == null ? 0 : 1) + (norm.beta() == null ? 0 : 1), tensors.size());
                    if (!tensors.isEmpty()) {
                        Map<String, Entry> read = throughAFile("row" + kind, tensors);
                        state = AffineState.read(read, "n.weight", "n.bias");
                    }
                    state.writeTo(other);
                    assertSame(norm.gamma(), other.gamma());
                    assertSame(norm.beta(), other.beta());
                }
            }
        }
    }

    private static RowNorm rowNorm(int kind, Device device, boolean affine) {
        return switch (kind) {
            case 0 -> LayerNorm.open(device, LayerNormSpec.of(2, 3).withAffine(affine, true));
            case 1 -> RmsNorm.open(device, RmsNormSpec.of(3, 4).withGamma(affine));
            case 2 -> GroupNorm.open(device, GroupNormSpec.of(3, 6).withAffine(affine, affine));
            default -> InstanceNorm.open(device, InstanceNormSpec.of(5).withAffine(affine, affine));
        };
    }

    @Test
    void refusesWhatIsNotTheLayers() {
        float[] six = {1, 2, 3, 4, 5, 6};
        RunningVariance unbiased = RunningVariance.UNBIASED;
        try (BatchNorm batch = BatchNorm.open(devices.get(0), BATCH);
                BatchNorm plain = BatchNorm.open(
                        devices.get(0), BATCH.withAffine(true, false).withRunningStatistics(false));
                InstanceNorm instance = InstanceNorm.open(devices.get(0), INSTANCE);
                LayerNorm layer = LayerNorm.open(devices.get(0), LayerNormSpec.of(2, 3));
                RmsNorm rms = RmsNorm.open(devices.get(0), RmsNormSpec.of(2, 3))) {
            BatchNormState small =
                    new BatchNormState(new float[4], new float[4], new float[4], new float[4], unbiased, 1);
            refused("gamma=4 values, layer's=6 values, layer=batch norm of 6", () -> small.writeTo(batch));
            refused("gamma=4 values, layer's=6 values, layer=instance norm of 6", () -> small.writeTo(instance));
            BatchNormState full = new BatchNormState(six, six, six, six, unbiased, 1);
            refused("beta=6 values, layer's=missing", () -> full.writeTo(plain));
            refused(
                    "runningMean=missing, layer's=6 values",
                    () -> new BatchNormState(six, six, null, null, unbiased, 1).writeTo(batch));
            assertArrayEquals(new float[] {1, 1, 1, 1, 1, 1}, Rig.read(batch.gamma()));
            assertEquals(0, batch.batchesTracked());
            new BatchNormState(six, null, null, null, RunningVariance.BIASED, 0)
                    .writeTo(plain); // no variance to mistake
            assertArrayEquals(six, Rig.read(plain.gamma()));

            refused(
                    "shape=[6], layer's shape=[2, 3], layer=layer norm of 6",
                    () -> new AffineState(six, six, 6).writeTo(layer));
            refused("beta=missing, layer's=6 values", () -> new AffineState(six, null, 2, 3).writeTo(layer));
            refused("beta=6 values, layer's=missing", () -> new AffineState(six, six, 2, 3).writeTo(rms));
            assertArrayEquals(new float[] {1, 1, 1, 1, 1, 1}, Rig.read(rms.gamma()));
            refused("has a batch norm's state", () -> AffineState.of(instance));
            refused("has a batch norm's state", () -> new AffineState(six, six, 6).writeTo(instance));
        }
    }

    private static void refused(String contains, Runnable call) {
        String message = assertThrows(IllegalArgumentException.class, call::run).getMessage();
        assertTrue(message.contains(contains), message);
        assertEquals(1, message.lines().count());
    }
}
