package io.normcl.host;

import io.normcl.BatchNorm;
import io.normcl.BatchNormSpec;
import io.normcl.Gradients;
import io.normcl.LayerNorm;
import io.normcl.LayerNormSpec;
import io.normcl.Saved;
import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.tensor.Layout;
import io.normcl.tensor.Tensor;
import java.util.Collection;
import java.util.Locale;
import java.util.Objects;
import java.util.concurrent.TimeUnit;
import org.jocl.CL;
import org.jocl.Pointer;
import org.jocl.Sizeof;
import org.jocl.cl_command_queue;
import org.jocl.cl_context;
import org.jocl.cl_device_id;
import org.jocl.cl_kernel;
import org.jocl.cl_mem;
import org.jocl.cl_platform_id;
import org.jocl.cl_program;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Level;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OperationsPerInvocation;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;
import org.openjdk.jmh.annotations.Warmup;
import org.openjdk.jmh.profile.GCProfiler;
import org.openjdk.jmh.results.RunResult;
import org.openjdk.jmh.runner.Runner;
import org.openjdk.jmh.runner.RunnerException;
import org.openjdk.jmh.runner.options.CommandLineOptionException;
import org.openjdk.jmh.runner.options.CommandLineOptions;
import org.openjdk.jmh.runner.options.Options;
import org.openjdk.jmh.runner.options.OptionsBuilder;

/**
 * What a layer costs the host: the time until a call on a tiny tensor returns and what it leaves on the heap, beside a
 * launch of JOCL alone on the same queue. Nothing waits within what is timed; the device is waited for after each
 * {@value #CALLS} calls.
 */
@State(Scope.Thread)
@BenchmarkMode(Mode.SampleTime)
@OutputTimeUnit(TimeUnit.NANOSECONDS)
@OperationsPerInvocation(HostBench.CALLS)
@Warmup(iterations = 4, time = 1)
@Measurement(iterations = 5, time = 1)
@Fork(1)
public class HostBench {
    static final int CALLS = 64;
    private static final int CHANNELS = 8;
    private static final String PLAIN = "plain";
    private static final String SOURCE = "kernel void one(global const float *x, global float *y) { y[0] = x[0]; }";

    private final cl_context context;
    private final cl_command_queue queue;
    private final cl_program program;
    private final cl_kernel kernel;
    private final cl_mem[] memory = new cl_mem[2];
    private final Device device;
    private final BatchNorm batchNorm;
    private final BatchNorm other;
    private final LayerNorm layerNorm;
    private final Tensor x;
    private final Tensor y;
    private final Tensor dy;
    private final Saved ofBatchNorm;
    private final Saved ofLayerNorm;
    private final Gradients gradients;

    /** Opens the device that {@code -Dnormcl.host.device} names, and a layer of each kind on a queue of ours. */
    @SuppressWarnings("deprecation") // as the library's own queues
    public HostBench() {
        cl_device_id[] devices = {find()};
        CL.setExceptionsEnabled(true);
        context = CL.clCreateContext(null, 1, devices, null, null, null);
        queue = CL.clCreateCommandQueue(context, devices[0], 0, null);
        program = CL.clCreateProgramWithSource(context, 1, new String[] {SOURCE}, null, null);
        CL.clBuildProgram(program, 0, null, null, null, null);
        kernel = CL.clCreateKernel(program, "one", null);
        for (int i = 0; i < memory.length; i++) {
            memory[i] = CL.clCreateBuffer(context, CL.CL_MEM_READ_WRITE, Float.BYTES, null, null);
        }
        device = Device.wrap(context, queue);
        batchNorm = BatchNorm.open(device, BatchNormSpec.of(CHANNELS));
        other = BatchNorm.open(device, BatchNormSpec.of(CHANNELS));
        layerNorm = LayerNorm.open(device, LayerNormSpec.of(CHANNELS));
        x = tensor();
        y = tensor();
        dy = tensor();
        ofBatchNorm = batchNorm.forward(x, y);
        ofLayerNorm = layerNorm.forward(x, y);
        gradients = Gradients.of(
                tensor(), device.allocate(CHANNELS * Float.BYTES), device.allocate(CHANNELS * Float.BYTES));
    }

    /** JOCL's handle of a device that the library names by its index over all platforms. */
    private static cl_device_id find() {
        Device named = Device.open(System.getProperty("normcl.host.device", "cpu")).get(0);
        int index = named.description().index();
        named.close();
        int[] count = new int[1];
        CL.clGetPlatformIDs(0, null, count);
        cl_platform_id[] platforms = new cl_platform_id[count[0]];
        CL.clGetPlatformIDs(platforms.length, platforms, null);
        for (cl_platform_id platform : platforms) {
            count[0] = 0; // stays, where a platform has none
            CL.clGetDeviceIDs(platform, 0xFFFFFFFFL, 0, null, count);
            if (index < count[0]) {
                cl_device_id[] devices = new cl_device_id[count[0]];
                CL.clGetDeviceIDs(platform, 0xFFFFFFFFL, devices.length, devices, null);
                return devices[index];
            }
            index -= count[0];
        }
        throw new IllegalStateException("the device is gone: index=" + index);
    }

    private Tensor tensor() {
        long[] shape = {2, 4, CHANNELS};
        Buffer buffer = device.allocate(2 * 4 * CHANNELS * Float.BYTES);
        buffer.fill(1);
        return Tensor.of(buffer, Layout.CHANNELS_LAST, shape);
    }

    /** Says what is timed. */
    @Setup
    public void tell() {
        System.out.println(device.description());
    }

    /** Waits, so that the next calls find an empty queue. */
    @TearDown(Level.Invocation)
    public void finish() {
        device.finish();
    }

    /** Releases everything. */
    @TearDown
    public void close() {
        batchNorm.close();
        other.close();
        layerNorm.close();
        device.close();
        for (cl_mem mem : memory) {
            CL.clReleaseMemObject(mem);
        }
        CL.clReleaseKernel(kernel);
        CL.clReleaseProgram(program);
        CL.clReleaseCommandQueue(queue);
        CL.clReleaseContext(context);
    }

    /** JOCL alone: two arguments and a launch of one work-item. */
    @Benchmark
    public void plain() {
        for (int i = 0; i < CALLS; i++) {
            CL.clSetKernelArg(kernel, 0, Sizeof.cl_mem, Pointer.to(memory[0]));
            CL.clSetKernelArg(kernel, 1, Sizeof.cl_mem, Pointer.to(memory[1]));
            CL.clEnqueueNDRangeKernel(queue, kernel, 1, null, new long[] {1}, new long[] {1}, 0, null, null);
        }
    }

    /** Batch norm in training. */
    @Benchmark
    public void batchNormForward() {
        for (int i = 0; i < CALLS; i++) {
            batchNorm.forward(x, y).close();
        }
    }

    /** Two batch norms by turns, over two tensors each. */
    @Benchmark
    public void batchNormForwardByTurns() {
        for (int i = 0; i < CALLS; i += 2) {
            batchNorm.forward(x, y).close();
            other.forward(y, dy).close();
        }
    }

    /** Batch norm in evaluation. */
    @Benchmark
    public void batchNormInfer() {
        for (int i = 0; i < CALLS; i++) {
            batchNorm.infer(x, y);
        }
    }

    /** Batch norm's gradients. */
    @Benchmark
    public void batchNormBackward() {
        for (int i = 0; i < CALLS; i++) {
            batchNorm.backward(ofBatchNorm, x, dy, gradients);
        }
    }

    /** Layer norm. */
    @Benchmark
    public void layerNormForward() {
        for (int i = 0; i < CALLS; i++) {
            layerNorm.forward(x, y).close();
        }
    }

    /** Layer norm's gradients. */
    @Benchmark
    public void layerNormBackward() {
        for (int i = 0; i < CALLS; i++) {
            layerNorm.backward(ofLayerNorm, x, dy, gradients);
        }
    }

    /**
     * Runs all of it and prints a table of medians.
     *
     * @param args JMH's
     * @throws CommandLineOptionException if they are not
     * @throws RunnerException if a benchmark fails
     */
    public static void main(String[] args) throws CommandLineOptionException, RunnerException {
        Options options = new OptionsBuilder()
                .parent(new CommandLineOptions(args))
                .include(HostBench.class.getName())
                .shouldFailOnError(true)
                .addProfiler(GCProfiler.class)
                .build();
        Collection<RunResult> results = new Runner(options).run();
        double plain = results.stream()
                .filter(result -> name(result).equals(PLAIN))
                .mapToDouble(HostBench::median)
                .findFirst()
                .orElse(Double.NaN);
        System.out.println();
        System.out.println("| call | us | plain launches | bytes on the heap |");
        System.out.println("| --- | --- | --- | --- |");
        for (RunResult result : results) {
            System.out.println(String.format(
                    Locale.ROOT,
                    "| %s | %.1f | %.1f | %.0f |",
                    name(result),
                    median(result) / 1000,
                    median(result) / plain,
                    Objects.requireNonNull(result.getSecondaryResults().get("gc.alloc.rate.norm"))
                            .getScore()));
        }
    }

    private static String name(RunResult result) {
        String benchmark = result.getParams().getBenchmark();
        return benchmark.substring(benchmark.lastIndexOf('.') + 1);
    }

    private static double median(RunResult result) {
        return result.getPrimaryResult().getStatistics().getPercentile(50);
    }
}
