package io.normcl.device;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertNotSame;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.normcl.BatchNorm;
import io.normcl.BatchNormSpec;
import io.normcl.Gradients;
import io.normcl.KernelNames;
import io.normcl.Rig;
import io.normcl.Saved;
import io.normcl.device.Limits.ReadsAhead;
import io.normcl.plan.Tuning;
import io.normcl.tensor.Layout;
import io.normcl.tensor.Tensor;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.LongAdder;
import java.util.concurrent.locks.LockSupport;
import java.util.stream.Stream;
import org.jocl.CL;
import org.jocl.CLException;
import org.jocl.Pointer;
import org.jocl.cl_command_queue;
import org.jocl.cl_context;
import org.jocl.cl_context_properties;
import org.jocl.cl_device_id;
import org.jocl.cl_mem;
import org.jocl.cl_platform_id;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/** Devices, buffers, kernels: what they do, what they refuse, that nothing stays behind. */
class DeviceTest {
    @AfterEach
    void nothingStaysOpen() {
        assertEquals(0, Device.liveHandles());
    }

    private static String refused(Class<? extends Exception> type, Runnable call) {
        String message = assertThrows(type, call::run).getMessage();
        assertFalse(message.contains("\n"), message);
        return message;
    }

    @Test
    void anAmdCpuFromZen5OnReadsAheadWhileItSums() {
        String of = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: %d\nmodel\t\t: 17\n";
        assertEquals(ReadsAhead.STRAIGHT, Discovery.amd(of.formatted(25)));
        assertEquals(ReadsAhead.SUMMING, Discovery.amd(of.formatted(26)));
        assertEquals(ReadsAhead.STRAIGHT, Discovery.amd(""), "no Linux");
    }

    @Test
    void selectorsNameDevices() {
        Description first = Device.list().get(0);
        for (String selector : List.of(
                "0",
                first.type(),
                first.name().substring(2, 8),
                first.platform().toUpperCase(java.util.Locale.ROOT),
                " 0 ")) {
            List<Device> devices = Device.open(selector);
            assertEquals(1, devices.size(), selector);
            assertEquals(first.name(), devices.get(0).name(), selector);
            devices.forEach(Device::close);
        }
        List<Device> several = Device.open("0,0:3");
        assertEquals(4, several.size());
        several.forEach(Device::close);
    }

    @Test
    void enoughCoresAreSharedOut() {
        int units = Device.list().get(0).limits().computeUnits();
        if (units >= 2) {
            List<Device> parts = Device.open("0:2");
            for (Device part : parts) {
                assertEquals(units / 2, part.limits().computeUnits());
            }
            parts.forEach(Device::close);
        }
        List<Device> copies = Device.open("0:" + (units + 1));
        assertEquals(units + 1, copies.size());
        for (Device copy : copies) {
            assertEquals(units, copy.limits().computeUnits());
        }
        copies.forEach(Device::close);
    }

    @Test
    void selectorsThatMatchNothingListWhatThereIs() {
        String name = Device.list().get(0).name();
        for (String selector : List.of("nonesuch", "", "99", "cpu,", "cpu:0", "cpu:", ":2")) {
            String message = refused(IllegalArgumentException.class, () -> Device.open(selector));
            assertTrue(message.contains(name) && message.contains("selector=" + selector), message);
        }
    }

    @Test
    void transfersStayInside() {
        try (Device device = Rig.open();
                Buffer buffer = device.allocate(40)) {
            buffer.fill(2);
            float[] values = new float[10];
            buffer.read(values);
            assertArrayEquals(new float[] {2, 2, 2, 2, 2, 2, 2, 2, 2, 2}, values);
            String message = refused(IllegalArgumentException.class, () -> buffer.write(new float[11]));
            assertTrue(message.contains("bytes=44, size=40"), message);
            refused(IllegalArgumentException.class, () -> buffer.read(36, ByteBuffer.allocateDirect(8)));
            refused(IllegalArgumentException.class, () -> buffer.read(-4, ByteBuffer.allocateDirect(8)));
            refused(IllegalArgumentException.class, () -> buffer.read(0, ByteBuffer.allocate(8)));
        }
    }

    @Test
    void longTransfersArriveWhole() {
        try (Device device = Rig.open();
                Buffer buffer = device.allocate(4L * 700_001)) {
            float[] values = new float[700_001];
            for (int i = 0; i < values.length; i++) {
                values[i] = i;
            }
            buffer.write(values);
            float[] back = new float[values.length];
            buffer.read(back);
            assertArrayEquals(values, back);
        }
    }

    @Test
    void finishingWaitsForWhatWasFlushed() {
        for (Description description : Device.list()) {
            int floats = 1 << 20;
            ByteBuffer target = ByteBuffer.allocateDirect(4 * floats).order(ByteOrder.nativeOrder());
            try (Device device =
                    Device.open(Integer.toString(description.index())).get(0)) {
                Buffer buffer = device.allocate(4L * floats);
                for (float value = 1; value < 20; value++) {
                    buffer.fill(value);
                    buffer.enqueueRead(0, target);
                    device.flush();
                    device.finish();
                    assertEquals(value, target.getFloat(4 * (floats - 1)), description.toString());
                }
            }
        }
    }

    @Test
    void memoryHasABudget() {
        try (Device device = Rig.open()) {
            device.budget(1000);
            Buffer held = device.allocate(600);
            String message = refused(DeviceException.class, () -> device.allocate(401));
            assertTrue(message.contains("out of device memory: asked=401 bytes, in use=600, budget=1000"), message);
            held.close();
            device.allocate(1000);
            device.budget(Long.MAX_VALUE);
            String largest = refused(DeviceException.class, () -> device.allocate(1L << 60));
            assertTrue(largest.contains("largest buffer="), largest);
            refused(IllegalArgumentException.class, () -> device.allocate(-1));
        }
    }

    @Test
    void emptyBuffersAreLegalAndNoKernelGetsThem() {
        try (Device device = Rig.open();
                Buffer empty = device.allocate(0);
                Buffer full = device.allocate(64)) {
            empty.write(new float[0]);
            empty.fill(1);
            Kernel kernel = device.kernel("channel.cl", "channel_stats_running", Map.of());
            String message = refused(
                    IllegalArgumentException.class,
                    () -> device.enqueue(kernel, Range.of(32, 32), full, empty, full, 1L, new float[2]));
            assertTrue(message.contains("kernel=channel_stats_running, argument=1"), message);
            String type = refused(
                    IllegalArgumentException.class,
                    () -> device.enqueue(kernel, Range.of(32, 32), full, full, full, "1", new float[2]));
            assertTrue(type.contains("type=String"), type);
            String size = refused(
                    IllegalArgumentException.class,
                    () -> device.enqueue(kernel, Range.of(1L << 20, 1L << 20), full, full, full, 1L, new float[2]));
            assertTrue(size.contains("a work-group must fit the device"), size);
            String status =
                    refused(DeviceException.class, () -> device.enqueue(kernel, Range.of(32, 32), full, full, full, 1));
            assertTrue(status.contains("status=CL_INVALID_ARG_SIZE") && status.contains("argument=3"), status);
        }
        refused(IllegalArgumentException.class, () -> Range.of(33, 32));
    }

    @Test
    void argumentsAreSetOnlyWhereTheyChange() {
        try (Device device = Rig.open();
                Buffer x = device.allocate(16)) {
            Kernel kernel = device.kernel("channel.cl", "channel_stats_running", Map.of());
            float[] eps = {1, 2};
            assertEquals(5, kernel.arguments(new Object[] {x, x, x, 1L, eps}));
            assertEquals(0, kernel.arguments(new Object[] {x, x, x, 1L, new float[] {1, 2}}));
            eps[1] = 3; // the caller's own array, changed in place
            assertEquals(2, kernel.arguments(new Object[] {x, x, x, 2L, eps}));
            refused(DeviceException.class, () -> kernel.arguments(new Object[] {x, x, x, 3, eps}));
            assertEquals(1, kernel.arguments(new Object[] {x, x, x, 2L, eps})); // what was refused is not taken as set
        }
    }

    @Test
    void aLentKernelKeepsItsArgumentsAndIsLentAgain() {
        int before = Device.liveHandles();
        try (Device device = Rig.open();
                Buffer x = device.allocate(16)) {
            float[] eps = {1, 2};
            Object[] args = {x, x, x, 1L, eps};
            Kernel shared = device.kernel("channel.cl", "channel_stats_running", Map.of());
            Kernel own = device.lend("channel.cl", "channel_stats_running", Map.of());
            Kernel others = device.lend("channel.cl", "channel_stats_running", Map.of());
            assertSame(shared, device.kernel("channel.cl", "channel_stats_running", Map.of()));
            assertEquals(5, own.arguments(args));
            assertEquals(5, others.arguments(new Object[] {x, x, x, 2L, eps}));
            assertEquals(5, shared.arguments(new Object[] {x, x, x, 3L, eps}));
            assertEquals(0, own.arguments(args));
            int held = Device.liveHandles();
            others.handBack();
            assertNotSame(others, device.lend("channel.cl", "channel_running_commit", Map.of()));
            assertSame(others, device.lend("channel.cl", "channel_stats_running", Map.of()));
            assertEquals(held + 1, Device.liveHandles());
        }
        assertEquals(before, Device.liveHandles());
    }

    @Test
    void aNewBufferInTheOldOnesPlaceIsAnotherArgument() {
        try (Device device = Rig.open();
                Buffer x = device.allocate(16)) {
            Kernel kernel = device.kernel("copy.cl", "wide_copy", Map.of());
            x.write(new float[] {1, 2, 3, 4});
            for (int round = 0; round < 20; round++) {
                try (Buffer y = device.allocate(16)) {
                    y.fill(0);
                    device.enqueue(kernel, Range.of(1, 1), x, y, 4L);
                    assertArrayEquals(new float[] {1, 2, 3, 4}, Rig.read(y));
                }
            }
        }
    }

    @Test
    void anApplicationThatLetsJoclThrowGetsTheSameErrors() {
        CL.setExceptionsEnabled(true);
        try (Device device = Rig.open();
                Buffer full = device.allocate(64)) {
            Kernel kernel = device.kernel("channel.cl", "channel_stats_running", Map.of());
            String status =
                    refused(DeviceException.class, () -> device.enqueue(kernel, Range.of(32, 32), full, full, full, 1));
            assertTrue(status.contains("status=CL_INVALID_ARG_SIZE"), status);
            refused(DeviceException.class, () -> device.kernel("channel.cl", "nonesuch", Map.of()));
        } finally {
            CL.setExceptionsEnabled(false);
        }
    }

    @Test
    void buildErrorsNameFileAndLine() {
        try (Device device = Rig.open()) {
            DeviceException error = assertThrows(
                    DeviceException.class,
                    () -> device.kernel("channel.cl", "channel_stats_running", Map.of("FP64", "!")));
            assertTrue(error.getMessage().contains("real.clh:"), error.getMessage());
            assertTrue(error.getMessage().contains("FP64=!"), error.getMessage());
            assertFalse(error.getMessage().contains("\n"));
            assertFalse(error.details().isEmpty());
            String missing = refused(IllegalArgumentException.class, () -> device.kernel("nonesuch.cl", "k", Map.of()));
            assertTrue(missing.contains("file=kernels/nonesuch.cl"), missing);
        }
    }

    @Test
    void everyKernelCompilesAloneWithNoDefines() throws IOException {
        try (Device device = Rig.open()) {
            KernelNames.files().forEach((name, file) -> {
                if (!name.startsWith("cooperative_")) {
                    assertEquals(name, device.kernel(file, name, Map.of()).name());
                }
            });
        }
    }

    @Test
    void launchesCanBeTimed() {
        try (Device device = Rig.open();
                BatchNorm norm = BatchNorm.open(device, BatchNormSpec.of(64), Tuning.NONE.withFused(false));
                Buffer x = device.allocate(4L * 64 * 64 * 64)) {
            x.fill(1);
            Tensor t = Tensor.of(x, Layout.CHANNELS_FIRST, 64, 64, 64);
            List<KernelTime> times = device.profile(() -> norm.infer(t, t));
            assertEquals(2, times.size());
            assertEquals("channel_stats_running", times.get(0).kernel());
            assertTrue(times.get(1).nanos() > 0);
        }
    }

    @Test
    void closingADeviceReleasesAllThatWasMadeOnIt() {
        Device device = Rig.open();
        Buffer buffer = device.allocate(100);
        BatchNorm norm = BatchNorm.open(device, BatchNormSpec.of(8));
        device.close();
        device.close();
        assertEquals(0, Device.liveHandles());
        String message = refused(IllegalStateException.class, () -> buffer.fill(1));
        assertTrue(message.contains("closed"), message);
        refused(IllegalStateException.class, () -> device.allocate(1));
        refused(IllegalStateException.class, device::finish);
        buffer.close();
        norm.close();
    }

    @Test
    void twoHundredRoundsLeaveNothing() throws IOException {
        long before = 0;
        for (int round = 0; round < 200; round++) {
            try (Device device = Rig.open();
                    BatchNorm norm = BatchNorm.open(device, BatchNormSpec.of(16));
                    Buffer memory = device.allocate(8 << 20)) {
                memory.fill(1);
                Tensor x = Tensor.of(memory, Layout.CHANNELS_FIRST, 4, 16, 64);
                try (Saved saved = norm.forward(x, x)) {
                    norm.backward(saved, x, x, Gradients.of(x, norm.gamma(), null));
                    norm.commit(saved);
                }
            }
            assertEquals(0, Device.liveHandles());
            if (round == 50) {
                before = residentKilobytes();
            }
        }
        long grown = residentKilobytes() - before;
        // PoCL keeps about 1 MiB of the programs of each round.
        assertTrue(grown < 4 * 150 * 1024, "resident memory grew by " + grown + " kB in 150 rounds of 8 MiB each");
    }

    private static long residentKilobytes() throws IOException {
        for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
            if (line.startsWith("VmRSS:")) {
                return Long.parseLong(line.replaceAll("\\D", ""));
            }
        }
        return 0;
    }

    // A caller's own handles.

    private static final class Own implements AutoCloseable {
        final cl_context context;
        final cl_command_queue queue;
        final List<cl_mem> memory = new ArrayList<>();

        @SuppressWarnings("deprecation")
        Own(long properties) {
            cl_platform_id[] platform = new cl_platform_id[1];
            CL.clGetPlatformIDs(1, platform, null);
            cl_device_id[] device = new cl_device_id[1];
            CL.clGetDeviceIDs(platform[0], 0xFFFFFFFFL, 1, device, null);
            cl_context_properties of = new cl_context_properties();
            of.addProperty(CL.CL_CONTEXT_PLATFORM, platform[0]);
            context = CL.clCreateContext(of, 1, device, null, null, null);
            queue = CL.clCreateCommandQueue(context, device[0], properties, null);
        }

        cl_mem floats(float[] values) {
            cl_mem mem = CL.clCreateBuffer(
                    context,
                    CL.CL_MEM_READ_WRITE | CL.CL_MEM_COPY_HOST_PTR,
                    4L * values.length,
                    Pointer.to(values),
                    null);
            memory.add(mem);
            return mem;
        }

        float[] read(cl_mem mem, int count) {
            float[] values = new float[count];
            CL.clEnqueueReadBuffer(queue, mem, true, 0, 4L * count, Pointer.to(values), 0, null, null);
            return values;
        }

        @Override
        public void close() {
            memory.forEach(CL::clReleaseMemObject);
            CL.clReleaseCommandQueue(queue);
            CL.clReleaseContext(context);
        }
    }

    @Test
    void wrappedHandlesWorkAndStayTheCallers() {
        try (Own own = new Own(0)) {
            cl_mem x = own.floats(new float[] {1, 10, 3, 30});
            cl_mem y = own.floats(new float[4]);
            cl_mem gamma = own.floats(new float[] {2, 1});
            try (Device device = Device.wrap(own.context, own.queue)) {
                BatchNormSpec spec = BatchNormSpec.of(2).withEps(0).withAffine(true, false);
                BatchNorm.Parameters parameters = new BatchNorm.Parameters(
                        Buffer.wrap(device, gamma), null, device.allocate(8), device.allocate(8));
                try (BatchNorm norm = BatchNorm.open(device, spec, parameters)) {
                    Tensor tx = Tensor.of(Buffer.wrap(device, x), Layout.CHANNELS_FIRST, 2, 2);
                    Tensor ty = Tensor.of(Buffer.wrap(device, y), Layout.CHANNELS_FIRST, 2, 2);
                    norm.forward(tx, ty).close();
                    tx.buffer().close();
                }
                assertEquals(Device.liveHandles() > 0, true);
            }
            assertArrayEquals(new float[] {-2, -1, 2, 1}, own.read(y, 4));
            assertArrayEquals(new float[] {1, 10, 3, 30}, own.read(x, 4));
        }
    }

    @Test
    void wrappingRefusesWhatWouldNotWork() {
        try (Own own = new Own(0);
                Own other = new Own(0);
                Own outOfOrder = new Own(CL.CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE);
                Device device = Device.wrap(own.context, own.queue)) {
            String queue =
                    refused(IllegalArgumentException.class, () -> Device.wrap(outOfOrder.context, outOfOrder.queue));
            assertTrue(queue.contains("must be in-order"), queue);
            String context = refused(IllegalArgumentException.class, () -> Device.wrap(other.context, own.queue));
            assertTrue(context.contains("must belong to the wrapped context"), context);
            String mem = refused(IllegalArgumentException.class, () -> Buffer.wrap(device, other.floats(new float[2])));
            assertTrue(mem.contains("must belong to the device's context"), mem);
            String profile = refused(
                    DeviceException.class,
                    () -> device.profile(() -> {
                        Kernel kernel = device.kernel("channel.cl", "channel_stats_running", Map.of());
                        Buffer b = Buffer.wrap(device, own.floats(new float[16]));
                        device.enqueue(kernel, Range.of(32, 32), b, b, b, 1L, new float[2]);
                    }));
            assertTrue(profile.contains("PROFILING"), profile);
        }
    }

    @Test
    void matrixProductsRefuseWhatDoesNotFit() {
        try (Device device = Rig.open();
                Buffer a = device.allocate(4 * 6);
                Buffer b = device.allocate(4 * 6);
                Buffer c = device.allocate(4 * 4)) {
            a.write(new float[] {1, 2, 3, 4, 5, 6});
            b.write(new float[] {1, 2, 3, 4, 5, 6});
            MatrixProduct.enqueue(device, false, false, 2, 2, 3, 1, a, 0, 3, b, 0, 2, 0, c, 0, 2);
            assertArrayEquals(new float[] {22, 28, 49, 64}, Rig.read(c));
            MatrixProduct.enqueue(device, false, true, 2, 2, 3, 1, a, 0, 3, b, 0, 3, 1, c, 0, 2);
            assertArrayEquals(new float[] {22 + 14, 28 + 32, 49 + 32, 64 + 77}, Rig.read(c));
            String message = refused(
                    IllegalArgumentException.class,
                    () -> MatrixProduct.enqueue(device, false, false, 2, 2, 4, 1, a, 0, 4, b, 0, 2, 0, c, 0, 2));
            assertTrue(message.contains("matrix=A"), message);
        }
    }

    /** CLBlast would take the process down. */
    @Test
    void matrixProductsWithoutMemoryAreRefused() {
        try (Device device = Rig.open();
                Buffer one = device.allocate(4)) {
            device.budget(100);
            String memory = refused(
                    DeviceException.class,
                    () -> MatrixProduct.enqueue(device, false, false, 1, 1, 1, 1, one, 0, 1, one, 0, 1, 0, one, 0, 1));
            assertTrue(memory.contains("out of device memory: asked="), memory);
        }
    }

    @Test
    void joclsExceptionSwitchIsLeftAlone() {
        try (Device device = Rig.open()) {
            device.finish();
        }
        // Still off, as the application left it: a refused call returns its status.
        try {
            cl_platform_id[] platform = new cl_platform_id[1];
            CL.clGetPlatformIDs(1, platform, null);
            assertNotEquals(CL.CL_SUCCESS, CL.clGetDeviceIDs(platform[0], 0, 0, null, new int[1]));
        } catch (CLException e) {
            throw new AssertionError("the switch was set", e);
        }
    }

    /** Null checks raise SIGSEGV inside HotSpot; the compiler's own handler of it must not see them. */
    @Test
    void programsBuildWhileOtherThreadsRaiseSignals() throws InterruptedException {
        assertTrue(Signals.chained(), "the tests must run with LD_PRELOAD=libjsig.so");
        AtomicBoolean stop = new AtomicBoolean();
        LongAdder raised = new LongAdder();
        List<Thread> threads = Stream.generate(() -> new Thread(() -> raiseNullPointers(stop, raised)))
                .limit(3)
                .toList();
        threads.forEach(Thread::start);
        try (Device device = Rig.open()) {
            for (int i = 0; i < 20; i++) {
                device.kernel("copy.cl", "wide_copy", Map.of("UNUSED", Integer.toString(i)));
            }
        } finally {
            stop.set(true);
            for (Thread thread : threads) {
                thread.join();
            }
        }
        assertTrue(raised.sum() > 100, "raised=" + raised);
    }

    private static void raiseNullPointers(AtomicBoolean stop, LongAdder raised) {
        int[][] arrays = {{1}, {2}};
        long sum = 0;
        for (int n = 0; !stop.get(); n++) {
            if (n > 100_000) { // by then the read below is compiled to one instruction that faults on null
                arrays[1] = null;
                LockSupport.parkNanos(10_000);
            }
            try {
                sum += first(arrays[n & 1]);
            } catch (NullPointerException e) {
                raised.increment();
            }
        }
        assertTrue(sum > 0);
    }

    private static int first(int[] array) {
        return array[0];
    }
}
