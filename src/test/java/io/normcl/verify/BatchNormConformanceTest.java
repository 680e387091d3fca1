package io.normcl.verify;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.normcl.Rig;
import io.normcl.device.Device;
import io.normcl.plan.Family;
import io.normcl.plan.Tuning;
import java.io.IOException;
import java.net.URISyntaxException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import java.util.function.Predicate;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Every batch norm case at its tight tolerance: the reference in double, the library in float. */
class BatchNormConformanceTest {
    private static final String[] PLAIN = {"batch_norm", "batch_norm_sequence", "sync_batch_norm"};
    private static final String[] FUSED = {"batch_norm_relu", "batch_norm_add_relu"};

    /** llvmpipe has no denormals. */
    private static final List<String> NEED_DENORMALS = List.of("bn_denormal_inputs");

    private static List<Device> devices = List.of();

    @BeforeAll
    static void open() {
        devices = Device.open(Rig.SELECTOR + ":4");
    }

    @AfterAll
    static void close() {
        devices.forEach(Device::close);
    }

    @Test
    void reference() throws Exception {
        List<Verdict> verdicts = judge(new ReferenceEngine(), false, 85, PLAIN);
        assertTrue(verdicts.isEmpty(), () -> lines(verdicts));
    }

    @Test
    void fusedReference() throws Exception {
        List<Verdict> verdicts = judge(new ReferenceEngine(), false, 10, FUSED);
        assertTrue(verdicts.isEmpty(), () -> lines(verdicts));
    }

    /** A device that takes denormals as 0 can't pass the case of them: the reference can't either. */
    @Test
    void flushedInputs() throws Exception {
        BatchNormProgram.Engine flushing = setup -> {
            BatchNormProgram.Layer exact = new ReferenceEngine().open(setup);
            return new BatchNormProgram.Layer() {
                @Override
                public BatchNormProgram.Step step(boolean training, List<BatchNormProgram.Shard> shards) {
                    BatchNormProgram.Shard own = shards.get(0);
                    double[] x = Arrays.stream(own.x())
                            .map(value -> Math.abs(value) < Float.MIN_NORMAL ? 0 : value)
                            .toArray();
                    return exact.step(training, List.of(new BatchNormProgram.Shard(own.shape(), x, own.z(), own.dy())));
                }

                @Override
                public void close() {
                    exact.close();
                }
            };
        };
        try (ConformanceCases all = ConformanceCases.open(archive())) {
            Verdict verdict =
                    new Judge(new BatchNormProgram(flushing).byOperation(), false).judge(all.get("bn_denormal_inputs"));
            assertEquals(
                    List.of("dweight", "save_mean"),
                    verdict.tensors().stream()
                            .filter(tensor -> !tensor.passed())
                            .map(Verdict.Comparison::tensor)
                            .toList());
        }
    }

    @ParameterizedTest
    @CsvSource({"WIDE,false", "WIDE,true", "COOPERATIVE,false", "COOPERATIVE,true"})
    void device(Family family, boolean synchronize) throws Exception {
        List<Verdict> verdicts = judge(new DeviceEngine(devices, Tuning.of(family), synchronize), true, 85, PLAIN);
        Predicate<Verdict> skipped = verdict -> verdict.outcome() == Verdict.Outcome.SKIPPED;
        assertEquals(
                List.of("SKIPPED bn_train_f64_mean1e8_std1e-4: can't be done in float"),
                verdicts.stream().filter(skipped).map(Verdict::toString).toList());
        assertEquals(
                devices.get(0).limits().fp64() ? List.of() : NEED_DENORMALS,
                verdicts.stream().filter(skipped.negate()).map(Verdict::name).toList(),
                () -> lines(verdicts));
    }

    @ParameterizedTest
    @CsvSource({"WIDE,false", "WIDE,true", "COOPERATIVE,false", "COOPERATIVE,true"})
    void fusedDevice(Family family, boolean synchronize) throws Exception {
        List<Verdict> verdicts = judge(new DeviceEngine(devices, Tuning.of(family), synchronize), true, 10, FUSED);
        assertTrue(verdicts.isEmpty(), () -> lines(verdicts));
    }

    private static Path archive() throws URISyntaxException {
        return Path.of(Objects.requireNonNull(BatchNormConformanceTest.class.getResource("/conformance.zip"))
                .toURI());
    }

    /** The verdicts other than tight. */
    private static List<Verdict> judge(
            BatchNormProgram.Engine engine, boolean single, int expectedCases, String... operations)
            throws IOException, URISyntaxException {
        Judge judge = new Judge(new BatchNormProgram(engine).byOperation(), single);
        List<Verdict> others = new ArrayList<>();
        try (ConformanceCases all = ConformanceCases.open(archive())) {
            assertEquals(185, all.names().size());
            List<ConformanceCase> cases = all.of(operations);
            assertEquals(expectedCases, cases.size());
            for (ConformanceCase run : cases) {
                Verdict verdict = judge.judge(run);
                if (!verdict.tight()) {
                    others.add(verdict);
                }
            }
        }
        return others;
    }

    private static String lines(List<Verdict> verdicts) {
        return String.join("\n", verdicts.stream().map(Verdict::toString).toList());
    }
}
