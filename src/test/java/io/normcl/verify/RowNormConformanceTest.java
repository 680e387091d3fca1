package io.normcl.verify;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.net.URISyntaxException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Every case of layer, RMS, group and instance norm at its tight tolerance. */
class RowNormConformanceTest {
    @ParameterizedTest
    @CsvSource({"layer_norm, 31", "rms_norm, 13", "group_norm, 22", "instance_norm, 18"})
    void reference(String operation, int expectedCases) throws Exception {
        Judge judge = new Judge(new RowNormProgram(new RowNormReferenceEngine()).byOperation(), false);
        List<String> others = new ArrayList<>();
        try (ConformanceCases all = ConformanceCases.open(archive())) {
            List<ConformanceCase> cases = all.of(operation);
            assertEquals(expectedCases, cases.size());
            for (ConformanceCase run : cases) {
                Verdict verdict = judge.judge(run);
                if (!verdict.tight()) {
                    others.add(verdict.toString());
                }
            }
        }
        assertEquals(List.of(), others);
    }

    /** An engine that is off by 0.1 in one value is seen by every case that is not a refusal and not empty. */
    @Test
    void aWrongEngineIsSeen() throws Exception {
        RowNormReferenceEngine right = new RowNormReferenceEngine();
        RowNormProgram.Engine wrong = (setup, inputs) -> {
            RowNormProgram.Outputs outputs = right.run(setup, inputs);
            for (double[] values : new double[][] {outputs.y(), outputs.dx()}) {
                if (values != null && values.length > 0) {
                    values[0] += 0.1;
                }
            }
            return outputs;
        };
        Map<String, Program> programs = new RowNormProgram(wrong).byOperation();
        List<String> unseen = new ArrayList<>();
        try (ConformanceCases all = ConformanceCases.open(archive())) {
            for (ConformanceCase run : all.of(programs.keySet().toArray(String[]::new))) {
                Verdict verdict = new Judge(programs, false).judge(run);
                if (verdict.tight()) {
                    unseen.add(verdict.name());
                }
            }
        }
        assertEquals(
                List.of(
                        "err_pt_gn_one_value_per_group",
                        "err_pt_ln_wrong_normalized_shape",
                        "gn_empty_batch",
                        "pt_mod_layernorm_1d_empty_elementwise_affine",
                        "pt_opdb_layer_norm_04"),
                unseen);
    }

    private static Path archive() throws URISyntaxException {
        return Path.of(Objects.requireNonNull(RowNormConformanceTest.class.getResource("/conformance.zip"))
                .toURI());
    }
}
