package io.normcl;

import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.plan.RowRule;
import io.normcl.plan.Tuned;
import io.normcl.plan.Tuning;
import io.normcl.tensor.ChannelView;
import io.normcl.tensor.RowView;
import io.normcl.tensor.RowView.Order;
import io.normcl.tensor.Tensor;
import org.jspecify.annotations.Nullable;

/**
 * Group norm (Wu and He 2018, equations 1 to 7): normalizes the C/G channels of a group in all places of a sample
 * together, or at each place alone, with a gamma and beta for each channel. Where variance and eps are both 0 the result
 * is NaN, as in PyTorch.
 */
public final class GroupNorm extends RowNorm {
    private final GroupNormSpec spec;

    private GroupNorm(Device device, GroupNormSpec spec, @Nullable Affine given, Tuned tuned) {
        super(
                device,
                new Traits("group norm", spec.channels(), spec.gamma(), spec.beta(), spec.eps(), spec.activation()),
                RowRule.STANDARD,
                given,
                tuned);
        this.spec = spec;
    }

    /**
     * Opens a layer with gamma 1 and beta 0 in memory of its own.
     *
     * @param device where it runs; retained
     * @param spec what it is
     * @return the layer; the caller closes it
     * @throws io.normcl.device.DeviceException if the device has not enough memory
     */
    public static GroupNorm open(Device device, GroupNormSpec spec) {
        return new GroupNorm(device, spec, null, TuningFile.tuned(device));
    }

    /**
     * Opens a layer over parameters that the caller holds and closes.
     *
     * @param device where it runs; retained
     * @param spec what it is
     * @param gamma the scale, as many floats as the layer has values of gamma; retained, read; null where the spec has none
     * @param beta the shift, as gamma
     * @return the layer; the caller closes it
     * @throws IllegalArgumentException if a buffer is missing, not asked for, of another size or on another device
     */
    public static GroupNorm open(Device device, GroupNormSpec spec, @Nullable Buffer gamma, @Nullable Buffer beta) {
        return new GroupNorm(device, spec, new Affine(gamma, beta), TuningFile.tuned(device));
    }

    /**
     * Opens a layer as {@link #open(Device, GroupNormSpec)} does, and overrides what its plans choose.
     *
     * @param device where it runs; retained
     * @param spec what it is
     * @param tuning what to override
     * @return the layer; the caller closes it
     */
    public static GroupNorm open(Device device, GroupNormSpec spec, Tuning tuning) {
        return new GroupNorm(device, spec, null, Tuned.always(tuning));
    }

    /**
     * What the layer is.
     *
     * @return its spec
     */
    public GroupNormSpec spec() {
        return spec;
    }

    @Override
    RowView view(Tensor x) {
        ChannelView view = x.channelView();
        if (view.c() != spec.channels()) {
            throw new IllegalArgumentException("the tensor's channels must be the layer's: x=" + x + ", C=" + view.c()
                    + ", layer's C=" + spec.channels());
        }
        long k = view.c() / spec.groups();
        if (spec.perLocation()) {
            return view.channelsLast()
                    ? new RowView(view.n() * view.s(), spec.groups(), k, 1, Order.ROWS)
                    : new RowView(view.n(), spec.groups(), k, view.s(), Order.PER_PLACE);
        }
        return new RowView(
                view.n(), spec.groups(), k, view.s(), view.channelsLast() ? Order.CHANNELS_LAST : Order.ROWS);
    }

    @Override
    void requireValues(RowView view, Tensor x) {
        if (view.elements() / spec.groups() == 1) {
            throw new IllegalArgumentException("group norm needs more than one value per group in all: x=" + x
                    + ", groups=" + spec.groups() + ", N*C/G*S=1");
        }
    }

    @Override
    RowView checkedView(Input in) {
        if (spec.perLocation() && in.lengths() != null) {
            throw new IllegalArgumentException("a norm per location takes no lengths, no place changes another: x="
                    + in.x() + ", " + in.lengths());
        }
        return super.checkedView(in);
    }
}
