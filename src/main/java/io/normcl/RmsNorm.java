package io.normcl;

import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.plan.RowRule;
import io.normcl.plan.Tuned;
import io.normcl.plan.Tuning;
import io.normcl.tensor.RowView;
import io.normcl.tensor.RowView.Order;
import io.normcl.tensor.Tensor;
import org.jspecify.annotations.Nullable;

/**
 * RMS norm (Zhang and Sennrich 2019, equation 4): layer norm without a mean and without beta,
 * {@code y = gamma·x/√(Σx²/D + eps)}, over the trailing dimensions of a tensor. The layout plays no part. In
 * {@link RowNorm}'s formulas the mean is 0, the variance is the mean square, and dx has no middle term.
 */
public final class RmsNorm extends RowNorm {
    private final RmsNormSpec spec;

    private RmsNorm(Device device, RmsNormSpec spec, @Nullable Affine given, Tuned tuned) {
        super(
                device,
                new Traits("RMS norm", Specs.size(spec.shape()), spec.gamma(), false, spec.eps(), spec.activation()),
                new RowRule(false, spec.onePlusGamma(), false),
                given,
                tuned);
        this.spec = spec;
    }

    /**
     * Opens a layer with gamma 1, or 0 where it is added to 1, in memory of its own.
     *
     * @param device where it runs; retained
     * @param spec what it is
     * @return the layer; the caller closes it
     * @throws io.normcl.device.DeviceException if the device has not enough memory
     */
    public static RmsNorm open(Device device, RmsNormSpec spec) {
        return new RmsNorm(device, spec, null, TuningFile.tuned(device));
    }

    /**
     * Opens a layer over a gamma that the caller holds and closes.
     *
     * @param device where it runs; retained
     * @param spec what it is
     * @param gamma the scale, one float for each element of a row; retained, read; null where the spec has none
     * @return the layer; the caller closes it
     * @throws IllegalArgumentException if a buffer is missing, not asked for, of another size or on another device
     */
    public static RmsNorm open(Device device, RmsNormSpec spec, @Nullable Buffer gamma) {
        return new RmsNorm(device, spec, new Affine(gamma, null), TuningFile.tuned(device));
    }

    /**
     * Opens a layer as {@link #open(Device, RmsNormSpec)} does, and overrides what its plans choose.
     *
     * @param device where it runs; retained
     * @param spec what it is
     * @param tuning what to override
     * @return the layer; the caller closes it
     */
    public static RmsNorm open(Device device, RmsNormSpec spec, Tuning tuning) {
        return new RmsNorm(device, spec, null, Tuned.always(tuning));
    }

    /**
     * What the layer is.
     *
     * @return its spec
     */
    public RmsNormSpec spec() {
        return spec;
    }

    @Override
    RowView view(Tensor x) {
        return new RowView(Specs.rows(x, spec.shape()), 1, Specs.size(spec.shape()), 1, Order.ROWS);
    }
}
