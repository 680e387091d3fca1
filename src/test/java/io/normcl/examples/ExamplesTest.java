package io.normcl.examples;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.normcl.Gradients;
import io.normcl.Input;
import io.normcl.Rig;
import io.normcl.device.Device;
import io.normcl.tensor.Layout;
import io.normcl.tensor.Tensor;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Random;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.jocl.CL;
import org.jocl.Pointer;
import org.jocl.cl_command_queue;
import org.jocl.cl_context;
import org.jocl.cl_context_properties;
import org.jocl.cl_device_id;
import org.jocl.cl_mem;
import org.jocl.cl_platform_id;
import org.junit.jupiter.api.Test;

/** The examples run, and the README shows them as they are. */
class ExamplesTest {
    @Test
    @SuppressWarnings("deprecation")
    void yourOwnMemory() {
        cl_platform_id[] platform = new cl_platform_id[1];
        CL.clGetPlatformIDs(1, platform, null);
        cl_device_id[] device = new cl_device_id[1];
        CL.clGetDeviceIDs(platform[0], 0xFFFFFFFFL, 1, device, null);
        cl_context_properties properties = new cl_context_properties();
        properties.addProperty(CL.CL_CONTEXT_PLATFORM, platform[0]);
        cl_context context = CL.clCreateContext(properties, 1, device, null, null, null);
        cl_command_queue queue = CL.clCreateCommandQueue(context, device[0], 0, null);
        cl_mem[] mems = new cl_mem[4];
        int count = 8 * 64 * 28 * 28;
        for (int i = 0; i < mems.length; i++) {
            Pointer values = Pointer.to(Rig.normal(new Random(i), count));
            mems[i] = CL.clCreateBuffer(
                    context, CL.CL_MEM_READ_WRITE | CL.CL_MEM_COPY_HOST_PTR, 4L * count, values, null);
        }
        Examples.yourOwnMemory(context, queue, mems[0], mems[1], mems[2], mems[3]);
        float[] dx = new float[count];
        CL.clEnqueueReadBuffer(queue, mems[3], true, 0, 4L * count, Pointer.to(dx), 0, null, null);
        double sum = 0;
        for (float value : dx) {
            sum += value;
        }
        assertEquals(0, sum / count, 1e-7); // each channel's dx sums to zero
        for (cl_mem mem : mems) {
            CL.clReleaseMemObject(mem);
        }
        CL.clReleaseCommandQueue(queue);
        CL.clReleaseContext(context);
        assertEquals(0, Device.liveHandles());
    }

    @Test
    void twoDevices() {
        List<Device> devices = Device.open(Rig.SELECTOR + ":2");
        try (Rig one = new Rig(devices.get(0));
                Rig two = new Rig(devices.get(1))) {
            Random random = new Random(1);
            Tensor x1 = one.tensor(Rig.normal(random, 3 * 64 * 9), Layout.CHANNELS_LAST, 3, 3, 3, 64);
            Tensor dy1 = one.tensor(Rig.normal(random, 3 * 64 * 9), Layout.CHANNELS_LAST, 3, 3, 3, 64);
            Tensor x2 = two.tensor(Rig.normal(random, 64 * 9), Layout.CHANNELS_LAST, 1, 3, 3, 64);
            Tensor dy2 = two.tensor(Rig.normal(random, 64 * 9), Layout.CHANNELS_LAST, 1, 3, 3, 64);
            Tensor y1 = one.tensor(new float[3 * 64 * 9], Layout.CHANNELS_LAST, 3, 3, 3, 64);
            Tensor y2 = two.tensor(new float[64 * 9], Layout.CHANNELS_LAST, 1, 3, 3, 64);
            Examples.twoDevices(
                    devices.get(0),
                    devices.get(1),
                    List.of(Input.of(x1), Input.of(x2)),
                    List.of(y1, y2),
                    List.of(dy1, dy2),
                    List.of(Gradients.of(dy1, null, null), Gradients.of(dy2, null, null)));
            double sum = 0;
            double squares = 0;
            for (Tensor y : List.of(y1, y2)) {
                for (float value : Rig.read(y)) {
                    sum += value;
                    squares += (double) value * value;
                }
            }
            assertEquals(0, sum / (4 * 64 * 9), 1e-6);
            assertEquals(1, squares / (4 * 64 * 9), 1e-4);
        } finally {
            devices.forEach(Device::close);
        }
    }

    @Test
    void theReadmeShowsThem() throws IOException {
        String readme = Files.readString(Path.of("README.md"));
        String source = Files.readString(Path.of("src/test/java/io/normcl/examples/Examples.java"));
        Matcher examples = Pattern.compile("// README: (?!end).*\\n((?s:.*?))\\s+// README: end")
                .matcher(source);
        int shown = 0;
        while (examples.find()) {
            String code = examples.group(1).stripIndent();
            assertTrue(readme.contains(code), () -> "the README lacks:\n" + code);
            shown++;
        }
        assertEquals(2, shown);
    }
}
