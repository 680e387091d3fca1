package io.normcl.peers;

import static org.jocl.CL.CL_CONTEXT_PLATFORM;
import static org.jocl.CL.CL_DEVICE_TYPE_CPU;
import static org.jocl.CL.CL_MEM_READ_WRITE;
import static org.jocl.CL.CL_MEM_USE_HOST_PTR;
import static org.jocl.CL.CL_SUCCESS;

import io.normcl.BatchNorm;
import io.normcl.bench.BenchCase;
import io.normcl.bench.BenchCase.Pass;
import io.normcl.bench.BenchLayer;
import io.normcl.bench.BenchLayer.Tensors;
import io.normcl.bench.Rounds.Work;
import io.normcl.bench.StreamingCopy;
import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.plan.KernelCall;
import io.normcl.plan.Tuning;
import io.normcl.tensor.Tensor;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Collectors;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.FloatPointer;
import org.jocl.CL;
import org.jocl.Pointer;
import org.jocl.cl_command_queue;
import org.jocl.cl_context;
import org.jocl.cl_context_properties;
import org.jocl.cl_device_id;
import org.jocl.cl_mem;
import org.jocl.cl_platform_id;
import org.jspecify.annotations.Nullable;

/** NormCL, on the CPU's OpenCL runtime, with buffers over the shared memory. */
final class NormClContender implements Contender {
    /** An OpenCL context and queue on the CPU, and the device over them. */
    static final class Opened implements AutoCloseable {
        private final cl_context context;
        private final cl_command_queue queue;
        private final Device device;

        private Opened(cl_context context, cl_command_queue queue) {
            this.context = context;
            this.queue = queue;
            this.device = Device.wrap(context, queue);
        }

        /** Opens the first CPU that an OpenCL platform offers. */
        @SuppressWarnings("deprecation") // the later call is missing from OpenCL 1.2
        static Opened cpu() {
            int[] count = new int[1];
            CL.clGetPlatformIDs(0, null, count);
            cl_platform_id[] platforms = new cl_platform_id[count[0]];
            CL.clGetPlatformIDs(count[0], platforms, null);
            for (cl_platform_id platform : platforms) {
                cl_device_id[] devices = new cl_device_id[1];
                if (CL.clGetDeviceIDs(platform, CL_DEVICE_TYPE_CPU, 1, devices, null) == CL_SUCCESS) {
                    cl_context_properties properties = new cl_context_properties();
                    properties.addProperty(CL_CONTEXT_PLATFORM, platform);
                    cl_context context = CL.clCreateContext(properties, 1, devices, null, null, null);
                    return new Opened(context, CL.clCreateCommandQueue(context, devices[0], 0, null));
                }
            }
            throw new IllegalStateException("no OpenCL platform offers a CPU: platforms=" + count[0]);
        }

        Device device() {
            return device;
        }

        @Override
        public void close() {
            device.close();
            CL.clReleaseCommandQueue(queue);
            CL.clReleaseContext(context);
        }
    }

    private final Opened opened;
    private final SharedTensors shared;
    private final BenchLayer layer;
    private final List<cl_mem> memory = new ArrayList<>();
    private final List<Tensors> sets = new ArrayList<>();

    NormClContender(Opened opened, BenchCase timed, SharedTensors shared) {
        this.opened = opened;
        this.shared = shared;
        layer = BenchLayer.open(opened.device(), timed, Tuning.NONE);
        for (int i = 0; i < shared.count(); i++) {
            SharedTensors.Set set = shared.set(i);
            sets.add(new Tensors(
                    tensor(timed, set.x()),
                    tensor(timed, set.y()),
                    tensor(timed, set.dy()),
                    tensor(timed, set.dx()),
                    null,
                    null));
        }
        write(layer.layer().gamma(), shared.gamma());
        write(layer.layer().beta(), shared.beta());
        if (layer.layer() instanceof BatchNorm norm) {
            write(norm.runningMean(), shared.runningMean());
            write(norm.runningVar(), shared.runningVar());
        }
        layer.prepare(sets.get(0));
    }

    private Tensor tensor(BenchCase timed, FloatPointer values) {
        ByteBuffer host = new BytePointer(values).capacity(timed.tensorBytes()).asByteBuffer();
        cl_mem mem = CL.clCreateBuffer(
                opened.context, CL_MEM_READ_WRITE | CL_MEM_USE_HOST_PTR, timed.tensorBytes(), Pointer.to(host), null);
        memory.add(mem);
        return Tensor.of(Buffer.wrap(opened.device(), mem), timed.type(), timed.layout(), timed.stored());
    }

    private static void write(@Nullable Buffer buffer, float[] values) {
        if (buffer != null) {
            buffer.write(values);
        }
    }

    /** A copy from the x to the y of a set. */
    Work copy(StreamingCopy copy) {
        return new Work(set -> copy.enqueue(sets.get(set).x(), sets.get(set).y()), opened.device()::finish);
    }

    /** What must pass to and from memory, by the plan. */
    long bytes(Pass pass) {
        return layer.plan(pass, sets.get(0)).bytes();
    }

    @Override
    public String name() {
        return Result.NORMCL;
    }

    @Override
    public Work pass(Pass pass) {
        return new Work(set -> layer.enqueue(pass, sets.get(set)), opened.device()::finish);
    }

    @Override
    public String remark(Pass pass) {
        return layer.plan(pass, sets.get(0)).calls().stream()
                .map(KernelCall::kernel)
                .collect(Collectors.joining(" "));
    }

    @Override
    public void fetch(Pass pass) {
        layer.dGamma().read(shared.dGamma());
        Buffer dBeta = layer.dBeta();
        if (dBeta != null) {
            dBeta.read(shared.dBeta());
        } else {
            Arrays.fill(shared.dBeta(), 0);
        }
    }

    @Override
    public void close() {
        layer.close();
        memory.forEach(CL::clReleaseMemObject);
    }
}
