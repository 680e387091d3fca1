package io.normcl.exchange;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.normcl.BatchNormSpec;
import io.normcl.Momentum;
import io.normcl.RunningVariance;
import io.normcl.exchange.Safetensors.Entry;
import io.normcl.reference.BatchNormReference;
import io.normcl.reference.BatchNormReference.Statistics;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

class StateConventionTest {
    @TempDir
    Path folder;

    /** A file as safetensors.torch lays it out, with a convolution's tensors beside the batch norm's. */
    @Test
    void aFileWithPyTorchsNamesIsRead() throws IOException {
        String header = """
                {"__metadata__":{"format":"pt"},\
                "bn1.num_batches_tracked":{"dtype":"I64","shape":[],"data_offsets":[0,8]},\
                "bn1.bias":{"dtype":"F32","shape":[2],"data_offsets":[8,16]},\
                "bn1.running_mean":{"dtype":"F32","shape":[2],"data_offsets":[16,24]},\
                "bn1.running_var":{"dtype":"F32","shape":[2],"data_offsets":[24,32]},\
                "bn1.weight":{"dtype":"F32","shape":[2],"data_offsets":[32,40]},\
                "conv1.weight":{"dtype":"F32","shape":[2,1,1,1],"data_offsets":[40,48]}}""";
        ByteBuffer bytes = ByteBuffer.allocate(8 + header.length() + 48).order(ByteOrder.LITTLE_ENDIAN);
        bytes.putLong(header.length())
                .put(header.getBytes(StandardCharsets.UTF_8))
                .putLong(938);
        for (float value : new float[] {0.5f, -1, 2, 3, 4, 5, 1, -0.25f, 7, 8}) {
            bytes.putFloat(value);
        }
        Path file = folder.resolve("model.safetensors");
        Files.write(file, bytes.array());

        BatchNormState state =
                StateConvention.PYTORCH.read(Safetensors.read(file).tensors(), "bn1.");
        assertArrayEquals(new float[] {1, -0.25f}, state.gamma());
        assertArrayEquals(new float[] {0.5f, -1}, state.beta());
        assertArrayEquals(new float[] {2, 3}, state.runningMean());
        assertArrayEquals(new float[] {4, 5}, state.runningVar());
        assertEquals(RunningVariance.UNBIASED, state.runningVariance());
        assertEquals(938, state.batchesTracked());
    }

    @Test
    void whatIsMissingIsMissing() {
        Entry two = Entry.of(new float[] {3, 4}, 2);
        BatchNormState bare = StateConvention.PYTORCH.read(Map.of("running_mean", two, "running_var", two), "");
        assertNull(bare.gamma());
        assertNull(bare.beta());
        assertEquals(0, bare.batchesTracked());
        assertEquals(
                Set.of("a.running_mean", "a.running_var", "a.num_batches_tracked"),
                StateConvention.PYTORCH.write(bare, "a.").keySet());

        BatchNormState affine = StateConvention.PYTORCH.read(Map.of("weight", two), "");
        assertArrayEquals(new float[] {3, 4}, affine.gamma());
        assertNull(affine.runningMean());
        assertEquals(Set.of("weight"), StateConvention.PYTORCH.write(affine, "").keySet());
        // No running variance, so none to convert.
        assertEquals(Set.of("gamma"), StateConvention.KERAS.write(affine, "").keySet());
        assertNull(affine.convertedTo(RunningVariance.BIASED, 2).runningVar());
    }

    @ParameterizedTest
    @CsvSource({
        "PYTORCH,      bn1., weight bias running_mean running_var",
        "KERAS,        bn/,  gamma beta moving_mean moving_variance",
        "FLAX,         bn.,  scale bias mean var",
        "ONNX,         bn_,  scale B input_mean input_var",
        "DL4J,         1_,   gamma beta mean var",
        "DL4J_LOG_STD, 1_,   gamma beta mean log10stdev"
    })
    void eachHasItsNames(StateConvention convention, String prefix, String names) throws IOException {
        BatchNormState state = new BatchNormState(
                new float[] {1, 2},
                new float[] {3, -4},
                new float[] {5, -6},
                new float[] {1, 100},
                convention.runningVariance(),
                17);
        boolean counts = convention == StateConvention.PYTORCH;
        boolean logs = convention == StateConvention.DL4J_LOG_STD;
        Map<String, String> expected = new TreeMap<>();
        List<String> values = List.of("[1.0, 2.0]", "[3.0, -4.0]", "[5.0, -6.0]", logs ? "[0.0, 1.0]" : "[1.0, 100.0]");
        for (int i = 0; i < 4; i++) {
            expected.put(prefix + names.split(" ", -1)[i], "F32[2] " + values.get(i));
        }
        if (counts) {
            expected.put(prefix + "num_batches_tracked", "I64[] [17]");
        }
        Path file = folder.resolve("state.safetensors");
        Safetensors.write(file, convention.write(state, prefix), Map.of());
        Map<String, Entry> tensors = Safetensors.read(file).tensors();
        Map<String, String> got = new TreeMap<>();
        tensors.forEach((name, entry) -> got.put(
                name,
                entry + " "
                        + (entry.dtype().equals("I64")
                                ? Arrays.toString(entry.longs())
                                : Arrays.toString(entry.floats()))));
        assertEquals(expected, got);

        BatchNormState read = convention.read(tensors, prefix);
        assertArrayEquals(state.gamma(), read.gamma());
        assertArrayEquals(state.beta(), read.beta());
        assertArrayEquals(state.runningMean(), read.runningMean());
        assertArrayEquals(state.runningVar(), read.runningVar());
        assertEquals(convention.runningVariance(), read.runningVariance());
        assertEquals(counts ? 17 : 0, read.batchesTracked());
    }

    @Test
    void bothVariancesAreConvertedByTheCount() {
        BatchNormState biased = running(RunningVariance.BIASED, 3, 0.1f);
        BatchNormState unbiased = biased.convertedTo(RunningVariance.UNBIASED, 4);
        assertArrayEquals(new float[] {4, (float) (0.1f * 4.0 / 3)}, unbiased.runningVar());
        assertEquals(RunningVariance.UNBIASED, unbiased.runningVariance());
        assertEquals(5, unbiased.batchesTracked());
        assertArrayEquals(biased.runningMean(), unbiased.runningMean());
        // Back, 3 is exact; half a unit of 0.133 is three quarters of a unit of 0.1.
        float[] back = unbiased.convertedTo(RunningVariance.BIASED, 4).runningVar();
        assertEquals(3, back[0]);
        assertEquals(0.1f, back[1], Math.ulp(0.1f));
        assertArrayEquals(
                new float[] {6, 0.2f},
                biased.convertedTo(RunningVariance.UNBIASED, 2).runningVar());
        assertArrayEquals(
                new float[] {3, 0.1f},
                biased.convertedTo(RunningVariance.BIASED, 4).runningVar());
        assertArrayEquals(new float[] {3, 0.1f}, biased.runningVar());

        float[] written =
                StateConvention.PYTORCH.write(unbiased, "").get("running_var").floats();
        assertArrayEquals(unbiased.runningVar(), written);
        assertEquals(
                "a variance of one value can't be unbiased: n=1, wanted=UNBIASED",
                assertThrows(IllegalArgumentException.class, () -> biased.convertedTo(RunningVariance.UNBIASED, 1))
                        .getMessage());
    }

    /** Two layers that saw the same batches of one size, one of each kind: each is the other's, converted. */
    @Test
    void convertedIsWhatTheOtherWouldHaveLearned() {
        Random random = new Random(2);
        BatchNormReference reference = new BatchNormReference(1, 3, false);
        double[] biased = new double[1];
        double[] unbiased = new double[1];
        for (int step = 0; step < 9; step++) {
            double[] x = random.doubles(2 * 3).toArray();
            Statistics batch = reference.statistics(List.of(x));
            BatchNormReference.update(batch, 0.1, false, new double[1], biased);
            BatchNormReference.update(batch, 0.1, true, new double[1], unbiased);
        }
        float[] converted = running(RunningVariance.BIASED, (float) biased[0])
                .convertedTo(RunningVariance.UNBIASED, 6)
                .runningVar();
        assertEquals(unbiased[0], converted[0], unbiased[0] * 0x1p-23);
    }

    @ParameterizedTest
    @EnumSource(
            value = StateConvention.class,
            mode = EnumSource.Mode.EXCLUDE,
            names = {"PYTORCH"})
    void theOtherVarianceIsRefusedUntilSomeoneDecides(StateConvention biased) {
        BatchNormState theirs = running(RunningVariance.BIASED, 3);
        BatchNormState pytorchs = running(RunningVariance.UNBIASED, 3);
        assertEquals(
                "a running variance is converted by a count or kept as it is, as you say: convention=PYTORCH,"
                        + " wanted=UNBIASED, state=BIASED",
                assertThrows(IllegalArgumentException.class, () -> StateConvention.PYTORCH.write(theirs, ""))
                        .getMessage());
        assertEquals(
                "a running variance is converted by a count or kept as it is, as you say: convention=" + biased
                        + ", wanted=BIASED, state=UNBIASED",
                assertThrows(IllegalArgumentException.class, () -> biased.write(pytorchs, ""))
                        .getMessage());
        Map<String, Entry> kept = StateConvention.PYTORCH.write(theirs.keptAs(RunningVariance.UNBIASED), "");
        assertArrayEquals(new float[] {3}, kept.get("running_var").floats());
        biased.write(pytorchs.keptAs(RunningVariance.BIASED), "");
        biased.write(pytorchs.convertedTo(RunningVariance.BIASED, 8), "");
    }

    @Test
    void dl4jStoresTheLogarithmOfTheStandardDeviation() {
        Map<String, Entry> stored = Map.of(
                "mean", Entry.of(new float[5], 5),
                "log10stdev", Entry.of(new float[] {0, 1, -0.5f, -3, Float.NEGATIVE_INFINITY}, 5));
        BatchNormState state = StateConvention.DL4J_LOG_STD.read(stored, "");
        assertArrayEquals(new float[] {1, 100, 0.1f, 1e-6f, 0}, state.runningVar());
        assertArrayEquals(
                new float[] {0, 1, -0.5f, -3, Float.NEGATIVE_INFINITY},
                StateConvention.DL4J_LOG_STD.write(state, "").get("log10stdev").floats());

        Random random = new Random(3);
        for (int i = 0; i < 1000; i++) {
            float variance = (float) Math.exp(40 * random.nextDouble() - 20);
            Map<String, Entry> once = StateConvention.DL4J_LOG_STD.write(running(RunningVariance.BIASED, variance), "");
            float log = once.get("log10stdev").floats()[0];
            float back = StateConvention.DL4J_LOG_STD.read(once, "").runningVar()[0];
            // d(variance)/variance = 2·ln 10·d(log10stdev), and the rounding of the result
            double bound = 2 * Math.log(10) * Math.ulp(log) / 2 + 0x1p-24;
            assertEquals(variance, back, variance * bound * 1.001);
        }
        assertEquals(
                "the logarithm needs a variance that is not below 0: convention=DL4J_LOG_STD, channel=1,"
                        + " runningVar=-1.0",
                assertThrows(
                                IllegalArgumentException.class,
                                () -> StateConvention.DL4J_LOG_STD.write(running(RunningVariance.BIASED, 1, -1), ""))
                        .getMessage());
    }

    @ParameterizedTest
    @CsvSource({
        "PYTORCH,      1e-5, 0.1,  0.1",
        "KERAS,        1e-3, 0.99, 0.01",
        "FLAX,         1e-5, 0.99, 0.01",
        "ONNX,         1e-5, 0.9,  0.1",
        "DL4J,         1e-5, 0.9,  0.1",
        "DL4J_LOG_STD, 1e-5, 0.9,  0.1"
    })
    void defaults(StateConvention convention, double eps, double momentum, double weight) {
        BatchNormSpec spec = convention.spec(7);
        assertEquals(7, spec.channels());
        assertEquals(eps, spec.eps());
        assertEquals(weight, spec.momentum().weight(0), 1e-15);
        assertEquals(convention.momentum(momentum), spec.momentum());
        assertEquals(convention.runningVariance(), spec.runningVariance());
        boolean pytorch = convention == StateConvention.PYTORCH;
        assertEquals(pytorch ? Momentum.ofNew(0.25) : Momentum.ofKept(0.25), convention.momentum(0.25));
        assertEquals(pytorch, spec.equals(BatchNormSpec.of(7)));
    }

    @Test
    void whatIsNoStateIsRefused() {
        Entry two = Entry.of(new float[2], 2);
        Entry three = Entry.of(new float[3], 3);
        refused(
                "a batch norm's tensors have its prefix: convention=PYTORCH, prefix=bn2., looked for=weight bias"
                        + " running_mean running_var",
                Map.of("bn1.weight", two),
                "bn2.");
        refused(
                "a batch norm's tensor is F32 with one value per channel: tensor=conv.weight, found=F32[2, 1]",
                Map.of("conv.weight", Entry.of(new float[2], 2, 1)),
                "conv.");
        refused(
                "a batch norm's tensor is F32 with one value per channel: tensor=bias, found=F64[2]",
                Map.of("bias", Entry.of(new double[2], 2)),
                "");
        refused(
                "running statistics are both there or both missing: runningMean=missing, runningVar=2 values",
                Map.of("running_var", two),
                "");
        refused(
                "a state's arrays have one value per channel: gamma=2 values, beta=3 values, runningMean=missing,"
                        + " runningVar=missing",
                Map.of("weight", two, "bias", three),
                "");
        refused(
                "a count of batches is one I64: tensor=num_batches_tracked, found=F32[2]",
                Map.of("weight", two, "num_batches_tracked", two),
                "");
        refused(
                "a count of batches is one I64: tensor=num_batches_tracked, found=I64[0]",
                Map.of("weight", two, "num_batches_tracked", Entry.of(new long[0], 0)),
                "");
        refused(
                "batches are counted from 0: batchesTracked=-1",
                Map.of("weight", two, "num_batches_tracked", Entry.of(new long[] {-1})),
                "");
    }

    private static void refused(String message, Map<String, Entry> tensors, String prefix) {
        assertEquals(
                message,
                assertThrows(IllegalArgumentException.class, () -> StateConvention.PYTORCH.read(tensors, prefix))
                        .getMessage());
    }

    @Test
    void theOthersAreTheirTwoTensors() {
        AffineState state = new AffineState(new float[] {1, 2, 3, 4, 5, 6}, new float[6], 2, 3);
        Map<String, Entry> written = state.write("ln.weight", "ln.bias");
        assertEquals("F32[2, 3]", written.get("ln.weight").toString());
        AffineState read = AffineState.read(written, "ln.weight", "ln.bias");
        assertArrayEquals(state.gamma(), read.gamma());
        assertArrayEquals(state.beta(), read.beta());
        assertArrayEquals(new long[] {2, 3}, read.shape());

        AffineState rms = AffineState.read(written, "ln.weight", "none");
        assertNull(rms.beta());
        assertEquals(Set.of("scale"), rms.write("scale", "offset").keySet());

        String message = assertThrows(
                        IllegalArgumentException.class, () -> AffineState.read(written, "a.weight", "a.bias"))
                .getMessage();
        assertEquals(
                "a norm's tensors are F32 and of one shape, one of them there: a.weight=missing, a.bias=missing",
                message);
        written.put("ln.bias", Entry.of(new float[6], 6));
        assertThrows(IllegalArgumentException.class, () -> AffineState.read(written, "ln.weight", "ln.bias"));
        written.put("ln.weight", Entry.of(new double[6], 6));
        assertThrows(IllegalArgumentException.class, () -> AffineState.read(written, "ln.weight", "none"));
        message = assertThrows(IllegalArgumentException.class, () -> new AffineState(new float[5], null, 2, 3))
                .getMessage();
        assertTrue(message.startsWith("gamma and beta have as many values as the shape"), message);
    }

    private static BatchNormState running(RunningVariance which, float... runningVar) {
        return new BatchNormState(null, null, new float[runningVar.length], runningVar, which, 5);
    }
}
