package io.normcl.examples;

import io.normcl.BatchNorm;
import io.normcl.BatchNormSpec;
import io.normcl.Folding;
import io.normcl.Folding.Folded;
import io.normcl.Gradients;
import io.normcl.GroupNorm;
import io.normcl.GroupNormSpec;
import io.normcl.Input;
import io.normcl.InstanceNorm;
import io.normcl.InstanceNormSpec;
import io.normcl.LayerNorm;
import io.normcl.LayerNormSpec;
import io.normcl.Mode;
import io.normcl.NonFinite;
import io.normcl.RmsNorm;
import io.normcl.RmsNormSpec;
import io.normcl.RunningVariance;
import io.normcl.Saved;
import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.exchange.BatchNormState;
import io.normcl.exchange.Safetensors;
import io.normcl.exchange.Safetensors.Entry;
import io.normcl.exchange.StateConvention;
import io.normcl.sync.ChannelMoments;
import io.normcl.sync.ChannelSums;
import io.normcl.tensor.Activation;
import io.normcl.tensor.DataType;
import io.normcl.tensor.Layout;
import io.normcl.tensor.Lengths;
import io.normcl.tensor.Tensor;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.IntStream;

/** The examples of the pages, which a test runs and compares with them. */
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

    /** The end of a residual block, in training and in evaluation. */
    static void batchNorm(
            Device device, Tensor x, Tensor z, Tensor y, Tensor dy, Tensor dx, Tensor dz, Buffer dGamma, Buffer dBeta) {
        // batch-norm.md
        BatchNormSpec spec = BatchNormSpec.of(64).withActivation(Activation.RELU);
        try (BatchNorm norm = BatchNorm.open(device, spec)) {
            Input in = Input.of(x).withResidual(z);
            try (Saved saved = norm.forward(Mode.TRAINING, in, y)) { // y = relu(norm(x) + z)
                norm.backward(saved, in, dy, Gradients.of(dx, dGamma, dBeta).withDz(dz));
                norm.commit(saved);
            }
            norm.infer(in, y);
        }
        // batch-norm.md: end
    }

    /** A transformer's residual stream in bfloat16: it takes up what attention gave, and its norm goes on. */
    static void layerNorm(
            Device device,
            Buffer attentionOut,
            Buffer residualStream,
            Buffer normalized,
            Buffer dNormalized,
            Buffer dStream,
            Buffer dGamma,
            Buffer dBeta) {
        // layer-norm.md
        long[] shape = {4, 16, 768}; // samples, tokens, features
        Tensor attention = Tensor.of(attentionOut, DataType.BFLOAT16, Layout.CHANNELS_LAST, shape);
        Tensor stream = Tensor.of(residualStream, DataType.BFLOAT16, Layout.CHANNELS_LAST, shape);
        Tensor y = Tensor.of(normalized, DataType.BFLOAT16, Layout.CHANNELS_LAST, shape);
        Tensor dy = Tensor.of(dNormalized, DataType.BFLOAT16, Layout.CHANNELS_LAST, shape);
        Tensor dx = Tensor.of(dStream, DataType.BFLOAT16, Layout.CHANNELS_LAST, shape);

        try (LayerNorm norm = LayerNorm.open(device, LayerNormSpec.of(768))) {
            Input in = Input.of(attention).withAddend(stream, stream); // stream = attention + stream
            try (Saved saved = norm.forward(in, y)) { // y = norm(stream)
                norm.backward(saved, in, dy, Gradients.of(dx, dGamma, dBeta)); // dx: of the sum
            }
        }
        // layer-norm.md: end
    }

    /** Gemma's norm. */
    static void rmsNorm(Device device, Buffer gamma, Tensor x, Tensor y, Tensor dy, Tensor dx, Buffer dGamma) {
        // rms-norm.md
        RmsNormSpec spec = RmsNormSpec.of(640).withEps(1e-6).withOnePlusGamma(true);
        try (RmsNorm norm = RmsNorm.open(device, spec, gamma); // gamma: 640 floats of yours
                Saved saved = norm.forward(x, y)) {
            norm.backward(saved, x, dy, Gradients.of(dx, dGamma, null)); // there is no beta
        }
        // rms-norm.md: end
    }

    /** A diffusion network's group norm, and the layer norm over channels of a ConvNeXt. */
    static void groupNorm(
            Device device, Tensor x, Tensor y, Tensor dy, Tensor dx, Buffer dGamma, Buffer dBeta, Tensor perPixel) {
        // group-norm.md
        GroupNormSpec spec = GroupNormSpec.of(32, 128).withEps(1e-6).withActivation(Activation.SILU);
        try (GroupNorm norm = GroupNorm.open(device, spec);
                Saved saved = norm.forward(x, y)) { // y = silu(norm(x)), 32 groups of 4 channels
            norm.backward(saved, x, dy, Gradients.of(dx, dGamma, dBeta));
        }

        // At each place alone, over all channels: the layer norm of convolutional networks
        GroupNormSpec overChannels = GroupNormSpec.of(1, 128).withPerLocation(true);
        try (GroupNorm norm = GroupNorm.open(device, overChannels)) {
            norm.forward(x, perPixel).close();
        }
        // group-norm.md: end
    }

    /** Features of speech, each normalized over its own time. */
    static void instanceNorm(Device device, Tensor x, Tensor y, Tensor dy, Tensor dx, Buffer dGamma, Buffer dBeta) {
        // instance-norm.md
        InstanceNormSpec spec = InstanceNormSpec.of(80).withAffine(true, true);
        try (InstanceNorm norm = InstanceNorm.open(device, spec);
                Lengths lengths = Lengths.of(device, 300, 120, 7)) { // frames of three utterances
            Input in = Input.of(x).withLengths(lengths); // x: (3, 80, 300), padded
            try (Saved saved = norm.forward(in, y)) { // 0 in the padding
                norm.backward(saved, in, dy, Gradients.of(dx, dGamma, dBeta));
            }
        }
        // instance-norm.md: end
    }

    /** One step over micro-batches that gives what the whole batch at once would give. */
    static void microBatches(
            BatchNorm norm,
            List<Input> xs,
            List<Tensor> ys,
            List<Tensor> dys,
            List<Tensor> dxs,
            Buffer dGamma,
            Buffer dBeta) {
        // synchronized-batch-norm.md
        ChannelMoments all = new ChannelMoments(norm.spec().channels());
        xs.forEach(x -> all.merge(norm.moments(x)));
        List<Saved> saved = new ArrayList<>();
        for (int i = 0; i < xs.size(); i++) {
            saved.add(norm.forward(xs.get(i), ys.get(i), all));
        }
        // ... the rest of the network, which fills dys ...
        ChannelSums sums = new ChannelSums(norm.spec().channels());
        for (int i = 0; i < xs.size(); i++) {
            Gradients out = Gradients.of(null, dGamma, dBeta).withAccumulate(i > 0);
            sums.add(norm.sums(saved.get(i), xs.get(i), dys.get(i), out));
        }
        for (int i = 0; i < xs.size(); i++) {
            norm.backward(saved.get(i), xs.get(i), dys.get(i), Gradients.of(dxs.get(i), null, null), sums);
        }
        norm.commit(all, NonFinite.PROPAGATE); // once: one batch
        saved.forEach(Saved::close);
        // synchronized-batch-norm.md: end
    }

    /** Running statistics estimated anew, with fixed weights. */
    static void preciseBatchNorm(BatchNorm norm, List<Input> batches) {
        // synchronized-batch-norm.md
        ChannelMoments all = new ChannelMoments(norm.spec().channels());
        for (Input batch : batches) { // what reaches this layer, batch by batch
            all.merge(norm.moments(batch));
        }
        norm.replaceRunning(all);
        // synchronized-batch-norm.md: end
    }

    /** How far the output for one and the same value scatters with what else is in a batch of m. */
    static double scatter(Device device, int m) {
        // questions.md
        int trials = 4096; // as channels: each is a batch of its own
        float[] values = new float[m * trials];
        Random random = new Random(1);
        for (int i = 0; i < values.length; i++) {
            values[i] = i < trials ? 1 : (float) random.nextGaussian(); // the first sample is 1 everywhere
        }
        float[] outputs = new float[values.length];
        try (BatchNorm norm = BatchNorm.open(device, BatchNormSpec.of(trials));
                Buffer x = device.allocate(4L * values.length);
                Buffer y = device.allocate(4L * values.length)) {
            x.write(values);
            Tensor in = Tensor.of(x, Layout.CHANNELS_LAST, m, trials);
            norm.forward(in, Tensor.of(y, Layout.CHANNELS_LAST, m, trials)).close();
            y.read(outputs);
        }
        double mean = IntStream.range(0, trials)
                .mapToDouble(i -> outputs[i])
                .average()
                .orElseThrow();
        double variance = IntStream.range(0, trials)
                .mapToDouble(i -> (outputs[i] - mean) * (outputs[i] - mean))
                .average()
                .orElseThrow();
        return Math.sqrt(variance); // about √(1.5/m)
        // questions.md: end
    }
}
