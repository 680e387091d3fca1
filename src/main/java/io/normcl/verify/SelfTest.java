package io.normcl.verify;

import io.normcl.BatchNorm;
import io.normcl.BatchNormSpec;
import io.normcl.Gradients;
import io.normcl.Saved;
import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.device.DeviceException;
import io.normcl.plan.Tuning;
import io.normcl.reference.BatchNormReference;
import io.normcl.reference.BatchNormReference.Statistics;
import io.normcl.tensor.Layout;
import io.normcl.tensor.Tensor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;
import org.jspecify.annotations.Nullable;

/**
 * Asks a device for small batch norms, in both layouts, in one launch and in several, and holds what it computes to
 * the reference.
 */
public final class SelfTest {
    private static final int N = 5;
    private static final int C = 7;
    private static final int SIDE = 9;
    private static final double EPS = 1e-5;
    private static final double LIMIT = 1e-5;

    private final Device device;
    private final List<String> faults = new ArrayList<>();
    private double worst;

    private SelfTest(Device device) {
        this.device = device;
    }

    /**
     * What came of it.
     *
     * @param worst the largest error, relative to the largest value of its tensor
     * @param faults what was wrong, each in one line; empty where the device computes rightly
     */
    public record Result(double worst, List<String> faults) {
        /**
         * Whether the device computes rightly.
         *
         * @return true if there are no faults
         */
        public boolean passed() {
            return faults.isEmpty();
        }
    }

    /**
     * Tests a device; waits for it.
     *
     * @param device open
     * @return what came of it; a call that the driver refuses is a fault, not an exception
     */
    public static Result run(Device device) {
        SelfTest test = new SelfTest(device);
        for (Layout layout : Layout.values()) {
            for (Boolean fused : new Boolean[] {true, false, null}) { // a CPU's own plan shares a launch among steps
                String what = (layout == Layout.CHANNELS_LAST ? "channels last" : "channels first")
                        + (fused == null ? ", own plan" : fused ? ", one launch" : ", several launches");
                try {
                    test.batchNorm(what, layout, Tuning.NONE.withFused(fused));
                } catch (DeviceException e) {
                    test.faults.add(what + ": " + e.getMessage());
                }
            }
        }
        return new Result(test.worst, List.copyOf(test.faults));
    }

    private void batchNorm(String what, Layout layout, Tuning tuning) {
        SplittableRandom random = new SplittableRandom(1);
        float[] x = floats(random, N * C * SIDE * SIDE, 100);
        float[] dy = floats(random, x.length, 0);
        float[] gamma = floats(random, C, 1);
        float[] beta = floats(random, C, 0);
        boolean last = layout == Layout.CHANNELS_LAST;
        long[] shape = last ? new long[] {N, SIDE, SIDE, C} : new long[] {N, C, SIDE, SIDE};

        BatchNormReference reference = new BatchNormReference(C, SIDE * SIDE, last);
        Statistics statistics = reference.statistics(List.of(doubles(x)));
        double[] mean = new double[C];
        double[] variance = new double[C];
        Arrays.fill(variance, 1);
        BatchNormReference.update(statistics, 0.1, true, mean, variance);
        BatchNormReference.Gradients gradients = reference
                .backward(statistics, true, EPS, doubles(gamma), List.of(doubles(x)), List.of(doubles(dy)))
                .get(0);

        try (BatchNorm norm = BatchNorm.open(device, BatchNormSpec.of(C), tuning);
                Buffer xs = written(x);
                Buffer ys = device.allocate(xs.bytes());
                Buffer dys = written(dy);
                Buffer dxs = device.allocate(xs.bytes());
                Buffer dGamma = device.allocate(Float.BYTES * C);
                Buffer dBeta = device.allocate(Float.BYTES * C)) {
            write(norm.gamma(), gamma);
            write(norm.beta(), beta);
            Tensor xTensor = Tensor.of(xs, layout, shape);
            try (Saved saved = norm.forward(xTensor, Tensor.of(ys, layout, shape))) {
                Gradients out = Gradients.of(Tensor.of(dxs, layout, shape), dGamma, dBeta);
                norm.backward(saved, xTensor, Tensor.of(dys, layout, shape), out);
                norm.commit(saved);
            }
            double[] y = reference.forward(statistics, EPS, doubles(gamma), doubles(beta), doubles(x));
            compare(what + ", y", y, ys);
            compare(what + ", dx", gradients.dx(), dxs);
            compare(what + ", dGamma", gradients.dGamma(), dGamma);
            compare(what + ", dBeta", gradients.dBeta(), dBeta);
            compare(what + ", running mean", mean, norm.runningMean());
            compare(what + ", running variance", variance, norm.runningVar());
        }
    }

    private static float[] floats(SplittableRandom random, int count, double center) {
        float[] values = new float[count];
        for (int i = 0; i < count; i++) {
            values[i] = (float) (center + 2 * random.nextDouble() - 1);
        }
        return values;
    }

    private static double[] doubles(float[] values) {
        double[] doubles = new double[values.length];
        Arrays.setAll(doubles, i -> values[i]);
        return doubles;
    }

    private Buffer written(float[] values) {
        Buffer buffer = device.allocate((long) Float.BYTES * values.length);
        buffer.write(values);
        return buffer;
    }

    private static void write(@Nullable Buffer buffer, float[] values) {
        if (buffer != null) {
            buffer.write(values);
        }
    }

    private void compare(String what, double[] expected, @Nullable Buffer buffer) {
        float[] values = new float[expected.length];
        if (buffer != null) {
            buffer.read(values);
        }
        double error = error(expected, values);
        worst = Math.max(worst, error);
        if (!(error <= LIMIT)) {
            faults.add(what + ": wrong by " + error + " of its largest value, limit=" + LIMIT);
        }
    }

    /** The largest difference in parts of the largest expected value; NaN where there is one. */
    static double error(double[] expected, float[] values) {
        double largest = Arrays.stream(expected).map(Math::abs).max().orElse(1);
        double error = 0;
        for (int i = 0; i < expected.length; i++) {
            error = Math.max(error, Math.abs(values[i] - expected[i]) / largest);
        }
        return error;
    }
}
