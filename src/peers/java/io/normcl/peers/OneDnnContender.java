package io.normcl.peers;

import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_DIFF_DST;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_DIFF_SCALE;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_DIFF_SHIFT;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_DIFF_SRC;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_DST;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_MEAN;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_SCALE;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_SHIFT;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_SRC;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_VARIANCE;
import static org.bytedeco.dnnl.global.dnnl.dnnl_backward;
import static org.bytedeco.dnnl.global.dnnl.dnnl_cpu;
import static org.bytedeco.dnnl.global.dnnl.dnnl_forward_inference;
import static org.bytedeco.dnnl.global.dnnl.dnnl_forward_training;
import static org.bytedeco.dnnl.global.dnnl.dnnl_rms_norm;
import static org.bytedeco.dnnl.global.dnnl.dnnl_use_global_stats;
import static org.bytedeco.dnnl.global.dnnl.dnnl_use_scale;
import static org.bytedeco.dnnl.global.dnnl.dnnl_use_shift;

import io.normcl.bench.BenchCase;
import io.normcl.bench.BenchCase.Op;
import io.normcl.bench.BenchCase.Pass;
import io.normcl.bench.Rounds.Work;
import io.normcl.tensor.Layout;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;
import org.bytedeco.dnnl.IntMemoryMap;
import org.bytedeco.dnnl.batch_normalization_backward;
import org.bytedeco.dnnl.batch_normalization_forward;
import org.bytedeco.dnnl.engine;
import org.bytedeco.dnnl.group_normalization_backward;
import org.bytedeco.dnnl.group_normalization_forward;
import org.bytedeco.dnnl.layer_normalization_backward;
import org.bytedeco.dnnl.layer_normalization_forward;
import org.bytedeco.dnnl.memory;
import org.bytedeco.dnnl.primitive;
import org.bytedeco.dnnl.stream;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.Pointer;
import org.jspecify.annotations.Nullable;

/** oneDNN's primitive of a case, in the case's layout or in another that it may like better. */
final class OneDnnContender implements Contender {
    private static final engine ENGINE = new engine(dnnl_cpu, 0);
    private static final stream STREAM = new stream(ENGINE);
    private static final float EPS = 1e-5f;

    /** How the tensors are taken. */
    enum Order {
        /** As the case has them. */
        SAME,
        /** With the channels in blocks of 16. */
        BLOCKED,
        /** With the channels last. */
        LAST
    }

    private record Operation(@Nullable primitive made, List<IntMemoryMap> arguments, String remark) {}

    private final BenchCase timed;
    private final SharedTensors shared;
    private final Order order;
    private final memory.desc tensor;
    private final memory.desc values;
    private final FloatPointer gamma;
    private final FloatPointer beta;
    private final FloatPointer runningMean;
    private final FloatPointer runningVar;
    private final FloatPointer dGamma;
    private final FloatPointer dBeta;
    private final FloatPointer mean;
    private final FloatPointer variance;
    private final int affine;
    private final Map<Pass, Operation> operations = new EnumMap<>(Pass.class);

    /**
     * @param order how the tensors are taken; the values stay as they are, so that in another order than the case's the
     *     results say nothing
     */
    OneDnnContender(BenchCase timed, SharedTensors shared, Order order) {
        this.timed = timed;
        this.shared = shared;
        this.order = order;
        long[] dims = timed.shape().stream().mapToLong(Long::longValue).toArray();
        tensor = new memory.desc(dims, memory.data_type.f32, tag(dims.length));
        int parameters = shared.parameters();
        values = vector(parameters);
        gamma = new FloatPointer(shared.gamma());
        beta = new FloatPointer(shared.beta());
        runningMean = new FloatPointer(shared.runningMean());
        runningVar = new FloatPointer(shared.runningVar());
        dGamma = new FloatPointer(parameters);
        dBeta = new FloatPointer(parameters);
        long statistics =
                switch (timed.op()) {
                    case BATCH_NORM -> parameters;
                    case GROUP_NORM -> dims[0] * timed.groups();
                    default -> dims[0];
                };
        mean = new FloatPointer(statistics);
        variance = new FloatPointer(statistics);
        affine = timed.op() == Op.RMS_NORM ? dnnl_use_scale | dnnl_rms_norm : dnnl_use_scale | dnnl_use_shift;
        for (Pass pass : Pass.values()) {
            operations.put(pass, operation(pass));
        }
        Work training = pass(Pass.FORWARD_TRAINING);
        if (training != null) {
            training.run(0, 1, 1); // the statistics that backwards take
        }
    }

    private memory.format_tag tag(int dims) {
        if (order == Order.BLOCKED) {
            return dims == 4 ? memory.format_tag.aBcd16b : memory.format_tag.aBcde16b;
        }
        boolean last = order == Order.LAST || timed.layout() == Layout.CHANNELS_LAST;
        return switch (dims) {
            case 2 -> memory.format_tag.ab;
            case 3 -> last ? memory.format_tag.acb : memory.format_tag.abc;
            case 4 -> last ? memory.format_tag.acdb : memory.format_tag.abcd;
            default -> last ? memory.format_tag.acdeb : memory.format_tag.abcde;
        };
    }

    private static memory.desc vector(long size) {
        return new memory.desc(new long[] {size}, memory.data_type.f32, memory.format_tag.a);
    }

    private Operation operation(Pass pass) {
        try {
            return switch (timed.op()) {
                case BATCH_NORM -> batchNorm(pass);
                case GROUP_NORM -> groupNorm(pass);
                case LAYER_NORM, RMS_NORM -> layerNorm(pass);
                default -> new Operation(null, List.of(), "no such operation");
            };
        } catch (RuntimeException e) {
            return new Operation(null, List.of(), "refused: " + e.getMessage());
        }
    }

    private static int kind(Pass pass) {
        return pass == Pass.FORWARD_EVALUATION ? dnnl_forward_inference : dnnl_forward_training;
    }

    private Operation batchNorm(Pass pass) {
        boolean evaluation = pass == Pass.FORWARD_EVALUATION;
        int flags = affine | (evaluation ? dnnl_use_global_stats : 0);
        var forward = new batch_normalization_forward.primitive_desc(ENGINE, kind(pass), tensor, tensor, EPS, flags);
        if (pass != Pass.BACKWARD) {
            return operation(
                    pass,
                    new batch_normalization_forward(forward),
                    forward.impl_info_str().getString(),
                    evaluation ? runningMean : mean,
                    evaluation ? runningVar : variance);
        }
        var backward = new batch_normalization_backward.primitive_desc(
                ENGINE, dnnl_backward, tensor, tensor, tensor, EPS, flags, forward);
        return operation(
                pass, new batch_normalization_backward(backward), backward.impl_info_str().getString(), mean, variance);
    }

    private Operation groupNorm(Pass pass) {
        var forward = new group_normalization_forward.primitive_desc(
                ENGINE, kind(pass), tensor, tensor, timed.groups(), EPS, affine);
        if (pass != Pass.BACKWARD) {
            return operation(
                    pass,
                    new group_normalization_forward(forward),
                    forward.impl_info_str().getString(),
                    mean,
                    variance);
        }
        var backward = new group_normalization_backward.primitive_desc(
                ENGINE, dnnl_backward, tensor, tensor, tensor, timed.groups(), EPS, affine, forward);
        return operation(
                pass, new group_normalization_backward(backward), backward.impl_info_str().getString(), mean, variance);
    }

    private Operation layerNorm(Pass pass) {
        var forward =
                new layer_normalization_forward.primitive_desc(ENGINE, kind(pass), tensor, tensor, EPS, affine);
        if (pass != Pass.BACKWARD) {
            return operation(
                    pass,
                    new layer_normalization_forward(forward),
                    forward.impl_info_str().getString(),
                    mean,
                    variance);
        }
        var backward = new layer_normalization_backward.primitive_desc(
                ENGINE, dnnl_backward, tensor, tensor, tensor, EPS, affine, forward);
        return operation(
                pass, new layer_normalization_backward(backward), backward.impl_info_str().getString(), mean, variance);
    }

    /** The arguments of every set. */
    private Operation operation(
            Pass pass, primitive made, String implementation, FloatPointer means, FloatPointer variances) {
        boolean statistics = timed.op() == Op.BATCH_NORM || pass != Pass.FORWARD_EVALUATION;
        long[] dims = timed.op() == Op.GROUP_NORM
                ? new long[] {timed.shape().get(0), timed.groups()}
                : new long[] {means.capacity()};
        memory.desc of = new memory.desc(
                dims, memory.data_type.f32, dims.length == 1 ? memory.format_tag.a : memory.format_tag.ab);
        memory meanMemory = memory(of, means);
        memory varianceMemory = memory(of, variances);
        memory scale = memory(values, gamma);
        memory shift = memory(values, beta);
        memory diffScale = memory(values, dGamma);
        memory diffShift = memory(values, dBeta);
        List<IntMemoryMap> arguments = new ArrayList<>();
        for (int i = 0; i < shared.count(); i++) {
            SharedTensors.Set set = shared.set(i);
            IntMemoryMap map = new IntMemoryMap()
                    .put(DNNL_ARG_SRC, memory(tensor, set.x()))
                    .put(DNNL_ARG_SCALE, scale);
            if (statistics) {
                if (timed.op() != Op.RMS_NORM) {
                    map.put(DNNL_ARG_MEAN, meanMemory);
                }
                map.put(DNNL_ARG_VARIANCE, varianceMemory);
            }
            if (pass == Pass.BACKWARD) {
                map.put(DNNL_ARG_DIFF_DST, memory(tensor, set.dy()));
                map.put(DNNL_ARG_DIFF_SRC, memory(tensor, set.dx()));
                map.put(DNNL_ARG_DIFF_SCALE, diffScale);
                if (timed.op() != Op.RMS_NORM) {
                    map.put(DNNL_ARG_DIFF_SHIFT, diffShift);
                }
            } else {
                map.put(DNNL_ARG_DST, memory(tensor, set.y()));
                if (timed.op() != Op.RMS_NORM) {
                    map.put(DNNL_ARG_SHIFT, shift);
                }
            }
            arguments.add(map);
        }
        return new Operation(made, arguments, implementation);
    }

    private static memory memory(memory.desc of, Pointer at) {
        return new memory(of, ENGINE, at);
    }

    @Override
    public String name() {
        return order == Order.SAME ? Result.ONEDNN : Result.ONEDNN_BEST;
    }

    @Override
    public @Nullable Work pass(Pass pass) {
        Operation operation = operations.get(pass);
        if (operation == null || operation.made() == null) {
            return null;
        }
        primitive made = operation.made();
        return new Work(set -> made.execute(STREAM, operation.arguments().get(set)), STREAM::_wait);
    }

    @Override
    public String remark(Pass pass) {
        Operation operation = operations.get(pass);
        return operation == null ? "" : operation.remark();
    }

    @Override
    public void fetch(Pass pass) {
        dGamma.get(shared.dGamma());
        if (timed.op() == Op.RMS_NORM) {
            Arrays.fill(shared.dBeta(), 0);
        } else {
            dBeta.get(shared.dBeta());
        }
    }

    @Override
    public void close() {
        for (Operation operation : operations.values()) {
            operation.arguments().forEach(Pointer::close);
            if (operation.made() != null) {
                operation.made().close();
            }
        }
        List.of(gamma, beta, runningMean, runningVar, dGamma, dBeta, mean, variance).forEach(Pointer::close);
    }
}
