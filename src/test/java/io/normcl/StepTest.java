package io.normcl;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.sun.management.ThreadMXBean;
import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.device.DeviceException;
import io.normcl.plan.Family;
import io.normcl.plan.Tuning;
import io.normcl.tensor.Layout;
import io.normcl.tensor.Tensor;
import java.lang.management.ManagementFactory;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** A step after the first allocates nothing on the device, and little on the heap. */
class StepTest {
    private static final int CHANNELS = 8;
    private static final int STEPS = 5;

    private static Device device;

    @BeforeAll
    static void open() {
        device = Rig.open();
    }

    @AfterAll
    static void close() {
        device.close();
        assertEquals(0, Device.liveHandles());
    }

    /** A layer's tensors, and a step with them. */
    private record Step(NormLayer layer, Tensor x, Tensor y, Tensor dy, Gradients out) {
        static Step of(NormLayer layer, Rig rig, Layout layout) {
            Tensor[] tensors = new Tensor[4];
            for (int i = 0; i < tensors.length; i++) {
                float[] values = Rig.normal(new Random(i), 2 * 3 * 3 * CHANNELS);
                tensors[i] = layout == Layout.CHANNELS_LAST
                        ? rig.tensor(values, layout, 2, 3, 3, CHANNELS)
                        : rig.tensor(values, layout, 2, CHANNELS, 3, 3);
            }
            Buffer dGamma = rig.floats(CHANNELS);
            Buffer dBeta = layer.beta() == null ? null : rig.floats(CHANNELS);
            return new Step(layer, tensors[0], tensors[1], tensors[2], Gradients.of(tensors[3], dGamma, dBeta));
        }

        void run() {
            if (layer instanceof BatchNorm norm) {
                try (Saved saved = norm.forward(x, y)) {
                    norm.backward(saved, x, dy, out);
                    norm.commit(saved);
                }
                norm.infer(x, y);
            } else if (layer instanceof RowNorm norm) {
                try (Saved saved = norm.forward(x, y)) {
                    norm.backward(saved, x, dy, out);
                }
            }
        }
    }

    private static List<NormLayer> layers() {
        return List.of(
                BatchNorm.open(device, BatchNormSpec.of(CHANNELS)),
                BatchNorm.open(
                        device,
                        BatchNormSpec.of(CHANNELS),
                        Tuning.NONE.withFamily(Family.COOPERATIVE).withFused(false)),
                LayerNorm.open(device, LayerNormSpec.of(CHANNELS)),
                RmsNorm.open(device, RmsNormSpec.of(CHANNELS)),
                GroupNorm.open(device, GroupNormSpec.of(2, CHANNELS)),
                InstanceNorm.open(device, InstanceNormSpec.of(CHANNELS)));
    }

    @ParameterizedTest
    @MethodSource("layers")
    void stepsAllocateNothingOnTheDevice(NormLayer layer) {
        try (layer;
                Rig rig = new Rig(device)) {
            List<Step> steps = layer instanceof LayerNorm || layer instanceof RmsNorm
                    ? List.of(Step.of(layer, rig, Layout.CHANNELS_LAST))
                    : List.of(Step.of(layer, rig, Layout.CHANNELS_LAST), Step.of(layer, rig, Layout.CHANNELS_FIRST));
            steps.forEach(Step::run);
            device.finish();
            int handles = Device.liveHandles();
            device.budget(0); // from now on any allocation throws
            for (int i = 0; i < STEPS; i++) {
                steps.forEach(Step::run);
            }
            device.finish();
            assertEquals(handles, Device.liveHandles());
            assertThrows(DeviceException.class, () -> device.allocate(4));
        } finally {
            device.budget(device.limits().globalMemoryBytes());
        }
    }

    @Test
    void synchronizedStepsAllocateNothingOnTheDevices() {
        List<Device> parts = Device.open(Rig.SELECTOR + ":2");
        try (BatchNorm first = BatchNorm.open(parts.get(0), BatchNormSpec.of(CHANNELS));
                BatchNorm second = BatchNorm.open(parts.get(1), BatchNormSpec.of(CHANNELS));
                Rig one = new Rig(parts.get(0));
                Rig two = new Rig(parts.get(1))) {
            Replicas replicas = Replicas.of(List.of(first, second));
            List<Step> steps =
                    List.of(Step.of(first, one, Layout.CHANNELS_FIRST), Step.of(second, two, Layout.CHANNELS_FIRST));
            synchronizedStep(replicas, steps);
            int handles = Device.liveHandles();
            parts.forEach(part -> part.budget(0));
            for (int i = 0; i < STEPS; i++) {
                synchronizedStep(replicas, steps);
            }
            assertEquals(handles, Device.liveHandles());
        } finally {
            parts.forEach(Device::close);
        }
    }

    private static void synchronizedStep(Replicas replicas, List<Step> steps) {
        List<Input> xs = steps.stream().map(step -> Input.of(step.x())).toList();
        List<Saved> saved = replicas.forward(xs, steps.stream().map(Step::y).toList());
        replicas.backward(
                saved,
                xs,
                steps.stream().map(Step::dy).toList(),
                steps.stream().map(Step::out).toList());
        for (int i = 0; i < saved.size(); i++) {
            ((BatchNorm) steps.get(i).layer()).commit(saved.get(i));
        }
        saved.forEach(Saved::close);
        steps.forEach(step -> step.layer().device().finish());
    }

    /** scripts/bench --host says how little once it is compiled; before, no more than 4 KiB a call. */
    @ParameterizedTest
    @MethodSource("layers")
    void stepsLeaveLittleOnTheHeap(NormLayer layer) {
        ThreadMXBean threads = (ThreadMXBean) ManagementFactory.getThreadMXBean();
        try (layer;
                Rig rig = new Rig(device)) {
            Step step = Step.of(layer, rig, Layout.CHANNELS_LAST);
            step.run();
            device.finish();
            long before = threads.getCurrentThreadAllocatedBytes();
            for (int i = 0; i < STEPS; i++) {
                step.run();
            }
            int calls = STEPS * (layer instanceof BatchNorm ? 4 : 2);
            long bytes = (threads.getCurrentThreadAllocatedBytes() - before) / calls;
            assertTrue(bytes < 4096, "bytes a call=" + bytes + ", layer=" + layer);
            device.finish();
        }
    }
}
