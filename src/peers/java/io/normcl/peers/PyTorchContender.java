package io.normcl.peers;

import io.normcl.bench.BenchCase;
import io.normcl.bench.BenchCase.Op;
import io.normcl.bench.BenchCase.Pass;
import io.normcl.bench.Rounds.Work;
import io.normcl.tensor.Layout;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.bytedeco.javacpp.BoolPointer;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.DoubleOptional;
import org.bytedeco.pytorch.NoGradGuard;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.global.torch;
import org.jspecify.annotations.Nullable;

/**
 * PyTorch's operators of a case, without autograd: with outputs that are there beforehand ({@code _out}), or, where PyTorch
 * makes these by copying, with outputs of their own too. Those of a set are kept until the set's next turn, so that what is
 * then allocated is their memory: it rotates as all else does.
 */
final class PyTorchContender implements Contender {
    private static final double EPS = 1e-5;

    private record Set(Tensor x, Tensor y, Tensor dy, Tensor dx) {}

    private final BenchCase timed;
    private final SharedTensors shared;
    private final boolean out;
    private final NoGradGuard guard = new NoGradGuard();
    private final List<Set> sets = new ArrayList<>();
    private final Map<Integer, Pointer> own = new HashMap<>();
    private final List<Pointer> made = new ArrayList<>();
    private final FloatPointer[] parameters;
    private final TensorOptional gamma;
    private final TensorOptional beta;
    private final TensorOptional runningMean;
    private final TensorOptional runningVar;
    private final TensorOptional none = new TensorOptional();
    private final Tensor dGamma;
    private final Tensor dBeta;
    private final Tensor mean;
    private final Tensor invStd;
    private final BoolPointer mask = new BoolPointer(3);
    private final long n;
    private final long c;
    private final long places;
    private final long[] row;

    /**
     * @param out whether outputs are there beforehand
     */
    PyTorchContender(BenchCase timed, SharedTensors shared, boolean out) {
        this.timed = timed;
        this.shared = shared;
        this.out = out;
        n = timed.shape().get(0);
        c = timed.shape().get(1);
        places = timed.elements() / n / c;
        row = timed.shape().stream().skip(1).mapToLong(Long::longValue).toArray();
        long[] sizes = timed.shape().stream().mapToLong(Long::longValue).toArray();
        long[] strides = strides(sizes, timed.layout());
        for (int i = 0; i < shared.count(); i++) {
            SharedTensors.Set set = shared.set(i);
            sets.add(new Set(
                    torch.from_blob(set.x(), sizes, strides),
                    torch.from_blob(set.y(), sizes, strides),
                    torch.from_blob(set.dy(), sizes, strides),
                    torch.from_blob(set.dx(), sizes, strides)));
        }
        parameters = new FloatPointer[] {
            new FloatPointer(shared.gamma()),
            new FloatPointer(shared.beta()),
            new FloatPointer(shared.runningMean()),
            new FloatPointer(shared.runningVar()),
            new FloatPointer(shared.parameters()),
            new FloatPointer(shared.parameters())
        };
        boolean rows = timed.op() == Op.LAYER_NORM || timed.op() == Op.RMS_NORM;
        long[] shape = rows ? row : new long[] {c};
        gamma = new TensorOptional(torch.from_blob(parameters[0], shape));
        beta = new TensorOptional(torch.from_blob(parameters[1], shape));
        runningMean = new TensorOptional(torch.from_blob(parameters[2], shape));
        runningVar = new TensorOptional(torch.from_blob(parameters[3], shape));
        dGamma = torch.from_blob(parameters[4], shape);
        dBeta = torch.from_blob(parameters[5], shape);
        long[] statistics =
                switch (timed.op()) {
                    case BATCH_NORM -> new long[] {c};
                    case GROUP_NORM -> new long[] {n, timed.groups()};
                    default -> ones(sizes);
                };
        mean = torch.empty(statistics);
        invStd = torch.empty(statistics);
        for (int i = 0; i < 3; i++) {
            mask.put(i, true);
        }
        made.addAll(List.of(gamma, beta, runningMean, runningVar, none, dGamma, dBeta, mean, invStd, mask));
        if (timed.op() != Op.RMS_NORM) {
            withOutputs(Pass.FORWARD_TRAINING, sets.get(0)); // the statistics that backwards take
        }
    }

    private static long[] strides(long[] sizes, Layout layout) {
        long[] strides = new long[sizes.length];
        long stride = layout == Layout.CHANNELS_LAST ? sizes[1] : 1;
        for (int i = sizes.length - 1; i >= 0; i--) {
            if (layout == Layout.CHANNELS_LAST && i == 1) {
                strides[i] = 1;
            } else {
                strides[i] = stride;
                stride *= sizes[i];
            }
        }
        return strides;
    }

    /** (N, 1, ...), as the statistics of layer norm are. */
    private static long[] ones(long[] sizes) {
        long[] ones = new long[sizes.length];
        Arrays.fill(ones, 1);
        ones[0] = sizes[0];
        return ones;
    }

    private void withOutputs(Pass pass, Set set) {
        boolean training = pass == Pass.FORWARD_TRAINING;
        switch (timed.op()) {
            case BATCH_NORM -> {
                if (pass == Pass.BACKWARD) {
                    torch.native_batch_norm_backward_out(
                            set.dx(), dGamma, dBeta, set.dy(), set.x(), gamma, none, none, new TensorOptional(mean),
                            new TensorOptional(invStd), true, EPS, mask);
                } else {
                    torch.native_batch_norm_out(
                            set.y(), mean, invStd, set.x(), gamma, beta, training ? none : runningMean,
                            training ? none : runningVar, training, 0.1, EPS);
                }
            }
            case GROUP_NORM -> {
                if (pass == Pass.BACKWARD) {
                    torch.native_group_norm_backward_out(
                            set.dx(), dGamma, dBeta, set.dy(), set.x(), mean, invStd, gamma, n, c, places,
                            timed.groups(), mask);
                } else {
                    torch.native_group_norm_out(
                            set.y(), mean, invStd, set.x(), gamma, beta, n, c, places, timed.groups(), EPS);
                }
            }
            case LAYER_NORM -> {
                if (pass == Pass.BACKWARD) {
                    torch.native_layer_norm_backward_out(
                            set.dx(), dGamma, dBeta, set.dy(), set.x(), row, mean, invStd, gamma, beta, mask);
                } else {
                    torch.native_layer_norm_out(set.y(), mean, invStd, set.x(), row, gamma, beta, EPS);
                }
            }
            default -> throw new IllegalStateException("no such operator: " + timed.op());
        }
    }

    private Pointer withoutOutputs(Pass pass, Set set) {
        boolean training = pass == Pass.FORWARD_TRAINING;
        boolean backward = pass == Pass.BACKWARD;
        return switch (timed.op()) {
            case BATCH_NORM ->
                backward
                        ? torch.native_batch_norm_backward(
                                set.dy(), set.x(), gamma, none, none, new TensorOptional(mean),
                                new TensorOptional(invStd), true, EPS, mask)
                        : torch.native_batch_norm(
                                set.x(), gamma, beta, training ? none : runningMean, training ? none : runningVar,
                                training, 0.1, EPS);
            case GROUP_NORM ->
                backward
                        ? torch.native_group_norm_backward(
                                set.dy(), set.x(), mean, invStd, gamma, n, c, places, timed.groups(), mask)
                        : torch.native_group_norm(set.x(), gamma, beta, n, c, places, timed.groups(), EPS);
            case LAYER_NORM ->
                backward
                        ? torch.native_layer_norm_backward(set.dy(), set.x(), row, mean, invStd, gamma, beta, mask)
                        : torch.native_layer_norm(set.x(), row, gamma, beta, EPS);
            case RMS_NORM -> torch.rms_norm(set.x(), row, gamma, new DoubleOptional(EPS));
            default -> throw new IllegalStateException("no such operator: " + timed.op());
        };
    }

    @Override
    public String name() {
        return out ? "pytorch" : "pytorch_own";
    }

    @Override
    public @Nullable Work pass(Pass pass) {
        boolean offered =
                switch (timed.op()) {
                    case BATCH_NORM -> out || pass == Pass.BACKWARD;
                    case GROUP_NORM, LAYER_NORM -> true;
                    case RMS_NORM -> !out && pass != Pass.BACKWARD;
                    default -> false;
                };
        if (!offered) {
            return null;
        }
        return Work.done(set -> {
            try (PointerScope scope = new PointerScope()) {
                if (out) {
                    withOutputs(pass, sets.get(set));
                } else {
                    Pointer before = own.remove(set);
                    if (before != null) {
                        before.close();
                    }
                    Pointer outputs = withoutOutputs(pass, sets.get(set));
                    scope.detach(outputs);
                    own.put(set, outputs);
                }
            }
        });
    }

    @Override
    public String remark(Pass pass) {
        return pass(pass) != null
                ? out ? "outputs beforehand" : "outputs of its own"
                : timed.op() != Op.RMS_NORM
                        ? "no such operation"
                        : pass == Pass.BACKWARD ? "only through autograd" : "only with outputs of its own";
    }

    @Override
    public void fetch(Pass pass) {
        if (!out) {
            try (PointerScope scope = new PointerScope()) {
                Set set = sets.get(0);
                if (timed.op() == Op.RMS_NORM) {
                    set.y().copy_(torch.rms_norm(set.x(), row, gamma, new DoubleOptional(EPS)));
                } else {
                    withOutputs(pass, set); // what it allocated is gone; the operator is the same
                }
            }
        }
        parameters[4].get(shared.dGamma());
        parameters[5].get(shared.dBeta());
    }

    @Override
    public void close() {
        for (Set set : sets) {
            List.of(set.x(), set.y(), set.dy(), set.dx()).forEach(Pointer::close);
        }
        own.values().forEach(Pointer::close);
        made.forEach(Pointer::close);
        List.of(parameters).forEach(Pointer::close);
        guard.close();
    }
}
