package io.normcl.verify;

import io.normcl.reference.NormReference;
import io.normcl.reference.NormReference.Gradients;
import io.normcl.reference.NormReference.Statistics;
import io.normcl.tensor.ChannelView;
import io.normcl.verify.RowNormProgram.Inputs;
import io.normcl.verify.RowNormProgram.Outputs;
import io.normcl.verify.RowNormProgram.Setup;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/** Layers of the reference, in double. */
final class RowNormReferenceEngine implements RowNormProgram.Engine {
    @Override
    public Outputs run(Setup setup, Inputs inputs) {
        NormReference reference = switch (setup.kind()) {
            case LAYER -> NormReference.layerNorm(rows(setup, inputs), size(setup.normalized()));
            case RMS -> NormReference.rmsNorm(rows(setup, inputs), size(setup.normalized()), false);
            case GROUP -> groupNorm(setup, inputs);
            case INSTANCE -> instanceNorm(setup, inputs);
        };
        reference = reference.withEps(setup.eps());
        double[] runningMean = copy(setup.runningMean());
        double[] runningVar = copy(setup.runningVar());
        Statistics statistics = inputs.training() || runningMean == null || runningVar == null
                ? reference.statistics(inputs.x())
                : reference.running(runningMean, runningVar);
        double[] y = reference.forward(statistics, setup.gamma(), setup.beta(), inputs.x(), null);
        Gradients gradients = inputs.dy() == null
                ? null
                : reference.backward(statistics, setup.gamma(), setup.beta(), inputs.x(), null, inputs.dy());
        if (inputs.training() && runningMean != null && runningVar != null) {
            double weight = setup.momentum().weight(0);
            reference.update(statistics, weight, true, runningMean, runningVar);
        }
        return new Outputs(
                y,
                gradients == null ? null : gradients.dx(),
                gradients == null || setup.gamma() == null ? null : gradients.dGamma(),
                gradients == null || setup.beta() == null ? null : gradients.dBeta(),
                statistics.mean(),
                statistics.invStd(),
                runningMean,
                runningVar);
    }

    private static int rows(Setup setup, Inputs inputs) {
        long[] shape = inputs.shape();
        int leading = shape.length - setup.normalized().length;
        if (leading < 0 || !Arrays.equals(Arrays.copyOfRange(shape, leading, shape.length), setup.normalized())) {
            throw new IllegalArgumentException("x must end in the normalized dimensions: x=" + Arrays.toString(shape)
                    + ", normalized=" + Arrays.toString(setup.normalized()));
        }
        return size(Arrays.copyOf(shape, leading));
    }

    private static NormReference groupNorm(Setup setup, Inputs inputs) {
        ChannelView view = ChannelView.of(setup.layout(), inputs.shape());
        if (inputs.training() && view.elements() == setup.groups()) {
            throw new IllegalArgumentException("group norm needs more than one value per group in training: x=" + view
                    + ", groups=" + setup.groups());
        }
        return NormReference.groupNorm(
                (int) view.n(), setup.channels(), (int) view.s(), view.channelsLast(), setup.groups());
    }

    private static NormReference instanceNorm(Setup setup, Inputs inputs) {
        ChannelView view = ChannelView.of(setup.layout(), inputs.shape());
        if (inputs.training() && view.s() == 1) {
            throw new IllegalArgumentException(
                    "instance norm needs more than one value per channel in training: x=" + view);
        }
        return NormReference.instanceNorm((int) view.n(), setup.channels(), (int) view.s(), view.channelsLast());
    }

    private static int size(long[] dimensions) {
        return Math.toIntExact(Arrays.stream(dimensions).reduce(1, Math::multiplyExact));
    }

    private static double @Nullable [] copy(double @Nullable [] values) {
        return values == null ? null : values.clone();
    }
}
