package io.normcl;

import io.normcl.device.Device;
import io.normcl.plan.Form;
import io.normcl.plan.Plan;
import io.normcl.plan.RowPlan;
import io.normcl.plan.RowRule;
import io.normcl.plan.ShapeClass;
import io.normcl.plan.ShapeClass.Pass;
import io.normcl.plan.Slot;
import io.normcl.plan.Tuned;
import io.normcl.plan.Tuning;
import io.normcl.tensor.RowView;
import io.normcl.tensor.Tensor;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * A norm whose statistics are of rows, sets of values of one sample: layer, RMS, group and instance norm.
 *
 * <pre>
 * y = f(v + z),  v = gamma·xHat + beta,  xHat = (x − mean)·invStd,  invStd = 1/√(variance + eps)
 * g = dz = dy·f'(v + z)
 * dBeta = Σg,  dGamma = Σg·xHat,  over all that share a gamma
 * dx = invStd·(h − Σh/D − xHat·Σ(h·xHat)/D),  h = g·gamma,  over the D values of a row
 * </pre>
 *
 * <p>Training and evaluation are the same, but for an instance norm with running statistics. What a backward needs is
 * the {@link Saved} value that the forward returns.
 *
 * <p>Calls return before the device is done, in the order of the device's queue. One thread at a time.
 */
public abstract sealed class RowNorm extends NormLayer permits LayerNorm, RmsNorm, GroupNorm, InstanceNorm {
    private static final int FORWARD = 0;
    private static final int BACKWARD = 16;

    private final RowRule rule;

    RowNorm(Device device, Traits traits, RowRule rule, @Nullable Affine given, Tuned tuned) {
        super(device, traits, rule.onePlusGamma() ? 0 : 1, given, tuned);
        this.rule = rule;
    }

    /**
     * Normalizes a tensor with nothing fused: {@code forward(Input.of(x), y)}.
     *
     * @param x the input; read
     * @param y as x; overwritten; it may be x's memory where no backward follows
     * @return what the backward needs; the caller closes it
     */
    public Saved forward(Tensor x, Tensor y) {
        return forward(Input.of(x), y);
    }

    /**
     * Normalizes. An empty input is legal and gives an empty output. Returns before the device is done.
     *
     * @param in x, and what is fused; read
     * @param y in the shape, layout and type of x; overwritten; it may be x's memory where no backward follows
     * @return what the backward needs; the caller closes it, which hands its memory back to the layer
     * @throws IllegalArgumentException if shapes, types or devices differ, the shape does not fit the spec, or there is
     *     one value where the norm needs more
     * @throws IllegalStateException if the layer, its device or a buffer is closed
     */
    public Saved forward(Input in, Tensor y) {
        RowView view = checkedView(in);
        requireSame(in.x(), "y", y);
        requireValues(view, in.x());
        Form form = forwardForm(in);
        Saved saved = save(new Saved.Pass(
                Mode.TRAINING,
                view,
                form,
                in.lengths(),
                Math.toIntExact(view.rows()),
                true,
                view.elements() == 0 ? 0 : view.d(),
                false));
        try {
            if (view.elements() > 0) {
                Map<Slot, Object> slots = slots(saved, in);
                slots.put(Slot.Y, y.buffer());
                run(forwardPlan(view, form), slots);
            }
            return saved;
        } catch (RuntimeException e) {
            saved.close();
            throw e;
        }
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
     * Computes gradients. An empty input has zero dGamma and dBeta. Where an addend was added before the norm, dx is the
     * gradient of the sum.
     *
     * @param saved what the forward returned; read
     * @param in what the forward read; read
     * @param dy the gradient of y, in the shape, layout and type of x; read
     * @param out where to write dx, dz, dGamma and dBeta, each optional
     * @throws IllegalArgumentException if shapes, types or devices differ, or {@code saved} is of another layer
     * @throws IllegalStateException if the layer, {@code saved}, the device or a buffer is closed
     */
    public void backward(Saved saved, Input in, Tensor dy, Gradients out) {
        requireOwn(saved);
        RowView view = checkedView(in);
        requireBackward(saved, view, in, dy, out);
        if (view.elements() == 0) {
            clear(out);
            return;
        }
        run(backwardPlan(view, backwardForm(in, out), out), backwardSlots(saved, in, dy, out));
    }

    @Override
    public Plan forwardPlan(Mode mode, Input in) {
        RowView view = checkedView(in);
        requireValues(view, in.x());
        return view.elements() == 0 ? Plan.NOTHING : forwardPlan(view, forwardForm(in));
    }

    @Override
    public Plan backwardPlan(Saved saved, Input in, Gradients out) {
        requireOwn(saved);
        RowView view = checkedView(in);
        requireBackward(saved, view, in, in.x(), out);
        return view.elements() == 0 ? Plan.NOTHING : backwardPlan(view, backwardForm(in, out), out);
    }

    private Plan backwardPlan(RowView view, Form form, Gradients out) {
        boolean dx = out.dx() != null;
        boolean parameters = out.ofParameters();
        return plan(view, form, BACKWARD + (dx ? 1 : 0) + (parameters ? 2 : 0), () -> {
            Tuning own = tuned.of(ShapeClass.of(view, form.type(), Pass.BACKWARD));
            return RowPlan.backward(view, rule, form, device.limits(), own, dx, parameters);
        });
    }

    private Plan forwardPlan(RowView view, Form form) {
        return plan(view, form, FORWARD, () -> {
            Tuning own = tuned.of(ShapeClass.of(view, form.type(), Pass.FORWARD));
            return RowPlan.forward(view, rule, form, device.limits(), own);
        });
    }

    @Override
    public ShapeClass shapeClass(Pass pass, Tensor x) {
        return pass == Pass.FORWARD_RUNNING
                ? ShapeClass.of(x.channelView(), x.type(), pass)
                : ShapeClass.of(view(x), x.type(), pass);
    }

    RowView checkedView(Input in) {
        boolean wholeRows = this instanceof LayerNorm || this instanceof RmsNorm;
        requireInput(in, wholeRows, !wholeRows);
        return view(in.x());
    }

    /** The tensor as this norm sees it; refuses a shape that does not fit. */
    abstract RowView view(Tensor x);

    /** Refuses what has too few values for a variance. */
    void requireValues(RowView view, Tensor x) {}
}
