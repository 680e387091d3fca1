package io.normcl.verify;

import static org.junit.jupiter.api.Assertions.assertTrue;

import io.normcl.reference.NormReference;
import io.normcl.reference.NormReference.Gradients;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Locale;
import org.junit.jupiter.api.Test;

/** What rounding its inputs to float costs a case in double, with everything after it exact, as accuracy.md says it. */
class RoundedInputsTest {
    private static final Path PAGE = Path.of("src/site/markdown/accuracy.md");

    @Test
    void thePageSaysThem() throws IOException {
        try (ConformanceCases cases = ConformanceCases.open(Path.of("src/test/resources/conformance.zip"))) {
            ConformanceCase batch = cases.get("pt_mod_batchnorm3d_default_train");
            says(
                    batch,
                    "dweight",
                    gradients(NormReference.batchNorm(2, 3, 64, false), batch).dGamma());
            ConformanceCase instance = cases.get("pt_mod_instancenorm2d_default_train");
            NormReference planes = NormReference.instanceNorm(2, 3, 36, false).withEps(1e-3);
            says(instance, "dx", gradients(planes, instance).dx());
            ConformanceCase group = cases.get("pt_opdb_group_norm_04");
            says(
                    group,
                    "dx",
                    gradients(NormReference.groupNorm(1, 2, 1, false, 1), group).dx());
            ConformanceCase layer = cases.get("pt_opdb_layer_norm_02");
            says(layer, "dx", gradients(NormReference.layerNorm(1, 1), layer).dx());
        }
    }

    private static Gradients gradients(NormReference reference, ConformanceCase run) throws IOException {
        double[] x = rounded(run, "x");
        double[] gamma = run.has("weight") ? rounded(run, "weight") : null;
        return reference.backward(reference.statistics(x), gamma, null, x, null, rounded(run, "dy"));
    }

    private static double[] rounded(ConformanceCase run, String tensor) throws IOException {
        return Arrays.stream(run.values(tensor)).map(value -> (float) value).toArray();
    }

    private static void says(ConformanceCase run, String tensor, double[] got) throws IOException {
        double[] expected = run.values(tensor);
        double error = 0;
        for (int i = 0; i < expected.length; i++) {
            error = Math.max(error, Math.abs(expected[i] - got[i]));
        }
        String row = String.format(Locale.ROOT, "| `%s`: %s | %.1e |", run.name(), tensor, error);
        assertTrue(Files.readString(PAGE).contains(row), () -> PAGE + " lacks: " + row);
    }
}
