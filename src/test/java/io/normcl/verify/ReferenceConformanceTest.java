package io.normcl.verify;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import org.junit.jupiter.api.Test;

/** The reference, in double, on every batch norm case at its tight tolerance. */
class ReferenceConformanceTest {
    @Test
    void everyBatchNormCaseIsTight() throws Exception {
        Path archive = Path.of(Objects.requireNonNull(getClass().getResource("/conformance.zip"))
                .toURI());
        Judge judge = new Judge(new BatchNormProgram(new ReferenceEngine()).byOperation(), false);
        List<Verdict> loose = new ArrayList<>();
        int cases = 0;
        try (ConformanceCases all = ConformanceCases.open(archive)) {
            assertEquals(185, all.names().size());
            for (ConformanceCase run : all.of("batch_norm", "batch_norm_sequence", "sync_batch_norm")) {
                Verdict verdict = judge.judge(run);
                cases++;
                if (!verdict.tight()) {
                    loose.add(verdict);
                }
            }
        }
        assertEquals(85, cases);
        assertTrue(loose.isEmpty(), () -> String.join("\n", loose.stream().map(Verdict::toString).toList()));
    }
}
