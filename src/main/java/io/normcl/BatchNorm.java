package io.normcl;

import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.device.Kernel;
import io.normcl.plan.ChannelPlan;
import io.normcl.plan.KernelCall;
import io.normcl.plan.Plan;
import io.normcl.plan.Slot;
import io.normcl.plan.Tuning;
import io.normcl.tensor.ChannelView;
import io.normcl.tensor.Tensor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.EnumMap;
import java.util.HashMap;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * Batch norm on one device: normalizes each channel over samples and places, with a learnable scale and shift.
 *
 * <pre>
 * y = gamma·(x − mean)·invStd + beta,  invStd = 1/√(variance + eps)
 * dBeta = Σdy,  dGamma = Σdy·xHat,  xHat = (x − mean)·invStd
 * dx = gamma·invStd·(dy − dBeta/M − xHat·dGamma/M)
 * </pre>
 *
 * <p>(Ioffe and Szegedy 2015, algorithm 1 and section 3.) The mean and the population variance are the batch's in
 * training and the running ones in evaluation; evaluation gives a sample the same bits alone as in any batch.
 *
 * <p>The layer keeps gamma, beta and the running statistics, each C floats on the device. What a backward needs is the
 * {@link Saved} value that the forward returns. Running statistics move at {@link #commit} alone.
 *
 * <p>Calls return before the device is done, in the order of the device's queue. One thread at a time.
 */
public final class BatchNorm implements AutoCloseable {

    /** Where the statistics come from. */
    public enum Mode {
        /** From the batch, unless the layer is frozen. */
        TRAINING,
        /** From the running statistics, where there are any. */
        EVALUATION
    }

    /** What a commit does with statistics that are NaN or infinite. */
    public enum NonFinite {
        /** Takes them, as PyTorch does: they stay for good. */
        PROPAGATE,
        /** Leaves the running statistics of such channels as they are. */
        SKIP,
        /** Reads the statistics and throws before anything has moved; waits for the device. */
        REFUSE
    }

    /**
     * A layer's own memory on its device, for those who bring it: each C floats, or null where the spec has none.
     *
     * @param gamma the scale
     * @param beta the shift
     * @param runningMean the running mean
     * @param runningVar the running variance
     */
    public record Parameters(
            @Nullable Buffer gamma,
            @Nullable Buffer beta,
            @Nullable Buffer runningMean,
            @Nullable Buffer runningVar) {}

    private record PlanKey(ChannelView view, int pass) {}

    private record Memory(Buffer stats, Buffer sums) {}

    private final Device device;
    private final BatchNormSpec spec;
    private final Tuning tuning;
    private final Parameters parameters;
    private final List<Buffer> owned = new ArrayList<>();
    private final Buffer scale;
    private final Buffer shift;
    private final Buffer discarded;
    private final float[] eps;
    private final Deque<Memory> free = new ArrayDeque<>();
    private final Map<PlanKey, Plan> plans = new HashMap<>();
    private final IdentityHashMap<KernelCall, Kernel> kernels = new IdentityHashMap<>();
    private final KernelCall commit;
    private long batchesTracked;
    private boolean closed;

    private BatchNorm(Device device, BatchNormSpec spec, @Nullable Parameters given, Tuning tuning) {
        this.device = device;
        this.spec = spec;
        this.tuning = tuning;
        this.eps = new float[] {(float) spec.eps(), (float) (spec.eps() - (float) spec.eps())};
        this.commit = ChannelPlan.commit(spec.channels(), device.limits());
        try {
            parameters = given != null ? given : defaults();
            require("gamma", parameters.gamma(), spec.gamma());
            require("beta", parameters.beta(), spec.beta());
            require("runningMean", parameters.runningMean(), spec.runningStatistics());
            require("runningVar", parameters.runningVar(), spec.runningStatistics());
            Buffer gamma = parameters.gamma();
            Buffer beta = parameters.beta();
            scale = gamma != null ? gamma : filled(1);
            shift = beta != null ? beta : filled(0);
            discarded = filled(0);
        } catch (RuntimeException e) {
            owned.forEach(Buffer::close);
            throw e;
        }
    }

    /**
     * Opens a layer with gamma 1, beta 0, running mean 0 and running variance 1 in memory of its own.
     *
     * @param device where it runs; retained
     * @param spec what it is
     * @return the layer; the caller closes it
     * @throws io.normcl.device.DeviceException if the device has not enough memory
     */
    public static BatchNorm open(Device device, BatchNormSpec spec) {
        return new BatchNorm(device, spec, null, Tuning.NONE);
    }

    /**
     * Opens a layer over parameters and running statistics that the caller holds and closes.
     *
     * @param device where it runs; retained
     * @param spec what it is
     * @param parameters retained; gamma and beta are read, the running statistics read and updated by commits
     * @return the layer; the caller closes it
     * @throws IllegalArgumentException if a buffer is missing, not asked for, too small or on another device
     */
    public static BatchNorm open(Device device, BatchNormSpec spec, Parameters parameters) {
        return new BatchNorm(device, spec, parameters, Tuning.NONE);
    }

    /**
     * Opens a layer as {@link #open(Device, BatchNormSpec)} does, and overrides what its plans choose.
     *
     * @param device where it runs; retained
     * @param spec what it is
     * @param tuning what to override
     * @return the layer; the caller closes it
     */
    public static BatchNorm open(Device device, BatchNormSpec spec, Tuning tuning) {
        return new BatchNorm(device, spec, null, tuning);
    }

    /**
     * Normalizes with the batch's statistics, or as the spec says where it is frozen: {@code forward(TRAINING, x, y)}.
     *
     * @param x (N, C, ...) or (N, ..., C); read
     * @param y as x; overwritten; it may be x's memory where no backward follows
     * @return what backward and commit need; the caller closes it
     */
    public Saved forward(Tensor x, Tensor y) {
        return forward(Mode.TRAINING, x, y);
    }

    /**
     * Normalizes. An empty batch is legal and gives an empty output. Returns before the device is done.
     *
     * @param mode where the statistics come from
     * @param x (N, C, ...) or (N, ..., C) of any number of places; read
     * @param y in the shape and layout of x; overwritten; it may be x's memory where no backward follows
     * @return what backward and commit need; the caller closes it, which hands its memory back to the layer
     * @throws IllegalArgumentException if shapes or devices differ, C is not the spec's, or the batch's statistics are
     *     needed of one value per channel and the spec refuses that
     * @throws IllegalStateException if the layer, its device or a buffer is closed
     */
    public Saved forward(Mode mode, Tensor x, Tensor y) {
        ChannelView view = view(x, "y", y);
        boolean batch = usesBatch(mode, view.m(), x);
        Saved saved = save(mode, view, batch, view.m(), false);
        try {
            if (view.elements() > 0) {
                Map<Slot, Object> slots = slots(saved, x);
                slots.put(Slot.Y, y.buffer());
                run(batch ? plan(view, false) : runningPlan(view), slots);
            }
            return saved;
        } catch (RuntimeException e) {
            saved.close();
            throw e;
        }
    }

    /**
     * Normalizes in evaluation and keeps nothing: {@code forward(EVALUATION, x, y).close()}.
     *
     * @param x (N, C, ...) or (N, ..., C); read
     * @param y as x; overwritten; it may be x's memory
     */
    public void infer(Tensor x, Tensor y) {
        forward(Mode.EVALUATION, x, y).close();
    }

    /**
     * Computes gradients. Where the forward took the batch's statistics, they are differentiated too; where it took
     * the running ones, {@code dx = gamma·invStd·dy}. An empty batch has zero dGamma and dBeta.
     *
     * @param saved what the forward returned; read
     * @param x what the forward read; read
     * @param dy the gradient of y, in the shape and layout of x; read
     * @param out where to write dx, dGamma and dBeta, each optional
     * @throws IllegalArgumentException if shapes or devices differ, or {@code saved} is of another layer or a
     *     synchronized forward
     * @throws IllegalStateException if the layer, {@code saved}, the device or a buffer is closed
     */
    public void backward(Saved saved, Tensor x, Tensor dy, Gradients out) {
        if (saved.synchronous) {
            throw new IllegalArgumentException("a synchronized forward needs the backward of its Replicas: values="
                    + saved.count + " in all, here " + saved.view.m());
        }
        checkBackward(saved, x, dy, out);
        if (saved.view.elements() == 0) {
            clear(out);
            return;
        }
        Map<Slot, Object> slots = backwardSlots(saved, x, dy, out);
        run(backwardPlan(saved, out), slots);
    }

    /**
     * Moves the running statistics to a training batch's and counts it; non-finite statistics propagate.
     *
     * @param saved what the forward returned; read
     */
    public void commit(Saved saved) {
        commit(saved, NonFinite.PROPAGATE);
    }

    /**
     * Moves the running statistics to a training batch's and counts it.
     *
     * <pre>
     * runningMean = (1 − w)·runningMean + w·mean
     * runningVar  = (1 − w)·runningVar  + w·variance·M/(M − 1)    (unbiased; without the factor where biased)
     * </pre>
     *
     * <p>An empty batch counts and moves nothing; one value per channel leaves the running variance. Where the forward
     * did not take the batch's statistics in training, or there are no running statistics, nothing happens.
     *
     * @param saved what the forward returned; read
     * @param policy what to do with statistics that are not finite
     * @throws ArithmeticException if they are not and the policy refuses; nothing has moved
     * @throws IllegalArgumentException if {@code saved} is of another layer
     */
    public void commit(Saved saved, NonFinite policy) {
        check(saved);
        if (saved.mode != Mode.TRAINING || !saved.batch || !spec.runningStatistics()) {
            return;
        }
        if (saved.count > 0) {
            if (policy == NonFinite.REFUSE) {
                saved.requireFinite();
            }
            double weight = spec.momentum().weight(batchesTracked);
            boolean single = saved.count == 1;
            boolean unbiased = spec.runningVariance() == BatchNormSpec.RunningVariance.UNBIASED && !single;
            double factor = unbiased ? saved.count / (saved.count - 1.0) : 1.0;
            Map<Slot, Object> slots = new EnumMap<>(Slot.class);
            putRunning(slots);
            slots.put(Slot.STATS, saved.memory().stats());
            slots.put(Slot.KEEP, (float) (1 - weight));
            slots.put(Slot.TAKE_MEAN, (float) weight);
            slots.put(Slot.TAKE_VAR, (float) (weight * factor));
            slots.put(Slot.KEEP_VAR, single ? 1 : 0);
            slots.put(Slot.SKIP_NON_FINITE, policy == NonFinite.SKIP ? 1 : 0);
            launch(commit, slots);
        }
        batchesTracked++;
    }

    /**
     * The device.
     *
     * @return where the layer runs
     */
    public Device device() {
        return device;
    }

    /**
     * What the layer is.
     *
     * @return its spec
     */
    public BatchNormSpec spec() {
        return spec;
    }

    /**
     * The scale, C floats, to be read and written by the caller.
     *
     * @return gamma, or null where the spec has none
     */
    public @Nullable Buffer gamma() {
        return parameters.gamma();
    }

    /**
     * The shift, C floats, to be read and written by the caller.
     *
     * @return beta, or null where the spec has none
     */
    public @Nullable Buffer beta() {
        return parameters.beta();
    }

    /**
     * The running mean, C floats, to be read and written by the caller.
     *
     * @return the running mean, or null where the spec has none
     */
    public @Nullable Buffer runningMean() {
        return parameters.runningMean();
    }

    /**
     * The running variance, C floats, to be read and written by the caller.
     *
     * @return the running variance, or null where the spec has none
     */
    public @Nullable Buffer runningVar() {
        return parameters.runningVar();
    }

    /**
     * Batches committed so far, PyTorch's {@code num_batches_tracked}.
     *
     * @return the count
     */
    public long batchesTracked() {
        return batchesTracked;
    }

    /**
     * Sets the count, when a state is loaded.
     *
     * @param count batches committed so far, at least 0
     */
    public void batchesTracked(long count) {
        if (count < 0) {
            throw new IllegalArgumentException("a count of batches must not be negative: count=" + count);
        }
        batchesTracked = count;
    }

    /** Releases what the layer owns, saved values included; a second call does nothing. */
    @Override
    public void close() {
        closed = true;
        owned.forEach(Buffer::close);
    }

    /**
     * What a forward leaves for its backward and for the commit: the statistics it normalized with, NaN for an empty
     * batch.
     */
    public final class Saved implements AutoCloseable {
        private final Mode mode;
        private final ChannelView view;
        private final boolean batch;
        private final long count;
        private final boolean synchronous;
        private @Nullable Memory memory;

        private Saved(Mode mode, ChannelView view, boolean batch, long count, boolean synchronous, Memory memory) {
            this.mode = mode;
            this.view = view;
            this.batch = batch;
            this.count = count;
            this.synchronous = synchronous;
            this.memory = memory;
        }

        /**
         * Values per channel that the statistics are of, over all replicas.
         *
         * @return M
         */
        public long count() {
            return count;
        }

        /**
         * Whether the statistics are the batch's rather than the running ones.
         *
         * @return true where they are
         */
        public boolean ofBatch() {
            return batch;
        }

        /**
         * Reads the statistics; waits for the device.
         *
         * @return C means, each with the precision of a high and a low float
         */
        public double[] mean() {
            float[] stats = read();
            double[] mean = new double[spec.channels()];
            for (int c = 0; c < mean.length; c++) {
                mean[c] = (double) stats[4 * c] + stats[4 * c + 1];
            }
            return mean;
        }

        /**
         * Reads the statistics; waits for the device.
         *
         * @return C values of 1/√(variance + eps)
         */
        public float[] invStd() {
            return column(2);
        }

        /**
         * Reads the statistics; waits for the device.
         *
         * @return C population variances
         */
        public float[] variance() {
            return column(3);
        }

        private float[] column(int index) {
            float[] stats = read();
            float[] column = new float[spec.channels()];
            for (int c = 0; c < column.length; c++) {
                column[c] = stats[4 * c + index];
            }
            return column;
        }

        private float[] read() {
            float[] stats = new float[4 * spec.channels()];
            memory().stats().read(stats);
            return stats;
        }

        private void requireFinite() {
            double[] mean = mean();
            float[] variance = variance();
            for (int c = 0; c < mean.length; c++) {
                if (!Double.isFinite(mean[c]) || !Float.isFinite(variance[c])) {
                    throw new ArithmeticException("statistics must be finite to be committed: channel=" + c + ", mean="
                            + mean[c] + ", variance=" + variance[c]);
                }
            }
        }

        BatchNorm layer() {
            return BatchNorm.this;
        }

        Memory memory() {
            Memory held = memory;
            if (held == null) {
                throw new IllegalStateException("the saved statistics are closed: " + view);
            }
            return held;
        }

        ChannelView view() {
            return view;
        }

        Buffer stats() {
            return memory().stats();
        }

        Buffer sums() {
            return memory().sums();
        }

        /** Hands the memory back to the layer for a later forward; a second call does nothing. */
        @Override
        public void close() {
            Memory held = memory;
            memory = null;
            if (held != null) {
                free.push(held);
            }
        }
    }

    // What Replicas needs too.

    /** Checks a pair of tensors of one pass and gives their view. */
    ChannelView view(Tensor x, String name, Tensor other) {
        requireOpen();
        ChannelView view = x.channelView();
        if (view.c() != spec.channels()) {
            throw new IllegalArgumentException("the tensor's channels must be the layer's: x=" + x + ", C=" + view.c()
                    + ", layer's C=" + spec.channels());
        }
        if (x.buffer().device() != device) {
            throw new IllegalArgumentException("the tensor must be on the layer's device: x on="
                    + x.buffer().device().name() + ", layer on=" + device.name());
        }
        requireSame(x, name, other);
        return view;
    }

    private void requireSame(Tensor x, String name, Tensor other) {
        boolean same = java.util.Arrays.equals(x.shape(), other.shape())
                && (x.layout() == other.layout() || x.channelView().equals(other.channelView()));
        if (!same || other.buffer().device() != device) {
            throw new IllegalArgumentException("x and " + name + " must have one shape, layout and device: x=" + x
                    + ", " + name + "=" + other + ", " + name + " on="
                    + other.buffer().device().name());
        }
    }

    /** Whether the batch's statistics are needed; refuses a single value per channel where the spec does. */
    boolean usesBatch(Mode mode, long count, Tensor x) {
        boolean batch = !spec.runningStatistics() || (mode == Mode.TRAINING && !spec.frozen());
        if (!batch || count != 1) {
            return batch;
        }
        if (spec.singleValue() == BatchNormSpec.SingleValue.REFUSE) {
            throw new IllegalArgumentException("batch norm over the batch's statistics needs more than one value per"
                    + " channel: x=" + x + ", values per channel=1, C=" + spec.channels());
        }
        return spec.singleValue() == BatchNormSpec.SingleValue.ALLOW;
    }

    Saved save(Mode mode, ChannelView view, boolean batch, long count, boolean synchronous) {
        Memory memory = free.poll();
        if (memory == null) {
            memory = new Memory(own(16L * spec.channels()), own(8L * spec.channels()));
        }
        Saved saved = new Saved(mode, view, batch, count, synchronous, memory);
        if (count == 0) {
            memory.stats().fill(Float.NaN);
        }
        return saved;
    }

    Map<Slot, Object> slots(Saved saved, Tensor x) {
        Map<Slot, Object> slots = new EnumMap<>(Slot.class);
        slots.put(Slot.X, x.buffer());
        slots.put(Slot.STATS, saved.stats());
        slots.put(Slot.SUMS, saved.sums());
        slots.put(Slot.GAMMA, scale);
        slots.put(Slot.BETA, shift);
        slots.put(Slot.EPS, eps);
        putRunning(slots);
        return slots;
    }

    private void putRunning(Map<Slot, Object> slots) {
        Buffer mean = parameters.runningMean();
        Buffer variance = parameters.runningVar();
        if (mean != null && variance != null) {
            slots.put(Slot.RUNNING_MEAN, mean);
            slots.put(Slot.RUNNING_VAR, variance);
        }
    }

    Map<Slot, Object> backwardSlots(Saved saved, Tensor x, Tensor dy, Gradients out) {
        Map<Slot, Object> slots = slots(saved, x);
        slots.put(Slot.DY, dy.buffer());
        Tensor dx = out.dx();
        if (dx != null) {
            slots.put(Slot.DX, dx.buffer());
        }
        Buffer dGamma = out.dGamma();
        Buffer dBeta = out.dBeta();
        slots.put(Slot.D_GAMMA, dGamma != null ? dGamma : discarded);
        slots.put(Slot.D_BETA, dBeta != null ? dBeta : discarded);
        slots.put(Slot.ACCUMULATE, out.accumulate() ? 1 : 0);
        return slots;
    }

    void checkBackward(Saved saved, Tensor x, Tensor dy, Gradients out) {
        check(saved);
        if (!view(x, "dy", dy).equals(saved.view)) {
            throw new IllegalArgumentException(
                    "the backward must be over the forward's shape: forward " + saved.view + ", backward x=" + x);
        }
        Tensor dx = out.dx();
        if (dx != null) {
            requireSame(x, "dx", dx);
        }
        require("dGamma", out.dGamma(), out.dGamma() != null);
        require("dBeta", out.dBeta(), out.dBeta() != null);
    }

    private void check(Saved saved) {
        requireOpen();
        if (saved.layer() != this) {
            throw new IllegalArgumentException("saved statistics must be of the layer they are handed to: C="
                    + spec.channels() + ", theirs C=" + saved.layer().spec.channels());
        }
        Objects.requireNonNull(saved.memory());
    }

    /** Sets the parameter gradients of an empty batch. */
    void clear(Gradients out) {
        Buffer dGamma = out.dGamma();
        Buffer dBeta = out.dBeta();
        if (!out.accumulate() && dGamma != null) {
            dGamma.fill(0);
        }
        if (!out.accumulate() && dBeta != null) {
            dBeta.fill(0);
        }
    }

    /** The training forward, in one launch where it pays, unless it must be cut for a synchronization. */
    Plan plan(ChannelView view, boolean cut) {
        return plans.computeIfAbsent(
                new PlanKey(view, cut ? 1 : 0),
                k -> ChannelPlan.forward(view, device.limits(), cut ? tuning.withFused(false) : tuning));
    }

    private Plan runningPlan(ChannelView view) {
        return plans.computeIfAbsent(
                new PlanKey(view, 2), k -> ChannelPlan.forwardRunning(view, device.limits(), tuning));
    }

    private Plan backwardPlan(Saved saved, Gradients out) {
        boolean dx = out.dx() != null;
        boolean parameterGradients = out.dGamma() != null || out.dBeta() != null;
        int pass = 16 + (saved.batch ? 1 : 0) + (dx ? 2 : 0) + (parameterGradients ? 4 : 0);
        return plans.computeIfAbsent(
                new PlanKey(saved.view, pass),
                k -> ChannelPlan.backward(saved.view, device.limits(), tuning, saved.batch, dx, parameterGradients));
    }

    /** The backward cut for a synchronization: a shard's sums are needed for the others' dx in any case. */
    Plan sumsPlan(Saved saved, Gradients out) {
        return plans.computeIfAbsent(
                new PlanKey(saved.view, out.dx() != null ? 8 : 9),
                k -> ChannelPlan.backward(
                        saved.view, device.limits(), tuning.withFused(false), true, out.dx() != null, true));
    }

    Buffer putWorkspace(Plan plan, Map<Slot, Object> slots) {
        Buffer workspace = device.workspace(plan.workspaceBytes());
        slots.put(Slot.PARTIALS, workspace);
        return workspace;
    }

    private void run(Plan plan, Map<Slot, Object> slots) {
        if (plan.workspaceBytes() > 0) {
            putWorkspace(plan, slots);
        }
        for (KernelCall call : plan.calls()) {
            launch(call, slots);
        }
    }

    void launch(KernelCall call, Map<Slot, Object> slots) {
        Kernel kernel = kernels.computeIfAbsent(call, c -> device.kernel(c.file(), c.kernel(), c.defines()));
        Object[] args = call.args().toArray();
        for (int i = 0; i < args.length; i++) {
            if (args[i] instanceof Slot slot) {
                args[i] = Objects.requireNonNull(slots.get(slot), slot.name());
            }
        }
        device.enqueue(kernel, call.range(), args);
    }

    private Parameters defaults() {
        return new Parameters(
                spec.gamma() ? filled(1) : null,
                spec.beta() ? filled(0) : null,
                spec.runningStatistics() ? filled(0) : null,
                spec.runningStatistics() ? filled(1) : null);
    }

    private Buffer filled(float value) {
        Buffer buffer = own(4L * spec.channels());
        ByteBuffer host = ByteBuffer.allocateDirect(4 * spec.channels()).order(ByteOrder.nativeOrder());
        while (host.hasRemaining()) {
            host.putFloat(value);
        }
        buffer.write(0, host.flip());
        return buffer;
    }

    private Buffer own(long bytes) {
        Buffer buffer = device.allocate(bytes);
        owned.add(buffer);
        return buffer;
    }

    private void require(String name, @Nullable Buffer buffer, boolean wanted) {
        if (wanted != (buffer != null)) {
            throw new IllegalArgumentException("a layer's buffers must be those of its spec: " + name
                    + (wanted ? " is missing" : " is not wanted") + ", spec=" + spec);
        }
        if (buffer != null && buffer.device() != device) {
            throw new IllegalArgumentException("a layer's buffers must be on its device: " + name + " on="
                    + buffer.device().name() + ", layer on=" + device.name());
        }
        if (buffer != null && buffer.bytes() != 4L * spec.channels()) {
            throw new IllegalArgumentException("a layer's buffer must hold one float per channel: " + name + " bytes="
                    + buffer.bytes() + ", C=" + spec.channels() + ", bytes needed=" + 4L * spec.channels());
        }
    }

    private void requireOpen() {
        if (closed) {
            throw new IllegalStateException(
                    "the batch norm is closed: C=" + spec.channels() + ", device=" + device.name());
        }
    }
}
