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
 * Layer norm (Ba, Kiros and Hinton 2016, equations 3 and 4): normalizes the trailing dimensions of a tensor together,
 * with a gamma and beta for each of their elements. The layout plays no part. Where variance and eps are both 0 the
 * result is NaN, as in PyTorch.
 */
public final class LayerNorm extends RowNorm {
    private final LayerNormSpec spec;

    private LayerNorm(Device device, LayerNormSpec spec, @Nullable Affine given, Tuned tuned) {
        super(
                device,
                new Traits(
                        "layer norm",
                        Specs.size(spec.shape()),
                        spec.gamma(),
                        spec.beta(),
                        spec.eps(),
                        spec.activation()),
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
    public static LayerNorm open(Device device, LayerNormSpec spec) {
        return new LayerNorm(device, spec, null, TuningFile.tuned(device));
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
    public static LayerNorm open(Device device, LayerNormSpec spec, @Nullable Buffer gamma, @Nullable Buffer beta) {
        return new LayerNorm(device, spec, new Affine(gamma, beta), TuningFile.tuned(device));
    }

    /**
     * Opens a layer as {@link #open(Device, LayerNormSpec)} does, and overrides what its plans choose.
     *
     * @param device where it runs; retained
     * @param spec what it is
     * @param tuning what to override
     * @return the layer; the caller closes it
     */
    public static LayerNorm open(Device device, LayerNormSpec spec, Tuning tuning) {
        return new LayerNorm(device, spec, null, Tuned.always(tuning));
    }

    /**
     * What the layer is.
     *
     * @return its spec
     */
    public LayerNormSpec spec() {
        return spec;
    }

    @Override
    RowView view(Tensor x) {
        return new RowView(Specs.rows(x, spec.shape()), 1, Specs.size(spec.shape()), 1, Order.ROWS);
    }
}
