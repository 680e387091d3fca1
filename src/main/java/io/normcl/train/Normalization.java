package io.normcl.train;

import static java.util.Objects.requireNonNull;

import io.normcl.BatchNorm;
import io.normcl.Gradients;
import io.normcl.Saved;
import io.normcl.device.Buffer;
import io.normcl.tensor.Layout;
import io.normcl.tensor.Tensor;
import java.util.List;
import org.jspecify.annotations.Nullable;

/** A batch norm, channels last. Whether it is synchronized is the trainer's business. */
final class Normalization extends Layer {
    final String name;
    final BatchNorm norm;
    private final int places;
    private final int channels;
    private final List<Parameter> parameters;
    private @Nullable Saved saved;

    Normalization(Memory memory, String name, int places, int channels) {
        super(memory.device);
        this.name = name;
        this.places = places;
        this.channels = channels;
        norm = memory.batchNorm(channels);
        parameters = norm.namedParameters(name).stream()
                .map(named -> new Parameter(named, new long[] {channels}, memory.floats(channels)))
                .toList();
    }

    @Override
    int outputs() {
        return places * channels;
    }

    Tensor tensor(Buffer buffer, int n) {
        return Tensor.of(buffer, Layout.CHANNELS_LAST, n, places, channels);
    }

    Gradients gradients(@Nullable Buffer dx, int n) {
        Buffer dGamma = parameters.get(0).gradient();
        Buffer dBeta = parameters.get(1).gradient();
        return Gradients.of(dx == null ? null : tensor(dx, n), dGamma, dBeta);
    }

    @Override
    void forward(Buffer x, Buffer y, int n) {
        saved(norm.forward(tensor(x, n), tensor(y, n)));
    }

    @Override
    void infer(Buffer x, Buffer y, int n) {
        norm.infer(tensor(x, n), tensor(y, n));
    }

    @Override
    void backward(Buffer x, Buffer dy, @Nullable Buffer dx, int n) {
        norm.backward(saved(), tensor(x, n), tensor(dy, n), gradients(dx, n));
    }

    Saved saved() {
        return requireNonNull(saved);
    }

    void saved(Saved forward) {
        forget();
        saved = forward;
    }

    /** Moves the running statistics by the last forward. */
    void commit() {
        norm.commit(saved());
        forget();
    }

    private void forget() {
        if (saved != null) {
            saved.close();
            saved = null;
        }
    }

    Buffer runningMean() {
        return requireNonNull(norm.runningMean());
    }

    Buffer runningVar() {
        return requireNonNull(norm.runningVar());
    }

    @Override
    List<Parameter> parameters() {
        return parameters;
    }
}
