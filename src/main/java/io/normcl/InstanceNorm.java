package io.normcl;

import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.plan.ChannelPlan;
import io.normcl.plan.Form;
import io.normcl.plan.Plan;
import io.normcl.plan.RowPlan;
import io.normcl.plan.RowRule;
import io.normcl.plan.ShapeClass;
import io.normcl.plan.ShapeClass.Pass;
import io.normcl.plan.Slot;
import io.normcl.plan.Tuned;
import io.normcl.plan.Tuning;
import io.normcl.sync.ChannelAverages;
import io.normcl.tensor.ChannelView;
import io.normcl.tensor.Lengths;
import io.normcl.tensor.RowView;
import io.normcl.tensor.RowView.Order;
import io.normcl.tensor.Tensor;
import java.util.EnumMap;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * Instance norm (Ulyanov, Vedaldi and Lempitsky 2016, equation 2): normalizes each channel of each sample alone, with a
 * gamma and beta for each channel. Where variance and eps are both 0, y = beta.
 *
 * <p>It may keep running statistics, as PyTorch's {@code track_running_stats} does: the averages over the batch of the
 * instances' means and of their unbiased variances. They move at {@link #commit} alone, and evaluation normalizes with
 * them, as a batch norm would.
 */
public final class InstanceNorm extends RowNorm {
    private final InstanceNormSpec spec;
    private final Running running;
    private final @Nullable Buffer averages;

    private InstanceNorm(Device device, InstanceNormSpec spec, BatchNorm.@Nullable Parameters given, Tuned tuned) {
        super(
                device,
                new Traits("instance norm", spec.channels(), spec.gamma(), spec.beta(), spec.eps(), spec.activation()),
                new RowRule(true, false, true),
                given == null ? null : new Affine(given.gamma(), given.beta()),
                tuned);
        this.spec = spec;
        try {
            boolean kept = spec.runningStatistics();
            running = given == null
                    ? new Running(this, kept ? filled(0) : null, kept ? filled(1) : null, spec.momentum())
                    : new Running(this, given.runningMean(), given.runningVar(), spec.momentum());
            require("runningMean", running.mean(), kept);
            require("runningVar", running.variance(), kept);
            averages = kept ? own(16L * spec.channels()) : null;
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
    public static InstanceNorm open(Device device, InstanceNormSpec spec) {
        return new InstanceNorm(device, spec, null, TuningFile.tuned(device));
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
    public static InstanceNorm open(Device device, InstanceNormSpec spec, BatchNorm.Parameters parameters) {
        return new InstanceNorm(device, spec, parameters, TuningFile.tuned(device));
    }

    /**
     * Opens a layer as {@link #open(Device, InstanceNormSpec)} does, and overrides what its plans choose.
     *
     * @param device where it runs; retained
     * @param spec what it is
     * @param tuning what to override
     * @return the layer; the caller closes it
     */
    public static InstanceNorm open(Device device, InstanceNormSpec spec, Tuning tuning) {
        return new InstanceNorm(device, spec, null, Tuned.always(tuning));
    }

    /**
     * Normalizes in training, or in evaluation, which takes the running statistics where there are any.
     *
     * @param mode where the statistics come from
     * @param in x as (N, C, ...) or (N, ..., C), and what is fused; read
     * @param y as x; overwritten; it may be x's memory where no backward follows
     * @return what backward and commit need; the caller closes it
     * @throws IllegalArgumentException if shapes, types or devices differ, C is not the spec's, or an instance's
     *     statistics are needed of one value
     */
    public Saved forward(Mode mode, Input in, Tensor y) {
        if (mode == Mode.TRAINING || !spec.runningStatistics()) {
            return forward(in, y);
        }
        checkedView(in);
        requireSame(in.x(), "y", y);
        ChannelView view = in.x().channelView();
        Form form = forwardForm(in);
        Saved saved = save(new Saved.Pass(mode, view, form, in.lengths(), spec.channels(), false, view.m(), false));
        if (view.elements() > 0) {
            Map<Slot, Object> slots = slots(saved, in);
            slots.put(Slot.Y, y.buffer());
            running.put(slots);
            run(runningPlan(view, form), slots);
        }
        return saved;
    }

    @Override
    public Plan forwardPlan(Mode mode, Input in) {
        if (mode == Mode.TRAINING || !spec.runningStatistics()) {
            return super.forwardPlan(mode, in);
        }
        checkedView(in);
        ChannelView view = in.x().channelView();
        return view.elements() == 0 ? Plan.NOTHING : runningPlan(view, forwardForm(in));
    }

    private Plan runningPlan(ChannelView view, Form form) {
        return plan(view, form, 2, () -> {
            Tuning own = tuned.of(ShapeClass.of(view, form.type(), Pass.FORWARD_RUNNING));
            return ChannelPlan.forwardRunning(view, form, device.limits(), own);
        });
    }

    @Override
    public void backward(Saved saved, Input in, Tensor dy, Gradients out) {
        if (saved.ofBatch()) {
            super.backward(saved, in, dy, out);
            return;
        }
        requireOwn(saved);
        checkedView(in);
        ChannelView view = in.x().channelView();
        requireBackward(saved, view, in, dy, out);
        if (view.elements() == 0) {
            clear(out);
            return;
        }
        run(runningPlan(view, backwardForm(in, out), out), backwardSlots(saved, in, dy, out));
    }

    @Override
    public Plan backwardPlan(Saved saved, Input in, Gradients out) {
        if (saved.ofBatch()) {
            return super.backwardPlan(saved, in, out);
        }
        requireOwn(saved);
        checkedView(in);
        ChannelView view = in.x().channelView();
        requireBackward(saved, view, in, in.x(), out);
        return view.elements() == 0 ? Plan.NOTHING : runningPlan(view, backwardForm(in, out), out);
    }

    private Plan runningPlan(ChannelView view, Form form, Gradients out) {
        boolean dx = out.dx() != null;
        boolean parameters = out.ofParameters();
        return plan(view, form, 32 + (dx ? 1 : 0) + (parameters ? 2 : 0), () -> {
            Tuning own = tuned.of(ShapeClass.of(view, form.type(), Pass.BACKWARD));
            return ChannelPlan.backward(view, form, device.limits(), own, false, dx, parameters);
        });
    }

    /**
     * Moves the running statistics to a training batch's averages and counts it; non-finite statistics propagate.
     *
     * @param saved what the forward returned; read
     */
    public void commit(Saved saved) {
        commit(saved, NonFinite.PROPAGATE);
    }

    /**
     * Moves the running statistics to a training batch's averages and counts it.
     *
     * <pre>
     * runningMean = (1 − w)·runningMean + w·Σmean/N
     * runningVar  = (1 − w)·runningVar  + w·Σvariance·D/(D − 1)/N
     * </pre>
     *
     * <p>An empty batch counts and moves nothing; instances of fewer than two values, by their lengths, are left out.
     * Where there are no running statistics or the forward was an evaluation, nothing happens.
     *
     * @param saved what the forward returned; read
     * @param policy what to do with statistics that are not finite
     * @throws ArithmeticException if they are not and the policy refuses; nothing has moved
     * @throws IllegalArgumentException if {@code saved} is of another layer
     */
    public void commit(Saved saved, NonFinite policy) {
        requireOwn(saved);
        Buffer to = averages;
        if (to == null || !saved.ofBatch()) {
            return;
        }
        RowView view = (RowView) saved.pass().view();
        Form form = saved.pass().form();
        Lengths lengths = saved.pass().lengths();
        long longest = lengths == null ? view.s() : lengths.longest() * (view.s() / form.line());
        boolean any = view.elements() > 0 && longest > 1;
        if (any) {
            Map<Slot, Object> slots = new EnumMap<>(Slot.class);
            slots.put(Slot.STATS, saved.stats());
            slots.put(Slot.LENGTHS, lengths == null ? to : lengths.buffer());
            slots.put(Slot.AVERAGES, to);
            run(plan(view, form, 3, () -> RowPlan.average(view, form, device.limits())), slots);
            if (policy == NonFinite.REFUSE) {
                float[] values = new float[4 * spec.channels()];
                to.read(values);
                Running.requireFinite(everyFourth(values, 0), everyFourth(values, 3));
            }
        }
        running.commit(to, any ? view.elements() : 0, 1, policy);
    }

    private static double[] everyFourth(float[] values, int from) {
        double[] out = new double[values.length / 4];
        for (int i = 0; i < out.length; i++) {
            out[i] = values[4 * i + from];
        }
        return out;
    }

    /**
     * Reads a training batch's averages, to be added to others'; waits for the device.
     *
     * @param saved what the forward returned; read
     * @return the averages over its instances of two values or more
     * @throws IllegalArgumentException if {@code saved} is of another layer, or of an evaluation
     */
    public ChannelAverages averages(Saved saved) {
        requireOwn(saved);
        if (!saved.ofBatch()) {
            throw new IllegalArgumentException("averages are of a training batch: layer=" + this + ", of batch=false");
        }
        RowView view = (RowView) saved.pass().view();
        Lengths lengths = saved.pass().lengths();
        ChannelAverages averages = new ChannelAverages(spec.channels());
        double[] mean = saved.mean();
        float[] variance = saved.variance();
        for (int i = 0; i < mean.length; i++) {
            int sample = i / spec.channels();
            long count = lengths == null
                    ? view.s()
                    : lengths.get(sample) * (view.s() / saved.pass().form().line());
            if (count > 1) {
                averages.add(i % spec.channels(), mean[i], variance[i] * (count / (count - 1.0)));
            }
        }
        return averages;
    }

    /**
     * Moves the running statistics once, to the averages of several micro-batches, in which every instance weighs the
     * same. Counts one batch.
     *
     * @param of as {@link #averages} gave them, added up; read
     * @param policy what to do with statistics that are not finite
     * @throws ArithmeticException if they are not and the policy refuses; nothing has moved
     */
    public void commit(ChannelAverages of, NonFinite policy) {
        requireAverages(of);
        Buffer to = averages;
        if (to == null) {
            return;
        }
        boolean any = of.count(0) > 0;
        if (any) {
            if (policy == NonFinite.REFUSE) {
                Running.requireFinite(of.means(), of.variances());
            }
            float[] values = new float[4 * spec.channels()];
            for (int c = 0; c < spec.channels(); c++) {
                float[] mean = Running.pair(of.mean(c));
                values[4 * c] = mean[0];
                values[4 * c + 1] = mean[1];
                values[4 * c + 3] = (float) of.variance(c);
            }
            to.write(values);
        }
        running.commit(to, any ? Long.MAX_VALUE : 0, 1, policy);
    }

    /**
     * Replaces the running statistics by averages over many batches: re-estimation with fixed weights. Waits for the
     * device.
     *
     * @param of the averages of all batches, added up; read
     * @throws ArithmeticException if they are not finite; nothing has moved
     * @throws IllegalArgumentException if there are no running statistics or no instances
     */
    public void replaceRunning(ChannelAverages of) {
        requireAverages(of);
        if (!spec.runningStatistics() || of.count(0) == 0) {
            throw new IllegalArgumentException("a re-estimation needs running statistics and instances: layer=" + this
                    + ", running statistics=" + spec.runningStatistics() + ", instances=" + of.count(0));
        }
        running.replace(of.means(), of.variances(), 1);
    }

    private void requireAverages(ChannelAverages of) {
        requireOpen();
        if (of.channels() != spec.channels()) {
            throw new IllegalArgumentException(
                    "averages must be of the layer's channels: channels=" + of.channels() + ", layer=" + this);
        }
    }

    /**
     * What the layer is.
     *
     * @return its spec
     */
    public InstanceNormSpec spec() {
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

    @Override
    RowView view(Tensor x) {
        ChannelView view = x.channelView();
        if (view.c() != spec.channels()) {
            throw new IllegalArgumentException("the tensor's channels must be the layer's: x=" + x + ", C=" + view.c()
                    + ", layer's C=" + spec.channels());
        }
        return new RowView(view.n(), view.c(), 1, view.s(), view.channelsLast() ? Order.CHANNELS_LAST : Order.ROWS);
    }

    @Override
    void requireValues(RowView view, Tensor x) {
        if (view.s() == 1) {
            throw new IllegalArgumentException(
                    "instance norm needs more than one value per instance: x=" + x + ", values per instance=1");
        }
    }
}
