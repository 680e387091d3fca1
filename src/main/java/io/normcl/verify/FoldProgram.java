package io.normcl.verify;

import io.normcl.Folding;
import io.normcl.reference.ConvolutionReference;
import java.io.IOException;
import java.util.Arrays;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * The cases of folding a batch norm into the layer before it. A case in float gets the fused values rounded to float;
 * y is what the fused layer, computed in double, gives for x.
 */
public final class FoldProgram implements Program {
    /** A program without settings. */
    public FoldProgram() {}

    /**
     * The operation that this runs, for a judge.
     *
     * @return this program by operation
     */
    public Map<String, Program> byOperation() {
        return Map.of("conv_bn_fold", this);
    }

    @Override
    public Map<String, double[]> run(ConformanceCase run) throws IOException {
        Folding norm = Folding.of(
                input(run, "weight"),
                input(run, "bias"),
                run.values("running_mean"),
                run.values("running_var"),
                Double.parseDouble(run.property("eps")));
        boolean transposed = run.property("conv").startsWith("conv_transpose");
        int groups = Integer.parseInt(run.property("groups", "1"));
        double[] convWeight = run.values("conv_weight");
        double[] convBias = input(run, "conv_bias");
        long[] convShape = run.shape("conv_weight");
        Folding.Folded folded = transposed
                ? norm.intoTransposed(convWeight, convBias, groups, convShape)
                : norm.intoConvolution(convWeight, convBias, groups, convShape);
        boolean single = run.property("dtype").equals("float32");
        double[] weight = single ? doubles(folded.weight()) : folded.weightInDouble();
        double[] bias = single ? doubles(folded.bias()) : folded.biasInDouble();

        ConvolutionReference layer = new ConvolutionReference(
                groups,
                Integer.parseInt(run.property("stride", "1")),
                Integer.parseInt(run.property("padding", "0")),
                Integer.parseInt(run.property("dilation", "1")));
        double[] x = run.values("x");
        int[] xShape = ints(run.shape("x"));
        int[] shape = ints(convShape);
        double[] y = transposed
                ? layer.transpose(x, xShape, weight, shape, bias)
                : layer.convolve(x, xShape, weight, shape, bias);
        return Map.of("fused_weight", weight, "fused_bias", bias, "y", y);
    }

    private static double @Nullable [] input(ConformanceCase run, String tensor) throws IOException {
        return run.has(tensor) ? run.values(tensor) : null;
    }

    private static int[] ints(long[] shape) {
        return Arrays.stream(shape).mapToInt(Math::toIntExact).toArray();
    }

    private static double[] doubles(float[] values) {
        double[] doubles = new double[values.length];
        Arrays.setAll(doubles, i -> values[i]);
        return doubles;
    }
}
