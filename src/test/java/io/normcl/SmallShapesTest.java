package io.normcl;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.DynamicTest.dynamicTest;

import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.device.KernelTime;
import io.normcl.device.Limits;
import io.normcl.device.Limits.ReadsAhead;
import io.normcl.device.OtherLimits;
import io.normcl.device.Range;
import io.normcl.plan.CopyPlan;
import io.normcl.plan.Family;
import io.normcl.plan.KernelCall;
import io.normcl.plan.Tuning;
import io.normcl.sync.ChannelMoments;
import io.normcl.sync.ChannelSums;
import io.normcl.tensor.Activation;
import io.normcl.tensor.DataType;
import io.normcl.tensor.Layout;
import io.normcl.tensor.Lengths;
import io.normcl.tensor.Tensor;
import java.io.IOException;
import java.lang.reflect.Field;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Random;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.Executor;
import java.util.function.BiFunction;
import java.util.function.Consumer;
import java.util.function.Function;
import java.util.function.UnaryOperator;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

/**
 * Every kernel at small shapes on oclgrind, which logs races, diverging barriers, accesses out of bounds and values that
 * nobody wrote; the log must stay empty. Whether the numbers are right other tests say.
 *
 * <p>Fill memory by writing: to oclgrind, what {@code clEnqueueFillBuffer} filled is not written. Outputs are best left
 * unwritten, so that a value that a kernel leaves out shows.
 */
@Tag("oclgrind")
class SmallShapesTest {
    private static final Path LOG = Path.of(Objects.requireNonNullElse(System.getenv("OCLGRIND_LOG"), "no log"));
    private static final Random RANDOM = new Random(1);
    private static final int MOST_BYTES = 1 << 18;
    private static final int MOST_TOLD = 4000;
    private static final Form PLAIN = floats(SmallShapesTest::few);
    private static final List<Form> FORMS = List.of(
            PLAIN,
            new Form(DataType.FLOAT, Activation.NONE, true, SmallShapesTest::pairs),
            new Form(DataType.HALF, Activation.leakyRelu(0.1), true, SmallShapesTest::few),
            new Form(DataType.BFLOAT16, Activation.SILU, true, SmallShapesTest::pairs));
    private final Set<String> launched = new TreeSet<>();

    /** Some launches on a device of some limits; what they allocate in the rig must all be written when they are done. */
    private record Case(String name, UnaryOperator<Limits> limits, Consumer<Rig> launches) {}

    /** How tensors are stored and what is fused, and on a device of what limits. */
    private record Form(DataType type, Activation activation, boolean residual, UnaryOperator<Limits> limits) {
        @Override
        public String toString() {
            return type + (residual ? " residual " : " ") + activation.kind();
        }
    }

    private static Form floats(UnaryOperator<Limits> limits) {
        return new Form(DataType.FLOAT, Activation.NONE, false, limits);
    }

    /** One compute unit: to oclgrind, groups that wait for one another race. */
    private static Limits one(Limits own) {
        return limits(own, own.maxWorkGroupSize(), own.cacheBytes(), own.fp64());
    }

    /** Work-groups of 16, which take no less than larger ones and are sooner done. */
    private static Limits few(Limits own) {
        return limits(own, 16, own.cacheBytes(), own.fp64());
    }

    /** Without double, with floats in pairs; without a cache that stores must spare. */
    private static Limits pairs(Limits own) {
        return limits(own, 4, 1, false);
    }

    /** A cache that rows side by side need. */
    private static Limits cached(Limits own) {
        return limits(own, 16, 1 << 20, own.fp64());
    }

    /** A CPU that reads ahead while it sums. */
    private static Limits ahead(Limits own) {
        return limits(own, own.maxWorkGroupSize(), own.cacheBytes(), own.fp64(), ReadsAhead.SUMMING);
    }

    private static Limits limits(Limits own, long workGroup, long cache, boolean fp64) {
        return limits(own, workGroup, cache, fp64, own.readsAhead());
    }

    private static Limits limits(Limits own, long workGroup, long cache, boolean fp64, ReadsAhead readsAhead) {
        return new Limits(
                own.cpu(),
                1,
                workGroup,
                own.localMemoryBytes(),
                own.maxAllocationBytes(),
                own.globalMemoryBytes(),
                cache,
                fp64,
                own.loopSteps(),
                readsAhead);
    }

    /** A kernel or layer more is a line more. */
    private static Stream<Case> cases() {
        return Stream.of(
                        copy(Family.WIDE, 100),
                        copy(Family.COOPERATIVE, 3000),
                        batchNorms(own -> own, 3, 5, 7), // odd: vectors of one
                        batchNorms(SmallShapesTest::few, 2, 4, 20), // vectors of four, parts of sixteen
                        batchNorms(SmallShapesTest::few, 9, 2, 1), // rows of channels alone
                        batchNorms(SmallShapesTest::few, 3, 18, 2), // two tiles
                        batchNorms(SmallShapesTest::pairs, 2, 1, 130), // several splits
                        batch(Layout.CHANNELS_FIRST, null, 2, 2, 18), // one whole vector of sixteen and an end
                        batch(Layout.CHANNELS_LAST, null, 2, 3, 18),
                        batch(Layout.CHANNELS_FIRST, null, 256, 3, 2), // places as columns
                        batch(Layout.CHANNELS_LAST, null, 33, 1, 16), // sums in registers
                        batchSteps(Layout.CHANNELS_LAST, null, 258, 1, 3), // more places than are taken whole
                        batchSteps(Layout.CHANNELS_LAST, new int[] {2, 0}, 2, 2, 3, 18),
                        batchSteps(Layout.CHANNELS_LAST, null, 9, 1, 1280), // two whole tiles, rows side by side
                        blocksOfTiles(17, 1, 2064),
                        batchSteps(Layout.CHANNELS_FIRST, null, 256, 3, 2),
                        batchSteps(Layout.CHANNELS_FIRST, new int[] {18, 0}, 2, 1, 2, 19),
                        batch(Layout.CHANNELS_FIRST, new int[] {18, 0}, 2, 1, 2, 19),
                        batch(Layout.CHANNELS_LAST, new int[] {2, 0}, 2, 2, 3, 18),
                        replicas(Layout.CHANNELS_FIRST, null),
                        replicas(Layout.CHANNELS_LAST, new int[] {3, 0, 7, 1, 2, 7}),
                        layer(3, 18), // fewer rows than a work-group takes
                        layer(9, 20), // several rows of a work-group's registers, with idle columns
                        layer(3, 70), // more than registers of few work-items hold
                        rms(3, 18),
                        layerInOnePass(floats(SmallShapesTest::pairs), 130, 3, null),
                        layerInOnePass(PLAIN, 130, 3, null), // partial results that work-items share
                        layerInOnePass(floats(own -> own), 5, 530, 1), // a CPU writes rows while it adds the next ones
                        layerInOnePass(
                                floats(SmallShapesTest::cached), 11, 2064, 1), // four rows of a CPU's forward at once
                        layerInOnePass(floats(SmallShapesTest::ahead), 5, 70, 1), // the same one by one
                        layerInOnePass(
                                new Form(DataType.HALF, Activation.NONE, false, SmallShapesTest::ahead), 35, 1030, 1),
                        layerInOnePass(FORMS.get(2), 130, 7, 1), // sums down columns of 16 bits, in floats first
                        group(Layout.CHANNELS_FIRST, null, 1, 4, 18),
                        group(Layout.CHANNELS_FIRST, null, 9, 4, 16), // a CPU writes rows while it sums the next ones
                        group(Layout.CHANNELS_FIRST, null, 2, 36), // a gamma for each value
                        group(Layout.CHANNELS_LAST, null, 1, 3, 36),
                        group(Layout.CHANNELS_FIRST, new int[] {18, 0}, 2, 4, 1, 19),
                        group(Layout.CHANNELS_LAST, new int[] {2, 0}, 2, 1, 3, 36),
                        group(Layout.CHANNELS_FIRST, new int[] {1, 0}, 2, 4, 1),
                        perPlace(Layout.CHANNELS_FIRST, 1, 4, 18),
                        instance(Layout.CHANNELS_FIRST, null, 2, 2, 18),
                        instance(Layout.CHANNELS_LAST, new int[] {4, 0}, 2, 5, 2),
                        train("bias.cl", "train_bias_rows", 70, rig -> args(read(rig, 7), rig.floats(70), 70, 7)),
                        train("bias.cl", "train_bias_sums", 7, rig -> args(read(rig, 70), rig.floats(7), 10, 7)),
                        train(
                                "convolution.cl",
                                "train_im2col",
                                24,
                                rig -> args(read(rig, 24 * 3), rig.floats(24 * 3 * 9), 24, 4, 3, 3)),
                        train(
                                "convolution.cl",
                                "train_col2im",
                                24,
                                rig -> args(read(rig, 24 * 3 * 9), rig.floats(24 * 3), 24, 4, 3, 3)),
                        train(
                                "loss.cl",
                                "train_softmax_cross_entropy",
                                5,
                                rig -> args(
                                        read(rig, 50),
                                        rig.floats(new float[5]),
                                        rig.floats(10),
                                        rig.floats(50),
                                        5,
                                        10,
                                        0.2f)),
                        train(
                                "pool.cl",
                                "train_relu_pool",
                                12,
                                rig -> args(read(rig, 48 * 3), rig.floats(12 * 3), 12, 4, 6, 3, 0)),
                        train(
                                "pool.cl",
                                "train_relu_pool",
                                12,
                                rig -> args(read(rig, 48 * 3), rig.floats(12 * 3), 12, 4, 6, 3, 1)),
                        train(
                                "pool.cl",
                                "train_relu_pool_backward",
                                12,
                                rig -> args(read(rig, 48 * 3), read(rig, 12 * 3), rig.floats(48 * 3), 12, 4, 6, 3, 0)),
                        train(
                                "pool.cl",
                                "train_relu_pool_backward",
                                12,
                                rig -> args(read(rig, 48 * 3), read(rig, 12 * 3), rig.floats(48 * 3), 12, 4, 6, 3, 1)),
                        train(
                                "sgd.cl",
                                "train_sgd",
                                70,
                                rig -> args(read(rig, 70), read(rig, 75), read(rig, 75), 5, 70, 0.1f, 0.9f, 0.01f)))
                .flatMap(s -> s);
    }

    private static Stream<Case> copy(Family family, int count) {
        return Stream.of(new Case(
                "copy " + family, own -> own, rig -> copy(family, read(rig, count), rig.floats(count), count)));
    }

    private static void copy(Family family, Buffer x, Buffer y, long count) {
        Device device = x.device();
        Limits own = device.limits();
        Limits limits = new Limits(
                family == Family.WIDE,
                own.computeUnits(),
                own.maxWorkGroupSize(),
                own.localMemoryBytes(),
                own.maxAllocationBytes(),
                own.globalMemoryBytes(),
                own.cacheBytes(),
                own.fp64(),
                own.loopSteps(),
                own.readsAhead());
        KernelCall call = CopyPlan.of(count, limits, false).calls().get(0);
        device.enqueue(device.kernel(call.file(), call.kernel(), call.defines()), call.range(), x, y, count);
    }

    /** Both families, layouts and plans. */
    private static Stream<Case> batchNorms(UnaryOperator<Limits> limits, int n, int c, int s) {
        return Stream.of(Layout.values()).flatMap(layout -> {
            long[] shape = Rig.shape(layout, n, c, s);
            Function<Tuning, Consumer<Rig>> launches = tuning -> rig -> {
                try (BatchNorm norm = BatchNorm.open(rig.device(), BatchNormSpec.of(c), tuning)) {
                    passes(rig, PLAIN, layout, shape, norm, c, in -> in);
                }
            };
            String name = name("batch norm", layout, null, shape);
            UnaryOperator<Limits> steps = own -> one(limits.apply(own));
            return Stream.of(
                    plan(name, Family.WIDE, steps, true, launches),
                    plan(name, Family.WIDE, limits, false, launches),
                    plan(name, Family.COOPERATIVE, limits, true, launches),
                    plan(name, Family.COOPERATIVE, limits, false, launches));
        });
    }

    /** Rows enough for dGamma and dBeta to come out of dx's pass. */
    private static Stream<Case> layerInOnePass(Form form, int rows, int d, Integer splits) {
        return plans("layer norm in one pass " + form, form.limits(), true, tuning -> rig -> {
            Tuning cut = splits == null ? tuning : tuning.withSplits(splits);
            try (LayerNorm norm = LayerNorm.open(rig.device(), LayerNormSpec.of(d), cut)) {
                passes(rig, form, Layout.CHANNELS_FIRST, new long[] {rows, d}, norm, d, in -> in);
            }
        });
    }

    /** Every form, family and plan, where there are kernels of one launch and others. */
    private static Stream<Case> forms(
            String name, boolean oneLaunch, BiFunction<Form, Tuning, Consumer<Rig>> launches) {
        return FORMS.stream()
                .flatMap(form -> Stream.of(true, false)
                        .filter(fused -> oneLaunch || !fused)
                        .flatMap(fused -> plans(
                                name + " " + form, form.limits(), fused, tuning -> launches.apply(form, tuning))));
    }

    private static Stream<Case> plans(
            String name, UnaryOperator<Limits> limits, boolean fused, Function<Tuning, Consumer<Rig>> launches) {
        return Stream.of(Family.values()).map(family -> plan(name, family, limits, fused, launches));
    }

    private static Case plan(
            String name,
            Family family,
            UnaryOperator<Limits> limits,
            boolean fused,
            Function<Tuning, Consumer<Rig>> launches) {
        return new Case(
                name + " " + family + (fused ? " fused" : ""),
                limits,
                launches.apply(Tuning.of(family).withFused(fused)));
    }

    private static Stream<Case> batch(Layout layout, int[] lengths, long... shape) {
        return forms(
                name("batch norm", layout, lengths, shape),
                lengths == null,
                (form, tuning) -> batch(layout, lengths, form, tuning, shape));
    }

    /** A CPU's own plan. */
    private static Stream<Case> batchSteps(Layout layout, int[] lengths, long... shape) {
        String name = name("batch norm in steps", layout, lengths, shape) + " ";
        return FORMS.stream()
                .map(form -> new Case(
                        name + form, form.limits(), batch(layout, lengths, form, Tuning.of(Family.WIDE), shape)));
    }

    /** Long rows, of whose narrow tiles no cache holds several. */
    private static Stream<Case> blocksOfTiles(long... shape) {
        return Stream.of(new Case(
                name("batch norm in blocks of tiles", Layout.CHANNELS_LAST, null, shape),
                own -> limits(own, 16, 1, own.fp64()),
                batch(Layout.CHANNELS_LAST, null, PLAIN, Tuning.of(Family.WIDE), shape)));
    }

    private static Consumer<Rig> batch(Layout layout, int[] lengths, Form form, Tuning tuning, long... shape) {
        int c = channels(layout, shape);
        BatchNormSpec spec = BatchNormSpec.of(c).withActivation(form.activation());
        return rig -> {
            try (BatchNorm norm = BatchNorm.open(rig.device(), spec, tuning)) {
                passes(rig, form, layout, shape, norm, c, in -> masked(rig, in, lengths));
            }
        };
    }

    /** Groups of one channel, with running statistics. */
    private static Stream<Case> instance(Layout layout, int[] lengths, long... shape) {
        int c = channels(layout, shape);
        String name = name("instance norm", layout, lengths, shape);
        return plans(name, SmallShapesTest::pairs, lengths == null, tuning -> rig -> {
            InstanceNormSpec spec = InstanceNormSpec.of(c).withRunningStatistics(true);
            try (InstanceNorm norm = InstanceNorm.open(rig.device(), spec, tuning)) {
                passes(rig, PLAIN, layout, shape, norm, c, in -> masked(rig, in, lengths));
            }
        });
    }

    /** Two groups. */
    private static Stream<Case> group(Layout layout, int[] lengths, long... shape) {
        int c = channels(layout, shape);
        return forms(name("group norm", layout, lengths, shape), lengths == null, (form, tuning) -> rig -> {
            GroupNormSpec spec = GroupNormSpec.of(2, c).withActivation(form.activation());
            try (GroupNorm norm = GroupNorm.open(rig.device(), spec, tuning)) {
                passes(rig, form, layout, shape, norm, c, in -> masked(rig, in, lengths));
            }
        });
    }

    private static Stream<Case> perPlace(Layout layout, long... shape) {
        int c = channels(layout, shape);
        return forms(name("norm per location", layout, null, shape), false, (form, tuning) -> rig -> {
            GroupNormSpec spec = GroupNormSpec.of(2, c).withPerLocation(true).withActivation(form.activation());
            try (GroupNorm norm = GroupNorm.open(rig.device(), spec, tuning)) {
                passes(rig, form, layout, shape, norm, c, in -> in);
            }
        });
    }

    /** All dimensions but the first are normalized. */
    private static Stream<Case> layer(long... shape) {
        long[] row = Arrays.copyOfRange(shape, 1, shape.length);
        return forms(name("layer norm", Layout.CHANNELS_FIRST, null, shape), true, (form, tuning) -> rig -> {
            LayerNormSpec spec = LayerNormSpec.of(row).withActivation(form.activation());
            try (LayerNorm norm = LayerNorm.open(rig.device(), spec, tuning)) {
                sums(rig, form, shape, norm, (int) (product(shape) / shape[0]));
            }
        });
    }

    private static Stream<Case> rms(long... shape) {
        long[] row = Arrays.copyOfRange(shape, 1, shape.length);
        return forms(name("RMS norm", Layout.CHANNELS_FIRST, null, shape), true, (form, tuning) -> rig -> {
            RmsNormSpec spec = RmsNormSpec.of(row).withActivation(form.activation());
            try (RmsNorm norm = RmsNorm.open(rig.device(), spec, tuning)) {
                sums(rig, form, shape, norm, (int) (product(shape) / shape[0]));
            }
        });
    }

    /** Without an addend, and with one whose sum is apart, in x's place or in the addend's. */
    private static void sums(Rig rig, Form form, long[] shape, NormLayer norm, int parameters) {
        Layout layout = Layout.CHANNELS_FIRST;
        passes(rig, form, layout, shape, norm, parameters, in -> in);
        Tensor addend = read(rig, form, layout, shape);
        Tensor sum = unwritten(rig, form, layout, shape);
        pass(rig, form, layout, shape, norm, parameters, in -> in.withAddend(addend, sum));
        pass(rig, form, layout, shape, norm, parameters, in -> in.withAddend(addend, in.x()));
        pass(rig, form, layout, shape, norm, parameters, in -> in.withAddend(addend, addend));
    }

    /** Forward and backward. */
    private static void pass(
            Rig rig,
            Form form,
            Layout layout,
            long[] shape,
            NormLayer norm,
            int parameters,
            UnaryOperator<Input> more) {
        Input in = more.apply(input(rig, form, layout, shape));
        try (Saved saved = forward(norm, Mode.TRAINING, in, unwritten(rig, form, layout, shape))) {
            Gradients out =
                    Gradients.of(unwritten(rig, form, layout, shape), rig.floats(parameters), rig.floats(parameters));
            backward(norm, saved, in, read(rig, form, layout, shape), out);
        }
    }

    /** Every mode, forward, backward and commit, with outputs of their own and in place. */
    private static void passes(
            Rig rig,
            Form form,
            Layout layout,
            long[] shape,
            NormLayer norm,
            int parameters,
            UnaryOperator<Input> more) {
        boolean running = norm instanceof BatchNorm || norm instanceof InstanceNorm;
        for (Mode mode : running ? Mode.values() : new Mode[] {Mode.TRAINING}) {
            Input in = more.apply(input(rig, form, layout, shape));
            Tensor dy = read(rig, form, layout, shape);
            Tensor dz = unwritten(rig, form, layout, shape);
            Buffer dGamma = rig.floats(parameters);
            Buffer dBeta = rig.floats(parameters);
            try (Saved saved = forward(norm, mode, in, unwritten(rig, form, layout, shape))) {
                Gradients out = Gradients.of(unwritten(rig, form, layout, shape), dGamma, dBeta);
                backward(norm, saved, in, dy, out.withDz(dz));
                backward(norm, saved, in, dy, Gradients.of(null, dGamma, dBeta).withAccumulate(true));
                backward(norm, saved, in, dy, Gradients.of(dy, dGamma, dBeta));
                if (norm instanceof BatchNorm batch) {
                    batch.commit(saved);
                } else if (norm instanceof InstanceNorm instance) {
                    instance.commit(saved);
                }
            }
            forward(norm, mode, in, in.x()).close();
        }
    }

    private static Saved forward(NormLayer norm, Mode mode, Input in, Tensor y) {
        if (norm instanceof BatchNorm batch) {
            return batch.forward(mode, in, y);
        }
        return norm instanceof InstanceNorm instance ? instance.forward(mode, in, y) : ((RowNorm) norm).forward(in, y);
    }

    private static void backward(NormLayer norm, Saved saved, Input in, Tensor dy, Gradients out) {
        if (norm instanceof BatchNorm batch) {
            batch.backward(saved, in, dy, out);
        } else {
            ((RowNorm) norm).backward(saved, in, dy, out);
        }
    }

    /** Synchronized over shards of two, no and four samples, and as two micro-batches. */
    private static Stream<Case> replicas(Layout layout, int[] lengths) {
        return forms(name("replicas", layout, lengths, 6, 4, 7), false, (form, tuning) -> rig -> {
            int[] samples = {2, 0, 4};
            int from = 0;
            List<BatchNorm> norms = new ArrayList<>();
            List<Input> ins = new ArrayList<>();
            List<Tensor> ys = new ArrayList<>();
            List<Tensor> dys = new ArrayList<>();
            List<Gradients> outs = new ArrayList<>();
            for (int n : samples) {
                long[] shape = Rig.shape(layout, n, 4, 7);
                int[] own = lengths == null ? null : Arrays.copyOfRange(lengths, from, from + n);
                norms.add(BatchNorm.open(rig.device(), BatchNormSpec.of(4).withActivation(form.activation()), tuning));
                ins.add(masked(rig, input(rig, form, layout, shape), own));
                ys.add(unwritten(rig, form, layout, shape));
                dys.add(read(rig, form, layout, shape));
                outs.add(Gradients.of(unwritten(rig, form, layout, shape), read(rig, 4), read(rig, 4))
                        .withDz(unwritten(rig, form, layout, shape))
                        .withAccumulate(true)); // an empty shard's would be filled
                from += n;
            }
            Replicas replicas = Replicas.of(norms);
            List<Saved> saved = replicas.forward(ins, ys);
            replicas.backward(saved, ins, dys, outs);
            for (int i = 0; i < norms.size(); i++) {
                norms.get(i).commit(saved.get(i));
                saved.get(i).close();
            }
            microBatches(norms.get(0), ins, ys, dys, outs);
            norms.forEach(BatchNorm::close);
        });
    }

    private static void microBatches(
            BatchNorm norm, List<Input> ins, List<Tensor> ys, List<Tensor> dys, List<Gradients> outs) {
        ChannelMoments moments = new ChannelMoments(norm.spec().channels());
        ins.forEach(in -> moments.merge(norm.moments(in)));
        ChannelSums sums = new ChannelSums(norm.spec().channels());
        List<Saved> saved = new ArrayList<>();
        for (int i = 0; i < ins.size(); i++) {
            saved.add(norm.forward(ins.get(i), ys.get(i), moments));
            sums.add(norm.sums(saved.get(i), ins.get(i), dys.get(i), outs.get(i).withAccumulate(i > 0)));
        }
        for (int i = 0; i < ins.size(); i++) {
            norm.backward(saved.get(i), ins.get(i), dys.get(i), outs.get(i), sums);
            saved.get(i).close();
        }
        norm.commit(moments, NonFinite.PROPAGATE);
    }

    private static Input input(Rig rig, Form form, Layout layout, long... shape) {
        Input in = Input.of(read(rig, form, layout, shape));
        return form.residual() ? in.withResidual(read(rig, form, layout, shape)) : in;
    }

    private static Input masked(Rig rig, Input in, int[] lengths) {
        return lengths == null ? in : in.withLengths(Lengths.of(rig.device(), lengths));
    }

    private static Tensor unwritten(Rig rig, Form form, Layout layout, long... shape) {
        return Tensor.of(rig.floats(floats(form, shape)), form.type(), layout, shape);
    }

    /** Of any type: two numbers of 16 bits make a float. */
    private static Tensor read(Rig rig, Form form, Layout layout, long... shape) {
        float[] values = Rig.normal(RANDOM, floats(form, shape));
        for (int i = 0; i < values.length && form.type() != DataType.FLOAT; i++) {
            values[i] = Float.intBitsToFloat(RANDOM.nextInt() & 0xbfffbfff); // of magnitudes below 2
        }
        return Tensor.of(rig.floats(values), form.type(), layout, shape);
    }

    private static int floats(Form form, long... shape) {
        long bytes = product(shape) * form.type().bytes();
        assertEquals(0, bytes % Float.BYTES, "the size must be known to the byte");
        return (int) (bytes / Float.BYTES);
    }

    private static long product(long... shape) {
        return Arrays.stream(shape).reduce(1, (a, b) -> a * b);
    }

    private static int channels(Layout layout, long... shape) {
        return (int) shape[layout == Layout.CHANNELS_LAST ? shape.length - 1 : 1];
    }

    private static String name(String what, Layout layout, int[] lengths, long... shape) {
        return what + " " + layout + " " + Arrays.toString(shape)
                + (lengths == null ? "" : " lengths=" + Arrays.toString(lengths));
    }

    /** A kernel of the trainer, one work-item for each item. */
    private static Stream<Case> train(String file, String kernel, int items, Function<Rig, Object[]> args) {
        return Stream.of(new Case(
                kernel,
                own -> own,
                rig -> launch(rig, "train/" + file, kernel, Range.covering(items, 64), args.apply(rig))));
    }

    private static void launch(Rig rig, String file, String kernel, Range range, Object... args) {
        rig.device().enqueue(rig.device().kernel(file, kernel, Map.of()), range, args);
    }

    private static Object[] args(Object... args) {
        return args;
    }

    /** Memory to be read. */
    private static Buffer read(Rig rig, int count) {
        return rig.floats(Rig.normal(RANDOM, count));
    }

    /** JOCL waits for transfers on a thread of its own, and oclgrind runs what is enqueued on every thread that waits. */
    @BeforeAll
    static void oneThread() throws ReflectiveOperationException {
        Field executor = Class.forName("org.jocl.CL").getDeclaredField("referenceReleaseExecutor");
        executor.setAccessible(true);
        Executor here = Runnable::run;
        executor.set(null, here);
    }

    @Test
    void oclgrindLooks() throws IOException {
        String log = log(device -> {
            try (Rig rig = new Rig(device)) {
                launch(rig, "faulty.cl", "faulty_race", Range.of(8, 1), rig.floats(8));
                launch(rig, "faulty.cl", "faulty_uninitialized", Range.of(8, 1), rig.floats(8), rig.floats(8));
                launch(rig, "faulty.cl", "faulty_bounds", Range.of(8, 1), rig.floats(8), 8);
                device.finish();
            }
        });
        for (String message : List.of("data race", "Uninitialized value", "Invalid write")) {
            assertTrue(log.contains(message), () -> "oclgrind must report: " + message + "\n" + log);
        }
    }

    @TestFactory
    Stream<DynamicTest> everyKernel() {
        return Stream.concat(
                cases().map(c -> dynamicTest(c.name(), () -> {
                    String log = log(device -> run(c, device));
                    assertEquals("", log.substring(0, Math.min(MOST_TOLD, log.length())), c.name());
                })),
                Stream.of(dynamicTest("none is left out", this::noneIsLeftOut)));
    }

    private void run(Case run, Device own) {
        try (Device device = OtherLimits.of(own, run.limits().apply(own.limits()));
                Rig rig = new Rig(device)) {
            Buffer workspace = device.workspace(MOST_BYTES); // so that it does not grow, and free what is too small
            List<KernelTime> times = device.profile(() -> run.launches().accept(rig));
            times.forEach(time -> launched.add(time.kernel()));
            for (Buffer buffer : rig.buffers()) { // a copy of what nobody wrote is reported
                if (buffer.bytes() > 0) {
                    copy(Family.WIDE, buffer, workspace, buffer.bytes() / Float.BYTES);
                }
            }
            device.finish();
        }
    }

    /**
     * What oclgrind logs of some work, on a device of its own: it begins its log anew for each context, and where a
     * buffer takes the place of one that was freed, it goes by the old one's size and reports values that were written.
     */
    private static String log(Consumer<Device> work) throws IOException {
        Files.deleteIfExists(LOG);
        String log;
        try (Device device = Rig.open()) {
            assertEquals("Oclgrind", device.description().platform());
            work.accept(device);
            log = Files.readString(LOG);
        }
        assertEquals(0, Device.liveHandles());
        return log;
    }

    private void noneIsLeftOut() throws IOException {
        Set<String> missing = new TreeSet<>(KernelNames.files().keySet());
        missing.removeAll(launched);
        assertTrue(missing.isEmpty(), () -> "every kernel needs a case in SmallShapesTest: missing=" + missing);
    }
}
