package io.normcl.examples;

import io.normcl.BatchNormSpec;
import io.normcl.Folding;
import io.normcl.Folding.Folded;
import io.normcl.RunningVariance;
import io.normcl.exchange.BatchNormState;
import io.normcl.exchange.Safetensors;
import io.normcl.exchange.Safetensors.Entry;
import io.normcl.exchange.StateConvention;
import java.io.IOException;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;

/** The examples of the pages on folding and exchange, which a test runs and compares with them. */
final class PageExamples {
    private PageExamples() {}

    /** A convolution and its batch norm, read from PyTorch's file and written as one layer. */
    static double folding(Path file, Path fused) throws IOException {
        // folding.md
        Map<String, Entry> tensors = Safetensors.read(file).tensors();
        Entry conv = tensors.get("conv1.weight"); // (64, 3, 7, 7), without a bias
        BatchNormState bn = StateConvention.PYTORCH.read(tensors, "bn1.");

        Folded folded = Folding.of(bn.gamma(), bn.beta(), bn.runningMean(), bn.runningVar(), 1e-5)
                .intoConvolution(conv.floats(), null, 1, conv.shape());
        double error = folded.measure(1).relative(); // in parts of the largest output: about 2e-8

        Map<String, Entry> one = new HashMap<>();
        one.put("conv1.weight", Entry.of(folded.weight(), conv.shape()));
        one.put("conv1.bias", Entry.of(folded.bias(), 64));
        Safetensors.write(fused, one, Map.of("format", "pt"));
        // folding.md: end
        return error;
    }

    /** A state of Keras, brought to PyTorch. */
    static BatchNormSpec exchange(Path keras, Path pytorch) throws IOException {
        // exchange.md
        BatchNormState theirs =
                StateConvention.KERAS.read(Safetensors.read(keras).tensors(), "bn/");
        long n = 32 * 14 * 14; // values per channel of each training batch
        BatchNormState ours = theirs.convertedTo(RunningVariance.UNBIASED, n);
        Safetensors.write(pytorch, StateConvention.PYTORCH.write(ours, "bn."), Map.of("format", "pt"));

        // The numbers that no state holds: Keras' eps, its momentum of the kept, its biased variance
        BatchNormSpec goesOnAsKeras = StateConvention.KERAS.spec(64).withMomentum(StateConvention.KERAS.momentum(0.95));
        // exchange.md: end
        return goesOnAsKeras;
    }
}
