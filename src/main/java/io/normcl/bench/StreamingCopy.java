package io.normcl.bench;

import io.normcl.device.Device;
import io.normcl.device.Kernel;
import io.normcl.plan.CopyPlan;
import io.normcl.plan.KernelCall;
import io.normcl.plan.Plan;
import io.normcl.tensor.Tensor;

/** The copy of a tensor, as fast as memory goes: what passes are measured against. */
public final class StreamingCopy {
    private final Device device;
    private final Plan plan;
    private final long floats;
    private final Kernel kernel;

    /**
     * Compiles a copy.
     *
     * @param device where
     * @param timed whose tensors are copied
     * @param stream whether stores go past the caches
     */
    public StreamingCopy(Device device, BenchCase timed, boolean stream) {
        this.device = device;
        floats = Math.max(1, timed.tensorBytes() / Float.BYTES);
        plan = CopyPlan.of(floats, device.limits(), stream);
        KernelCall call = plan.calls().get(0);
        kernel = device.kernel(call.file(), call.kernel(), call.defines());
    }

    /**
     * What a copy moves.
     *
     * @return bytes read and written
     */
    public long bytes() {
        return plan.bytes();
    }

    /**
     * Enqueues a copy.
     *
     * @param from read
     * @param to overwritten
     */
    public void enqueue(Tensor from, Tensor to) {
        device.enqueue(kernel, plan.calls().get(0).range(), from.buffer(), to.buffer(), floats);
    }
}
