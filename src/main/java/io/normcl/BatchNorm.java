package io.normcl;

import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.plan.ChannelPlan;
import io.normcl.plan.Form;
import io.normcl.plan.Plan;
import io.normcl.plan.ShapeClass;
import io.normcl.plan.ShapeClass.Pass;
import io.normcl.plan.Slot;
import io.normcl.plan.Tuned;
import io.normcl.plan.Tuning;
import io.normcl.sync.ChannelMoments;
import io.normcl.sync.ChannelSums;
import io.normcl.tensor.ChannelView;
import io.normcl.tensor.Lengths;
import io.normcl.tensor.Tensor;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * Batch norm on one device: normalizes each channel over samples and places, with a learnable scale and shift, and what
 * may follow: a residual z and an activation f.
 *
 * <pre>
 * y = f(v + z),  v = gamma·(x − mean)·invStd + beta,  invStd = 1/√(variance + eps)
 * g = dz = dy·f'(v + z)
 * dBeta = Σg,  dGamma = Σg·xHat,  xHat = (x − mean)·invStd
 * dx = gamma·invStd·(g − dBeta/M − xHat·dGamma/M)
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
public final class BatchNorm extends NormLayer {

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

    private final BatchNormSpec spec;
    private final Running running;
    private final HostPartials host;

    private BatchNorm(Device device, BatchNormSpec spec, @Nullable Parameters given, Tuned tuned) {
        super(
                device,
                new Traits("batch norm", spec.channels(), spec.gamma(), spec.beta(), spec.eps(), spec.activation()),
                1,
                given == null ? null : new Affine(given.gamma(), given.beta()),
                tuned);
        this.spec = spec;
        this.host = new HostPartials(device);
        try {
            boolean kept = spec.runningStatistics();
            running = given == null
                    ? new Running(this, kept ? filled(0) : null, kept ? filled(1) : null, spec.momentum())
                    : new Running(this, given.runningMean(), given.runningVar(), spec.momentum());
            require("runningMean", running.mean(), kept);
            require("runningVar", running.variance(), kept);
        } catch (RuntimeException e) {
            close();
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
        return new BatchNorm(device, spec, null, TuningFile.tuned(device));
    }

    /**
     * Opens a layer over parameters and running statistics that the caller holds and closes.
     *
     * @param device where it runs; retained
     * @param spec what it is
     * @param parameters retained; gamma and beta are read, the running statistics read and updated by commits
     * @return the layer; the caller closes it
     * @throws IllegalArgumentException if a buffer is missing, not asked for, of another size or on another device
     */
    public static BatchNorm open(Device device, BatchNormSpec spec, Parameters parameters) {
        return new BatchNorm(device, spec, parameters, TuningFile.tuned(device));
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
        return new BatchNorm(device, spec, null, Tuned.always(tuning));
    }

    /**
     * Normalizes with the batch's statistics, or as the spec says where it is frozen: {@code forward(TRAINING, x, y)}.
     *
     * @param x (N, C, ...) or (N, ..., C); read
     * @param y as x; overwritten; it may be x's memory where no backward follows
     * @return what backward and commit need; the caller closes it
     */
    public Saved forward(Tensor x, Tensor y) {
        return forward(Mode.TRAINING, Input.of(x), y);
    }

    /**
     * Normalizes a tensor with nothing fused: {@code forward(mode, Input.of(x), y)}.
     *
     * @param mode where the statistics come from
     * @param x (N, C, ...) or (N, ..., C); read
     * @param y as x; overwritten; it may be x's memory where no backward follows
     * @return what backward and commit need; the caller closes it
     */
    public Saved forward(Mode mode, Tensor x, Tensor y) {
        return forward(mode, Input.of(x), y);
    }

    /**
     * Normalizes. An empty batch is legal and gives an empty output. Returns before the device is done.
     *
     * @param mode where the statistics come from
     * @param in x as (N, C, ...) or (N, ..., C) of any number of places, and what is fused; read
     * @param y in the shape, layout and type of x; overwritten; it may be x's memory where no backward follows
     * @return what backward and commit need; the caller closes it, which hands its memory back to the layer
     * @throws IllegalArgumentException if shapes, types or devices differ, C is not the spec's, or the batch's statistics
     *     are needed of one value per channel and the spec refuses that
     * @throws IllegalStateException if the layer, its device or a buffer is closed
     */
    public Saved forward(Mode mode, Input in, Tensor y) {
        long count = count(in);
        return forward(mode, in, y, usesBatch(mode, count, in.x()), count);
    }

    Saved forward(Mode mode, Input in, Tensor y, boolean batch, long count) {
        ChannelView view = view(in, y);
        Saved saved = save(mode, view, in, batch, count, false);
        try {
            if (view.elements() > 0) {
                Map<Slot, Object> slots = forwardSlots(saved, in, y);
                run(forwardPlan(view, forwardForm(in), batch), slots);
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
        infer(Input.of(x), y);
    }

    /**
     * Normalizes in evaluation and keeps nothing: {@code forward(EVALUATION, in, y).close()}.
     *
     * @param in x as (N, C, ...) or (N, ..., C), and what is fused; read
     * @param y as x; overwritten; it may be x's memory
     */
    public void infer(Input in, Tensor y) {
        forward(Mode.EVALUATION, in, y).close();
    }

    /**
     * Computes gradients of a forward with nothing fused: {@code backward(saved, Input.of(x), dy, out)}.
     *
     * @param saved what the forward returned; read
     * @param x what the forward read; read
     * @param dy the gradient of y, as x; read
     * @param out where to write dx, dGamma and dBeta, each optional
     */
    public void backward(Saved saved, Tensor x, Tensor dy, Gradients out) {
        backward(saved, Input.of(x), dy, out);
    }

    /**
     * Computes gradients. Where the forward took the batch's statistics, they are differentiated too; where it took
     * the running ones, {@code dx = gamma·invStd·g}. An empty batch has zero dGamma and dBeta.
     *
     * @param saved what the forward returned; read
     * @param in what the forward read; read
     * @param dy the gradient of y, in the shape, layout and type of x; read
     * @param out where to write dx, dz, dGamma and dBeta, each optional
     * @throws IllegalArgumentException if shapes, types or devices differ, or {@code saved} is of another layer or of a
     *     forward over more than this input
     * @throws IllegalStateException if the layer, {@code saved}, the device or a buffer is closed
     */
    public void backward(Saved saved, Input in, Tensor dy, Gradients out) {
        ChannelView view = requireBackward(saved, in, dy, out);
        if (saved.pass().merged()) {
            throw new IllegalArgumentException(
                    "a forward over merged statistics needs the merged sums for its backward:" + " values="
                            + saved.count() + ", layer=" + this);
        }
        if (view.elements() == 0) {
            clear(out);
            return;
        }
        run(backwardPlan(saved, in, out, false), backwardSlots(saved, in, dy, out));
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
        requireOwn(saved);
        if (saved.pass().mode() != Mode.TRAINING || !saved.ofBatch() || !spec.runningStatistics()) {
            return;
        }
        if (saved.count() > 0 && policy == NonFinite.REFUSE) {
            Running.requireFinite(saved.mean(), Running.doubles(saved.variance()));
        }
        running.commit(saved.stats(), saved.count(), bessel(saved.count()), policy);
    }

    /**
     * Moves the running statistics once, to those of several batches merged: of micro-batches whose gradients are
     * accumulated. Counts one batch. Where a forward would not take the batch's statistics, or there are no running
     * statistics, nothing happens.
     *
     * @param moments as {@link Saved#moments} or {@link #moments} gave them, merged; read
     * @param policy what to do with statistics that are not finite
     * @throws ArithmeticException if they are not and the policy refuses; nothing has moved
     * @throws IllegalArgumentException if the moments are of other channels, or of one value per channel and the spec
     *     refuses that
     */
    public void commit(ChannelMoments moments, NonFinite policy) {
        requireMoments(moments);
        long count = (long) moments.count(0);
        if (!spec.runningStatistics() || !usesBatch(Mode.TRAINING, count, "moments")) {
            return;
        }
        if (policy == NonFinite.REFUSE && count > 0) {
            Running.requireFinite(moments.means(), moments.variances());
        }
        try (Saved saved = merged(moments)) {
            running.commit(saved.stats(), count, bessel(count), policy);
        }
    }

    /**
     * Replaces the running statistics by those of many batches, pooled by count: re-estimation with fixed weights, or
     * precise batch norm (Wu and Johnson 2021, section 3). Waits for the device.
     *
     * @param moments the moments of all batches, merged; read
     * @throws ArithmeticException if they are not finite; nothing has moved
     * @throws IllegalArgumentException if there are no running statistics, or no more than one value per channel
     */
    public void replaceRunning(ChannelMoments moments) {
        requireMoments(moments);
        if (!spec.runningStatistics() || moments.count(0) < 2) {
            throw new IllegalArgumentException("a re-estimation needs running statistics and more than one value per"
                    + " channel: layer=" + this + ", running statistics=" + spec.runningStatistics()
                    + ", values per channel=" + moments.count(0));
        }
        running.replace(moments.means(), moments.variances(), bessel((long) moments.count(0)));
    }

    private double bessel(long count) {
        return spec.runningVariance() == RunningVariance.UNBIASED && count > 1 ? count / (count - 1.0) : 1;
    }

    private void requireMoments(ChannelMoments moments) {
        requireOpen();
        if (moments.channels() != spec.channels()) {
            throw new IllegalArgumentException(
                    "moments must be of the layer's channels: channels=" + moments.channels() + ", layer=" + this);
        }
    }

    // Micro-batches: the passes over an input, with the statistics or sums of more than it.

    /**
     * Computes the statistics of one input without normalizing it; waits for the device. Merged over micro-batches, they
     * are those of the large batch.
     *
     * @param in x as (N, C, ...) or (N, ..., C); read; what is fused plays no part
     * @return count, mean and m2 of each channel
     */
    public ChannelMoments moments(Input in) {
        ChannelMoments moments = new ChannelMoments(spec.channels());
        try (Saved saved = start(in)) {
            finish(saved, moments);
        }
        return moments;
    }

    /**
     * Normalizes with given statistics, in training. The running statistics are committed once, by any of the saved
     * values or by the moments themselves.
     *
     * @param in x as (N, C, ...) or (N, ..., C), and what is fused; read
     * @param y as x; overwritten
     * @param moments of all micro-batches, merged in one order; read
     * @return what {@link #sums} and {@link #backward(Saved, Input, Tensor, Gradients, ChannelSums)} need; the caller
     *     closes it
     * @throws IllegalArgumentException if the moments are of other channels or of fewer values than the input, or the
     *     layer does not take the batch's statistics
     */
    public Saved forward(Input in, Tensor y, ChannelMoments moments) {
        ChannelView view = view(in, y);
        requireMoments(moments);
        long count = (long) moments.count(0);
        if (count < count(in)) {
            throw new IllegalArgumentException("given statistics must be of this input too: values per channel=" + count
                    + ", of the input=" + count(in) + ", layer=" + this);
        }
        if (count > 0 && !usesBatch(Mode.TRAINING, count, in.x())) {
            throw new IllegalArgumentException("a layer takes given statistics only where it takes the batch's: layer="
                    + this + ", frozen=" + spec.frozen() + ", values per channel=" + count);
        }
        Saved saved = save(Mode.TRAINING, view, in, true, count, true);
        try {
            if (count > 0 || view.elements() > 0) {
                host.writeStatistics(moments, spec.eps(), saved.stats());
            }
            if (view.elements() > 0) {
                launch(cutPlan(view, forwardForm(in)).calls().get(2), forwardSlots(saved, in, y));
            }
            return saved;
        } catch (RuntimeException e) {
            saved.close();
            throw e;
        }
    }

    /**
     * Computes what one input adds to the sums of a backward, and its dGamma and dBeta; waits for the device.
     *
     * @param saved what the forward returned; read
     * @param in what the forward read; read
     * @param dy the gradient of y, as x; read
     * @param out where to write dGamma and dBeta, each optional; dx plays no part
     * @return Σg and Σg·xHat of each channel
     */
    public ChannelSums sums(Saved saved, Input in, Tensor dy, Gradients out) {
        ChannelSums sums = new ChannelSums(spec.channels());
        startSums(saved, in, dy, out);
        finishSums(saved, sums);
        return sums;
    }

    /**
     * Computes dx, and dz, with the sums of all micro-batches; dGamma and dBeta are those of {@link #sums} already.
     *
     * @param saved what the forward returned; read
     * @param in what the forward read; read
     * @param dy the gradient of y, as x; read
     * @param out where to write dx and dz; dGamma and dBeta play no part
     * @param sums of all micro-batches, added in one order; read
     */
    public void backward(Saved saved, Input in, Tensor dy, Gradients out, ChannelSums sums) {
        ChannelView view = requireBackward(saved, in, dy, out);
        requireMerged(saved);
        if (sums.channels() != spec.channels()) {
            throw new IllegalArgumentException(
                    "sums must be of the layer's channels: channels=" + sums.channels() + ", layer=" + this);
        }
        if (view.elements() > 0 && out.dx() != null) {
            host.writeMeans(sums, saved.count(), saved.memory().sums());
            Plan plan = backwardPlan(saved, in, out, true);
            launch(plan.calls().get(2), backwardSlots(saved, in, dy, out));
        }
    }

    /** Starts the statistics of an input; the saved value ends with {@link #finish}. */
    Saved start(Input in) {
        ChannelView view = view(in, in.x());
        Saved saved = save(Mode.TRAINING, view, in, true, count(in), true);
        if (view.elements() > 0) {
            Plan plan = cutPlan(view, forwardForm(in));
            Map<Slot, Object> slots = slots(saved, in);
            Buffer partials = putWorkspace(plan, slots);
            launch(plan.calls().get(0), slots);
            host.enqueueRead(partials, plan);
        }
        return saved;
    }

    void finish(Saved started, ChannelMoments into) {
        if (((ChannelView) started.pass().view()).elements() > 0) {
            host.merge(into);
        }
    }

    /** Starts the sums of a backward, and writes dGamma and dBeta. */
    void startSums(Saved saved, Input in, Tensor dy, Gradients out) {
        ChannelView view = requireBackward(saved, in, dy, out);
        requireMerged(saved);
        if (view.elements() == 0) {
            clear(out);
            return;
        }
        Plan plan = backwardPlan(saved, in, out, true);
        Map<Slot, Object> slots = backwardSlots(saved, in, dy, out);
        Buffer partials = putWorkspace(plan, slots);
        launch(plan.calls().get(0), slots);
        host.enqueueRead(partials, plan);
        launch(plan.calls().get(1), slots);
    }

    void finishSums(Saved saved, ChannelSums into) {
        if (((ChannelView) saved.pass().view()).elements() > 0) {
            host.add(into);
        }
    }

    private void requireMerged(Saved saved) {
        if (!saved.pass().merged()) {
            throw new IllegalArgumentException(
                    "sums are of a forward over merged statistics: layer=" + this + ", values=" + saved.count());
        }
    }

    /** Statistics alone, to commit. */
    private Saved merged(ChannelMoments moments) {
        ChannelView none = new ChannelView(0, spec.channels(), 0, false);
        long count = (long) moments.count(0);
        Saved saved = save(new Saved.Pass(Mode.TRAINING, none, Form.PLAIN, null, spec.channels(), true, count, true));
        if (count > 0) {
            host.writeStatistics(moments, spec.eps(), saved.stats());
        }
        return saved;
    }

    // The state.

    /**
     * What the layer is.
     *
     * @return its spec
     */
    public BatchNormSpec spec() {
        return spec;
    }

    /**
     * The running mean, C floats, to be read and written by the caller.
     *
     * @return the running mean, or null where the spec has none
     */
    public @Nullable Buffer runningMean() {
        return running.mean();
    }

    /**
     * The running variance, C floats, to be read and written by the caller.
     *
     * @return the running variance, or null where the spec has none
     */
    public @Nullable Buffer runningVar() {
        return running.variance();
    }

    /**
     * Batches committed so far, PyTorch's {@code num_batches_tracked}.
     *
     * @return the count
     */
    public long batchesTracked() {
        return running.batchesTracked();
    }

    /**
     * Sets the count, when a state is loaded.
     *
     * @param count batches committed so far, at least 0
     */
    public void batchesTracked(long count) {
        running.batchesTracked(count);
    }

    // What Replicas needs too.

    /** Checks an input and its output and gives their view. */
    ChannelView view(Input in, Tensor y) {
        requireInput(in, false, true);
        ChannelView view = in.x().channelView();
        if (view.c() != spec.channels()) {
            throw new IllegalArgumentException("the tensor's channels must be the layer's: x=" + in.x() + ", C="
                    + view.c() + ", layer's C=" + spec.channels());
        }
        requireSame(in.x(), "y", y);
        return view;
    }

    /** Values per channel that count. */
    long count(Input in) {
        ChannelView view = in.x().channelView();
        Lengths lengths = in.lengths();
        return lengths == null || view.s() == 0
                ? view.m()
                : lengths.total() * (view.s() / forwardForm(in).line());
    }

    /** Whether the batch's statistics are needed; refuses a single value per channel where the spec does. */
    boolean usesBatch(Mode mode, long count, Object x) {
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

    ChannelView requireBackward(Saved saved, Input in, Tensor dy, Gradients out) {
        requireOwn(saved);
        ChannelView view = view(in, dy);
        requireBackward(saved, view, in, dy, out);
        return view;
    }

    private Saved save(Mode mode, ChannelView view, Input in, boolean batch, long count, boolean merged) {
        return save(new Saved.Pass(mode, view, forwardForm(in), in.lengths(), spec.channels(), batch, count, merged));
    }

    private Map<Slot, Object> forwardSlots(Saved saved, Input in, Tensor y) {
        Map<Slot, Object> slots = slots(saved, in);
        slots.put(Slot.Y, y.buffer());
        running.put(slots);
        return slots;
    }

    @Override
    public Plan forwardPlan(Mode mode, Input in) {
        ChannelView view = view(in, in.x());
        boolean batch = usesBatch(mode, count(in), in.x());
        return view.elements() == 0 ? Plan.NOTHING : forwardPlan(view, forwardForm(in), batch);
    }

    @Override
    public ShapeClass shapeClass(Pass pass, Tensor x) {
        return ShapeClass.of(x.channelView(), x.type(), pass);
    }

    private Tuning tuning(ChannelView view, Form form, Pass pass) {
        return tuned.of(ShapeClass.of(view, form.type(), pass));
    }

    private Plan forwardPlan(ChannelView view, Form form, boolean batch) {
        return batch
                ? plan(
                        view,
                        form,
                        0,
                        () -> ChannelPlan.forward(view, form, device.limits(), tuning(view, form, Pass.FORWARD)))
                : plan(view, form, 2, () -> {
                    Tuning own = tuning(view, form, Pass.FORWARD_RUNNING);
                    return ChannelPlan.forwardRunning(view, form, device.limits(), own);
                });
    }

    /** The training forward in three launches, for the host to merge in the middle. */
    private Plan cutPlan(ChannelView view, Form form) {
        return plan(view, form, 1, () -> {
            Tuning own = tuning(view, form, Pass.FORWARD).withFused(false);
            return ChannelPlan.forward(view, form, device.limits(), own);
        });
    }

    @Override
    public Plan backwardPlan(Saved saved, Input in, Gradients out) {
        ChannelView view = requireBackward(saved, in, in.x(), out);
        return view.elements() == 0
                ? Plan.NOTHING
                : backwardPlan(saved, in, out, saved.pass().merged());
    }

    /** The backward; cut, its sums come in any case, since others' dx needs them. */
    private Plan backwardPlan(Saved saved, Input in, Gradients out, boolean cut) {
        ChannelView view = (ChannelView) saved.pass().view();
        Form form = backwardForm(in, out);
        boolean dx = cut || out.dx() != null;
        boolean parameters = cut || out.ofParameters();
        boolean batch = saved.ofBatch();
        int pass = 16 + (batch ? 1 : 0) + (dx ? 2 : 0) + (parameters ? 4 : 0) + (cut ? 8 : 0);
        return plan(view, form, pass, () -> {
            Tuning own = tuning(view, form, Pass.BACKWARD);
            own = cut ? own.withFused(false) : own;
            return ChannelPlan.backward(view, form, device.limits(), own, batch, dx, parameters);
        });
    }
}
