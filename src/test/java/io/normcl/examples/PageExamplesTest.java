package io.normcl.examples;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.normcl.BatchNormSpec;
import io.normcl.Momentum;
import io.normcl.Rig;
import io.normcl.RunningVariance;
import io.normcl.exchange.BatchNormState;
import io.normcl.exchange.Safetensors;
import io.normcl.exchange.Safetensors.Entry;
import io.normcl.exchange.StateConvention;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The pages' examples run, and the pages show them as they are. */
class PageExamplesTest {
    @TempDir
    Path folder;

    @Test
    void folding() throws IOException {
        Random random = new Random(1);
        Map<String, Entry> tensors = StateConvention.PYTORCH.write(state(random, RunningVariance.UNBIASED), "bn1.");
        float[] weight = Rig.normal(random, 64 * 3 * 49);
        tensors.put("conv1.weight", Entry.of(weight, 64, 3, 7, 7));
        Path file = folder.resolve("model.safetensors");
        Path fused = folder.resolve("fused.safetensors");
        Safetensors.write(file, tensors, Map.of());
        double error = PageExamples.folding(file, fused);
        assertTrue(error > 0 && error < 1e-7, () -> "error=" + error);

        Map<String, Entry> one = Safetensors.read(fused).tensors();
        assertEquals("{conv1.bias=F32[64], conv1.weight=F32[64, 3, 7, 7]}", new TreeMap<>(one).toString());
        double scale = tensors.get("bn1.weight").floats()[63]
                / Math.sqrt(tensors.get("bn1.running_var").floats()[63] + 1e-5);
        int last = weight.length - 1;
        assertEquals((float) (weight[last] * scale), one.get("conv1.weight").floats()[last]);
    }

    @Test
    void exchange() throws IOException {
        BatchNormState state = state(new Random(2), RunningVariance.BIASED);
        Path keras = folder.resolve("keras.safetensors");
        Path pytorch = folder.resolve("pytorch.safetensors");
        Safetensors.write(keras, StateConvention.KERAS.write(state, "bn/"), Map.of());
        BatchNormSpec spec = PageExamples.exchange(keras, pytorch);
        assertEquals(1e-3, spec.eps());
        assertEquals(Momentum.ofKept(0.95), spec.momentum());

        BatchNormState read =
                StateConvention.PYTORCH.read(Safetensors.read(pytorch).tensors(), "bn.");
        assertArrayEquals(state.gamma(), read.gamma());
        assertEquals((float) (state.runningVar()[5] * 6272.0 / 6271), read.runningVar()[5]);
    }

    private static BatchNormState state(Random random, RunningVariance which) {
        float[] variance = Rig.normal(random, 64);
        for (int c = 0; c < variance.length; c++) {
            variance[c] *= variance[c];
        }
        return new BatchNormState(
                Rig.normal(random, 64), Rig.normal(random, 64), Rig.normal(random, 64), variance, which, 0);
    }

    @Test
    void thePagesShowThem() throws IOException {
        String source = Files.readString(Path.of("src/test/java/io/normcl/examples/PageExamples.java"));
        for (String page : List.of("folding.md", "exchange.md")) {
            Matcher example = Pattern.compile("// " + page + "\\n((?s:.*?))\\s+// " + page + ": end")
                    .matcher(source);
            assertTrue(example.find(), page);
            String code = example.group(1).stripIndent();
            String text = Files.readString(Path.of("src/site/markdown", page));
            assertTrue(text.contains("```java\n" + code + "\n```"), () -> page + " lacks:\n" + code);
        }
    }
}
