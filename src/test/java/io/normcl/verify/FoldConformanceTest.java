package io.normcl.verify;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Path;
import java.util.List;
import java.util.Objects;
import org.junit.jupiter.api.Test;

/** Every case of folding at its tight tolerance, and no further off than PyTorch in float. */
class FoldConformanceTest {
    @Test
    void everyCaseIsTight() throws Exception {
        Path archive = Path.of(Objects.requireNonNull(FoldConformanceTest.class.getResource("/conformance.zip"))
                .toURI());
        Judge judge = new Judge(new FoldProgram().byOperation(), false);
        try (ConformanceCases all = ConformanceCases.open(archive)) {
            List<ConformanceCase> cases = all.of("conv_bn_fold");
            assertEquals(6, cases.size());
            for (ConformanceCase run : cases) {
                Verdict verdict = judge.judge(run);
                assertTrue(verdict.tight(), verdict::toString);
                assertEquals(3, verdict.tensors().size(), "weight, bias and y are compared");
                for (Verdict.Comparison tensor : verdict.tensors()) {
                    Double others = run.number("torch32.maxabs." + tensor.tensor());
                    assertTrue(tensor.error() <= others, () -> run + ", " + tensor + ", PyTorch's " + others);
                }
            }
        }
    }
}
