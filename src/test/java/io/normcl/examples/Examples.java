package io.normcl.examples;

import io.normcl.BatchNorm;
import io.normcl.BatchNormSpec;
import io.normcl.Gradients;
import io.normcl.Input;
import io.normcl.Replicas;
import io.normcl.Saved;
import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.tensor.Layout;
import io.normcl.tensor.Tensor;
import java.util.List;
import org.jocl.cl_command_queue;
import org.jocl.cl_context;
import org.jocl.cl_mem;

/** The examples of the README, which a test runs and compares with it. */
final class Examples {
    private Examples() {}

    /** One training step over memory that a training backend holds. */
    static void yourOwnMemory(
            cl_context context, cl_command_queue queue, cl_mem xMem, cl_mem yMem, cl_mem dyMem, cl_mem dxMem) {
        // README: your own memory
        try (Device device = Device.wrap(context, queue); // an in-order queue; both stay yours
                BatchNorm norm = BatchNorm.open(device, BatchNormSpec.of(64));
                Buffer dGamma = device.allocate(64 * Float.BYTES);
                Buffer dBeta = device.allocate(64 * Float.BYTES)) {
            Tensor x = Tensor.of(Buffer.wrap(device, xMem), Layout.CHANNELS_FIRST, 8, 64, 28, 28);
            Tensor y = Tensor.of(Buffer.wrap(device, yMem), Layout.CHANNELS_FIRST, 8, 64, 28, 28);
            Tensor dy = Tensor.of(Buffer.wrap(device, dyMem), Layout.CHANNELS_FIRST, 8, 64, 28, 28);
            Tensor dx = Tensor.of(Buffer.wrap(device, dxMem), Layout.CHANNELS_FIRST, 8, 64, 28, 28);

            try (Saved saved = norm.forward(x, y)) { // training; enqueued on your queue, nothing waits
                // ... the rest of your network, which fills dy on the same queue ...
                norm.backward(saved, x, dy, Gradients.of(dx, dGamma, dBeta));
                norm.commit(saved); // only now the running statistics move
            }
            norm.infer(x, y); // evaluation, by the running statistics
        }
        // README: end
    }

    /** One synchronized step over two devices with shards of their own. */
    static void twoDevices(
            Device one, Device two, List<Input> xs, List<Tensor> ys, List<Tensor> dys, List<Gradients> gradients) {
        // README: two devices
        BatchNormSpec spec = BatchNormSpec.of(64);
        try (BatchNorm first = BatchNorm.open(one, spec);
                BatchNorm second = BatchNorm.open(two, spec)) {
            Replicas replicas = Replicas.of(List.of(first, second));
            // xs: a shard on each device, uneven or empty; ys, dys and gradients likewise
            List<Saved> saved = replicas.forward(xs, ys); // statistics of both shards together
            replicas.backward(saved, xs, dys, gradients);
            first.commit(saved.get(0)); // both end with the same bits
            second.commit(saved.get(1));
            saved.forEach(Saved::close);
        }
        // README: end
    }
}
