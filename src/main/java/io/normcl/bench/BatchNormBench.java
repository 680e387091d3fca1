package io.normcl.bench;

import io.normcl.BatchNorm;
import io.normcl.BatchNormSpec;
import io.normcl.Gradients;
import io.normcl.Saved;
import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.device.Kernel;
import io.normcl.device.Limits;
import io.normcl.plan.ChannelPlan;
import io.normcl.plan.CopyPlan;
import io.normcl.plan.Form;
import io.normcl.plan.KernelCall;
import io.normcl.plan.Plan;
import io.normcl.plan.Tuning;
import io.normcl.tensor.ChannelView;
import io.normcl.tensor.Layout;
import io.normcl.tensor.Tensor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Random;
import java.util.stream.Collectors;
import java.util.stream.LongStream;

/**
 * Times the passes of batch norm and, in the same rounds, a copy of the same tensor. Each pass is enqueued and waited
 * for; the buffers rotate, so that no cache holds what a round reads.
 */
public final class BatchNormBench {
    private static final int WARM_UP = 3;
    private static final long LEAST_ROTATED = 128L << 20;
    private static final int MOST_SETS = 64;

    /**
     * What was measured of one pass.
     *
     * @param pass what ran
     * @param layout where the channels stand
     * @param shape the tensor's dimensions as stored
     * @param kernels what was launched
     * @param medianMillis the median of the rounds
     * @param minMillis the shortest round
     * @param bytes what must pass to and from memory, by the plan
     * @param copyGigabytes the copy's bytes in 10⁹ a second, of its median
     */
    public record Row(
            String pass,
            Layout layout,
            String shape,
            String kernels,
            double medianMillis,
            double minMillis,
            long bytes,
            double copyGigabytes) {

        /**
         * Bytes in 10⁹ a second, of the median.
         *
         * @return the rate
         */
        public double gigabytes() {
            return bytes / medianMillis / 1e6;
        }

        /**
         * How near the pass comes to the copy.
         *
         * @return its rate over the copy's
         */
        public double fraction() {
            return gigabytes() / copyGigabytes;
        }
    }

    /** The tensors of one round. */
    private record Tensors(Tensor x, Tensor y, Tensor dx) {}

    private final Device device;
    private final Layout layout;
    private final long[] shape;
    private final ChannelView view;
    private final List<Tensors> sets = new ArrayList<>();
    private int round;

    private BatchNormBench(Device device, Layout layout, long[] shape) {
        this.device = device;
        this.layout = layout;
        this.shape = shape;
        this.view = ChannelView.of(layout, shape);
    }

    /**
     * Measures.
     *
     * @param device where
     * @param layout where the channels stand
     * @param shape the dimensions as stored
     * @param rounds how often each pass is timed, at least 1
     * @return the copy, training forward, evaluation forward and backward
     * @throws IllegalArgumentException if the shape is empty or has no channel
     * @throws io.normcl.device.DeviceException if the device has not enough memory
     */
    public static List<Row> run(Device device, Layout layout, long[] shape, int rounds) {
        BatchNormBench bench = new BatchNormBench(device, layout, shape);
        if (bench.view.elements() == 0 || rounds < 1) {
            throw new IllegalArgumentException(
                    "a bench needs values and rounds: shape=" + Arrays.toString(shape) + ", rounds=" + rounds);
        }
        List<Buffer> buffers = new ArrayList<>();
        try {
            bench.fill(buffers);
            return bench.measure(buffers, rounds);
        } finally {
            buffers.forEach(Buffer::close);
        }
    }

    private void fill(List<Buffer> buffers) {
        Random random = new Random(1);
        float[] values = new float[(int) Math.min(view.elements(), 1 << 20)];
        for (int i = 0; i < values.length; i++) {
            values[i] = (float) random.nextGaussian();
        }
        long setBytes = 3 * view.elements() * Float.BYTES;
        long rotated = Math.max(LEAST_ROTATED, 4 * device.limits().cacheBytes());
        long count = Math.min(MOST_SETS, Math.max(2, (rotated + setBytes - 1) / setBytes));
        for (int i = 0; i < count; i++) {
            Tensor[] tensors = new Tensor[3];
            for (int t = 0; t < tensors.length; t++) {
                Buffer buffer = device.allocate(view.elements() * Float.BYTES);
                buffers.add(buffer);
                buffer.fill(t);
                buffer.write(values);
                tensors[t] = Tensor.of(buffer, layout, shape);
            }
            sets.add(new Tensors(tensors[0], tensors[1], tensors[2]));
        }
    }

    private List<Row> measure(List<Buffer> buffers, int rounds) {
        Limits limits = device.limits();
        Plan forward = ChannelPlan.forward(view, Form.PLAIN, limits, Tuning.NONE);
        Plan inference = ChannelPlan.forwardRunning(view, Form.PLAIN, limits, Tuning.NONE);
        Plan backward = ChannelPlan.backward(view, Form.PLAIN, limits, Tuning.NONE, true, true, true);
        Plan plain = CopyPlan.of(view.elements(), limits, false);
        Plan streaming = CopyPlan.of(view.elements(), limits, true);
        double[][] millis = new double[5][rounds];
        try (BatchNorm norm = BatchNorm.open(device, BatchNormSpec.of((int) view.c()));
                Saved saved = norm.forward(sets.get(0).x(), sets.get(0).y())) {
            Buffer dGamma = device.allocate(view.c() * Float.BYTES);
            Buffer dBeta = device.allocate(view.c() * Float.BYTES);
            buffers.add(dGamma);
            buffers.add(dBeta);
            for (int i = -WARM_UP; i < rounds; i++) {
                int at = Math.max(0, i);
                millis[0][at] = time(set -> copy(plain, set));
                millis[1][at] = time(set -> copy(streaming, set));
                millis[2][at] = time(set -> norm.forward(set.x(), set.y()).close());
                millis[3][at] = time(set -> norm.infer(set.x(), set.y()));
                millis[4][at] =
                        time(set -> norm.backward(saved, set.x(), set.y(), Gradients.of(set.dx(), dGamma, dBeta)));
            }
        }
        for (double[] each : millis) {
            Arrays.sort(each);
        }
        double[] copy = median(millis[0]) < median(millis[1]) ? millis[0] : millis[1];
        double copyRate = plain.bytes() / median(copy) / 1e6;
        return List.of(
                row("copy", plain, copy, copyRate),
                row("forward training", forward, millis[2], copyRate),
                row("forward evaluation", inference, millis[3], copyRate),
                row("backward", backward, millis[4], copyRate));
    }

    private interface Pass {
        void enqueue(Tensors set);
    }

    private double time(Pass pass) {
        round++;
        Tensors set = sets.get(round % sets.size());
        long start = System.nanoTime();
        pass.enqueue(set);
        device.finish();
        return (System.nanoTime() - start) / 1e6;
    }

    private void copy(Plan plan, Tensors set) {
        KernelCall call = plan.calls().get(0);
        Kernel kernel = device.kernel(call.file(), call.kernel(), call.defines());
        device.enqueue(kernel, call.range(), set.x().buffer(), set.y().buffer(), view.elements());
    }

    private Row row(String pass, Plan plan, double[] sorted, double copyRate) {
        return new Row(
                pass,
                layout,
                LongStream.of(shape).mapToObj(Long::toString).collect(Collectors.joining("x")),
                plan.calls().stream().map(KernelCall::kernel).collect(Collectors.joining("+")),
                median(sorted),
                sorted[0],
                plan.bytes(),
                copyRate);
    }

    private static double median(double[] sorted) {
        int middle = sorted.length / 2;
        return sorted.length % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
    }

    /**
     * The rows as a table for a person.
     *
     * @param rows what was measured
     * @return lines with a header
     */
    public static String table(List<Row> rows) {
        StringBuilder text = new StringBuilder(String.format(
                Locale.ROOT,
                "%-18s %-14s %-18s %10s %10s %8s %6s%n",
                "pass",
                "layout",
                "shape",
                "median ms",
                "min ms",
                "GB/s",
                "/copy"));
        for (Row row : rows) {
            text.append(String.format(
                    Locale.ROOT,
                    "%-18s %-14s %-18s %10.3f %10.3f %8.1f %6.2f%n",
                    row.pass(),
                    row.layout().name().toLowerCase(Locale.ROOT),
                    row.shape(),
                    row.medianMillis(),
                    row.minMillis(),
                    row.gigabytes(),
                    row.fraction()));
        }
        return text.toString();
    }
}
