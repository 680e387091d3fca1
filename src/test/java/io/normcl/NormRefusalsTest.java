package io.normcl;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.tensor.Activation;
import io.normcl.tensor.DataType;
import io.normcl.tensor.Layout;
import io.normcl.tensor.Lengths;
import io.normcl.tensor.Tensor;
import java.util.Random;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;

/** What layers refuse, in one line that says what was given; and parameters that the caller holds. */
class NormRefusalsTest {
    private static final Layout FIRST = Layout.CHANNELS_FIRST;
    private static Device device;
    private static Device other;
    private Rig rig;

    @BeforeAll
    static void open() {
        device = Rig.open();
        other = Rig.open();
    }

    @AfterAll
    static void close() {
        device.close();
        other.close();
        assertEquals(0, Device.liveHandles());
    }

    @BeforeEach
    void start() {
        rig = new Rig(device);
    }

    @AfterEach
    void end() {
        rig.close();
    }

    private Tensor tensor(long... shape) {
        return tensor(DataType.FLOAT, shape);
    }

    private Tensor tensor(DataType type, long... shape) {
        long elements = 1;
        for (long size : shape) {
            elements *= size;
        }
        return Stored.tensor(rig, type, Rig.normal(new Random(1), (int) elements), FIRST, shape);
    }

    /** One line with these parts. */
    private static void refused(Class<? extends RuntimeException> type, Executable call, String... parts) {
        String message = assertThrows(type, call).getMessage();
        for (String part : parts) {
            assertTrue(message.contains(part), () -> message + " should say " + part);
        }
        assertEquals(1, message.lines().count(), message);
    }

    private static void refused(Executable call, String... parts) {
        refused(IllegalArgumentException.class, call, parts);
    }

    // Specs.

    @Test
    void specs() {
        refused(() -> LayerNormSpec.of(), "a normalized shape needs", "shape=[]");
        refused(() -> LayerNormSpec.of(3, 0), "shape=[3, 0]");
        refused(() -> RmsNormSpec.of(-1), "shape=[-1]");
        refused(() -> LayerNormSpec.of(3).withEps(-1), "eps must be finite", "eps=-1");
        refused(() -> RmsNormSpec.of(3).withEps(Double.NaN), "eps=NaN");
        refused(() -> GroupNormSpec.of(4, 6), "groups must divide", "channels=6, groups=4");
        refused(() -> GroupNormSpec.of(0, 6), "groups=0");
        refused(() -> InstanceNormSpec.of(0), "channels=0");
        refused(() -> RmsNormSpec.of(3).withGamma(false).withOnePlusGamma(true), "1 + gamma needs a gamma");
        refused(() -> new Activation(Activation.Kind.RELU, 1), "a slope must be finite", "kind=RELU, slope=1.0");
        refused(() -> Activation.leakyRelu(Double.NaN), "slope=NaN");
        refused(() -> Lengths.of(device, 3, -1), "a length must not be negative", "sample=1, length=-1");
        refused(() -> Gradients.of(null, null, null).withDz(tensor(2, 3)), "dz is written together with dx", "dx=null");
    }

    // Shapes.

    @Test
    void shapes() {
        try (LayerNorm layer = LayerNorm.open(device, LayerNormSpec.of(3, 4));
                GroupNorm group = GroupNorm.open(device, GroupNormSpec.of(3, 6));
                InstanceNorm instance = InstanceNorm.open(device, InstanceNormSpec.of(6))) {
            Tensor x = tensor(2, 4, 3);
            refused(() -> layer.forward(x, x), "trailing dimensions", "x=[2, 4, 3]", "layer's shape=[3, 4]");
            refused(() -> layer.forward(tensor(4), tensor(4)), "x=[4]");
            refused(() -> group.forward(tensor(2, 5, 3), tensor(2, 5, 3)), "channels", "C=5, layer's C=6");
            refused(() -> instance.forward(tensor(2, 5, 3), tensor(2, 5, 3)), "C=5, layer's C=6");
            refused(() -> group.forward(tensor(6), tensor(6)), "(N, C)", "dimensions=1");
            refused(
                    () -> layer.forward(tensor(2, 3, 4), tensor(3, 3, 4)),
                    "x and y must have one shape",
                    "y=[3, 3, 4]");
            refused(
                    () -> layer.forward(tensor(2, 3, 4), tensor(DataType.HALF, 2, 3, 4)),
                    "x and y must have one shape, layout, type and device",
                    "HALF");
        }
    }

    @Test
    void oneValue() {
        try (GroupNorm group = GroupNorm.open(device, GroupNormSpec.of(6, 6));
                InstanceNorm instance =
                        InstanceNorm.open(device, InstanceNormSpec.of(6).withRunningStatistics(true))) {
            Tensor one = tensor(1, 6, 1);
            refused(() -> group.forward(one, one), "more than one value per group", "x=[1, 6, 1]", "groups=6");
            group.forward(tensor(2, 6, 1), tensor(2, 6, 1)).close();
            refused(() -> instance.forward(one, one), "more than one value per instance", "x=[1, 6, 1]");
            instance.forward(Mode.EVALUATION, Input.of(one), tensor(1, 6, 1)).close();
        }
    }

    // What is fused.

    @Test
    void fusedInputs() {
        Tensor x = tensor(2, 6, 5);
        try (GroupNorm group = GroupNorm.open(device, GroupNormSpec.of(3, 6));
                GroupNorm places = GroupNorm.open(device, GroupNormSpec.of(3, 6).withPerLocation(true));
                BatchNorm batch = BatchNorm.open(device, BatchNormSpec.of(6));
                LayerNorm layer = LayerNorm.open(device, LayerNormSpec.of(5));
                Lengths lengths = Lengths.of(device, 5, 2);
                Lengths three = Lengths.of(device, 5, 2, 1);
                Lengths longer = Lengths.of(device, 6, 2);
                Lengths elsewhere = Lengths.of(other, 5, 2)) {
            Input in = Input.of(x);
            Tensor y = tensor(2, 6, 5);
            refused(() -> group.forward(in.withAddend(x, y), y), "an addend comes with a sum, for layer and RMS norm");
            refused(() -> batch.forward(Mode.TRAINING, in.withAddend(x, y), y), "an addend comes with a sum");
            refused(() -> layer.forward(new Input(x, null, x, null, null), y), "sum=null");
            refused(() -> layer.forward(new Input(x, null, null, x, null), y), "addend=null");
            refused(() -> layer.forward(in.withAddend(tensor(2, 5, 6), y), y), "x and addend must", "[2, 5, 6]");
            refused(() -> layer.forward(in.withResidual(tensor(DataType.BFLOAT16, 2, 6, 5)), y), "x and z must");
            refused(() -> layer.forward(in.withLengths(lengths), y), "lengths are for batch, group and instance norm");
            refused(() -> group.forward(in.withLengths(three), y), "one for each sample", "samples=3");
            refused(() -> group.forward(in.withLengths(longer), y), "longest=6", "x=[2, 6, 5]");
            refused(() -> batch.forward(Mode.TRAINING, in.withLengths(elsewhere), y), "on the layer's device");
            refused(
                    () -> batch.forward(Mode.TRAINING, Input.of(tensor(2, 6)).withLengths(lengths), tensor(2, 6)),
                    "x=[2, 6]");
            refused(() -> places.forward(in.withLengths(lengths), y), "a norm per location takes no lengths");
        }
    }

    // Backwards that are not their forward's.

    @Test
    void backwards() {
        Tensor x = tensor(2, 6, 5);
        Tensor y = tensor(2, 6, 5);
        Gradients out = Gradients.of(tensor(2, 6, 5), null, null);
        try (GroupNorm group = GroupNorm.open(device, GroupNormSpec.of(3, 6).withActivation(Activation.RELU));
                GroupNorm second = GroupNorm.open(device, GroupNormSpec.of(3, 6));
                Lengths lengths = Lengths.of(device, 5, 2)) {
            Saved saved = group.forward(x, y);
            refused(() -> second.backward(saved, x, y, out), "saved statistics must be of the layer");
            refused(() -> group.backward(saved, tensor(2, 6, 4), tensor(2, 6, 4), out), "the forward's shape");
            refused(
                    () -> group.backward(saved, Input.of(x).withLengths(lengths), y, out),
                    "the forward's shape, type and lengths",
                    "other lengths");
            Tensor half = tensor(DataType.HALF, 2, 6, 5);
            refused(() -> group.backward(saved, half, half, Gradients.of(half, null, null)), "FLOAT", "HALF");
            refused(
                    () -> group.backward(saved, Input.of(x).withResidual(y), y, out),
                    "needs the z of its forward",
                    "forward had z=false");
            refused(() -> group.backward(saved, x, tensor(2, 6, 4), out), "x and dy must have one shape");
            refused(
                    () -> group.backward(saved, x, y, Gradients.of(tensor(2, 6, 4), null, null)),
                    "x and dx must have one shape");
            refused(
                    () -> group.backward(saved, x, y, Gradients.of(null, rig.floats(5), null)),
                    "dGamma bytes=20, values=6, bytes needed=24");
            refused(saved::moments, "moments are of a batch norm's batch");
            saved.close();
            refused(IllegalStateException.class, () -> group.backward(saved, x, y, out), "are closed");
            group.close();
            refused(IllegalStateException.class, () -> group.forward(x, y), "the layer is closed", "group norm of 6");
        }
    }

    // Parameters that the caller holds.

    @Test
    void parametersOfTheCaller() {
        Random random = new Random(2);
        float[] gamma = Rig.normal(random, 12);
        float[] beta = Rig.normal(random, 12);
        Buffer ownGamma = rig.floats(gamma);
        Buffer ownBeta = rig.floats(beta);
        Tensor x = tensor(5, 3, 4);
        Tensor y = tensor(5, 3, 4);
        Tensor expected = tensor(5, 3, 4);
        try (LayerNorm own = LayerNorm.open(device, LayerNormSpec.of(3, 4), ownGamma, ownBeta);
                LayerNorm layer = LayerNorm.open(device, LayerNormSpec.of(3, 4));
                RmsNorm ownRms = RmsNorm.open(device, RmsNormSpec.of(12).withOnePlusGamma(true), ownGamma);
                RmsNorm rms = RmsNorm.open(device, RmsNormSpec.of(12).withOnePlusGamma(true))) {
            assertEquals(ownGamma, own.gamma());
            layer.gamma().write(gamma);
            layer.beta().write(beta);
            own.forward(x, y).close();
            layer.forward(x, expected).close();
            assertArrayEquals(Rig.read(expected), Rig.read(y));
            assertArrayEquals(new float[12], Rig.read(rms.gamma()), "1 + 0");
            rms.gamma().write(gamma);
            Tensor rows = Tensor.of(x.buffer(), FIRST, 5, 12);
            ownRms.forward(rows, Tensor.of(y.buffer(), FIRST, 5, 12)).close();
            rms.forward(rows, Tensor.of(expected.buffer(), FIRST, 5, 12)).close();
            assertArrayEquals(Rig.read(expected), Rig.read(y));
        }
        ownGamma.write(gamma); // still open
        GroupNormSpec group = GroupNormSpec.of(3, 6);
        Buffer six = rig.floats(6);
        refused(() -> GroupNorm.open(device, group, six, null), "beta is missing", "group norm of 6");
        refused(() -> GroupNorm.open(device, group.withAffine(true, false), six, six), "beta is not wanted");
        refused(() -> GroupNorm.open(device, group, ownGamma, six), "gamma bytes=48, values=6, bytes needed=24");
        refused(() -> RmsNorm.open(device, RmsNormSpec.of(6).withGamma(false), six), "gamma is not wanted");
        try (Rig elsewhere = new Rig(other)) {
            refused(
                    () -> LayerNorm.open(device, LayerNormSpec.of(6), elsewhere.floats(6), six),
                    "must be on its device");
        }
        refused(
                () -> InstanceNorm.open(
                        device,
                        InstanceNormSpec.of(6).withRunningStatistics(true),
                        new BatchNorm.Parameters(null, null, six, null)),
                "runningVar is missing");
    }
}
