package io.normcl.device;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.jocl.CL;
import org.jocl.Pointer;
import org.jocl.Sizeof;
import org.jocl.cl_command_queue;
import org.jocl.cl_context;
import org.jocl.cl_context_properties;
import org.jocl.cl_device_id;
import org.jocl.cl_device_partition_property;
import org.jocl.cl_event;
import org.jocl.cl_kernel;
import org.jocl.cl_program;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * One OpenCL device with a context and an in-order queue: its own ({@link #open}) or the caller's ({@link #wrap}).
 *
 * <p>One thread at a time may use a device; that is stated, not locked. Nothing blocks but reads, {@link #finish} and
 * {@link #close}. Closing a device releases every buffer and kernel made on it, and never a caller's handle.
 */
public final class Device implements AutoCloseable {
    private static final Logger LOG = LoggerFactory.getLogger(Device.class);
    /**
     * What PoCL's compiler logs where {@link Signals} are not chained: its handler of SIGSEGV deletes its temporary
     * files, and HotSpot raises that signal for itself.
     */
    private static final String LOST_FILE = "unable to rename temporary";

    private static final int BUILD_ATTEMPTS = 5;

    private static final Pattern ERROR_LINE = Pattern.compile("(?m)^.*\\berror\\b.*$");

    private record ProgramKey(String file, Map<String, String> defines) {}

    /** A program, its kernels that all share, and every kernel made of it. */
    private record Program(cl_program handle, Map<String, Kernel> shared, List<Kernel> all) {}

    private final Description description;
    private final String label;
    private final cl_device_id id;
    private final boolean subDevice;
    private final cl_context context;
    private final cl_command_queue queue;
    private final boolean owned;
    private final Map<ProgramKey, Program> programs = new HashMap<>();
    private final Set<Buffer> buffers = Collections.newSetFromMap(new IdentityHashMap<>());
    private @Nullable Buffer workspace;
    private ByteBuffer staging = direct(0);
    private final List<ByteBuffer> inFlight = new ArrayList<>();
    private @Nullable List<Timed> profile;
    private long budget;
    private long allocated;
    private boolean matrixProduct;
    private boolean closed;

    private record Timed(String kernel, Range range, cl_event event) {}

    Device(
            Description description,
            String label,
            cl_device_id id,
            boolean subDevice,
            cl_context context,
            cl_command_queue queue,
            boolean owned) {
        this.description = description;
        this.label = label;
        this.id = id;
        this.subDevice = subDevice;
        this.context = context;
        this.queue = queue;
        this.owned = owned;
        this.budget = description.limits().globalMemoryBytes();
    }

    /**
     * Every device of every platform, in the loader's order.
     *
     * @return at least one description
     * @throws DeviceException if there is no OpenCL loader, platform or device
     */
    public static List<Description> list() {
        return Discovery.all().stream().map(Discovery.Found::description).toList();
    }

    /**
     * Opens the devices that a person named: {@code cpu}, {@code gpu}, {@code accelerator} (the first of the type), an
     * index of {@link #list()}, or a part of the device's or platform's name. {@code cpu:4} is four sub-devices where
     * there are at least four compute units to share out, else four contexts on the same device. A comma makes a list.
     *
     * @param selector the devices' names
     * @return the devices in the order named; the caller closes each
     * @throws IllegalArgumentException if a part of the selector matches nothing; the message lists what there is
     * @throws DeviceException if there is no OpenCL device or the driver refuses one
     */
    public static List<Device> open(String selector) {
        List<Device> opened = new ArrayList<>();
        try {
            for (Selector.Choice choice : Selector.choose(selector, Discovery.all())) {
                open(choice, opened);
            }
        } catch (RuntimeException e) {
            opened.forEach(Device::close);
            throw e;
        }
        return opened;
    }

    private static void open(Selector.Choice choice, List<Device> opened) {
        Discovery.Found found = choice.found();
        int count = choice.count();
        int units = found.description().limits().computeUnits();
        boolean split = count > 1 && units >= count && Discovery.mostSubDevices(found.device()) >= count;
        cl_device_id[] parts = new cl_device_id[count];
        Arrays.fill(parts, found.device());
        if (split) {
            cl_device_partition_property property = new cl_device_partition_property();
            property.addProperty(CL.CL_DEVICE_PARTITION_EQUALLY, units / count);
            cl_device_id[] made = new cl_device_id[units / (units / count)];
            Status.check(
                    "clCreateSubDevices",
                    () -> CL.clCreateSubDevices(found.device(), property, made.length, made, null),
                    () -> "device=" + found.description().name() + ", units=" + units + ", parts=" + count);
            for (int i = 0; i < made.length; i++) {
                cl_device_id spare = made[i];
                if (i < count) {
                    parts[i] = Handles.opened(spare);
                } else {
                    Status.of(() -> CL.clReleaseDevice(spare));
                }
            }
        }
        int next = 0;
        try {
            for (; next < count; next++) {
                String label = found.description().name() + (count > 1 ? " #" + next : "");
                opened.add(create(found, parts[next], split, label));
            }
        } catch (RuntimeException e) {
            for (int i = next; split && i < count; i++) {
                cl_device_id part = parts[i];
                Handles.release(() -> CL.clReleaseDevice(part));
            }
            throw e;
        }
    }

    private static Device create(Discovery.Found found, cl_device_id id, boolean subDevice, String label) {
        cl_context_properties properties = new cl_context_properties();
        properties.addProperty(CL.CL_CONTEXT_PLATFORM, found.platform());
        cl_context context = Handles.opened(Status.create(
                "clCreateContext",
                status -> CL.clCreateContext(properties, 1, new cl_device_id[] {id}, null, null, status),
                () -> "device=" + label));
        try {
            @SuppressWarnings("deprecation") // the later call is missing from OpenCL 1.2
            cl_command_queue queue = Handles.opened(Status.create(
                    "clCreateCommandQueue",
                    status -> CL.clCreateCommandQueue(context, id, CL.CL_QUEUE_PROFILING_ENABLE, status),
                    () -> "device=" + label));
            Description description =
                    subDevice ? Discovery.describe(id, found.description().index()) : found.description();
            LOG.debug("opened {}", label);
            Signals.warnIfTaken(description);
            return new Device(description, label, id, subDevice, context, queue, true);
        } catch (RuntimeException e) {
            Handles.release(() -> CL.clReleaseContext(context));
            throw e;
        }
    }

    /**
     * Uses a caller's context and queue; they stay the caller's, who keeps them alive while this is used.
     *
     * @param context the context
     * @param queue an in-order queue of that context; all work goes to it, in the order of the calls
     * @return the queue's device; closing it releases what was made through it and neither handle
     * @throws IllegalArgumentException if the queue is out-of-order or of another context
     * @throws DeviceException if the driver does not know a handle
     */
    public static Device wrap(cl_context context, cl_command_queue queue) {
        Objects.requireNonNull(context, "context");
        cl_context ofQueue = new cl_context();
        cl_device_id id = new cl_device_id();
        long[] properties = new long[1];
        queueInfo(queue, CL.CL_QUEUE_CONTEXT, Sizeof.cl_context, Pointer.to(ofQueue));
        queueInfo(queue, CL.CL_QUEUE_DEVICE, Sizeof.cl_device_id, Pointer.to(id));
        queueInfo(queue, CL.CL_QUEUE_PROPERTIES, Sizeof.cl_long, Pointer.to(properties));
        if (!ofQueue.equals(context)) {
            throw new IllegalArgumentException("a wrapped queue must belong to the wrapped context: context=" + context
                    + ", context of the queue=" + ofQueue);
        }
        if ((properties[0] & CL.CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE) != 0) {
            throw new IllegalArgumentException("a wrapped queue must be in-order: queue=" + queue);
        }
        Description description = Discovery.describe(id, 0);
        return new Device(description, description.name(), id, false, context, queue, false);
    }

    private static void queueInfo(cl_command_queue queue, int name, long size, Pointer value) {
        Status.check(
                "clGetCommandQueueInfo",
                () -> CL.clGetCommandQueueInfo(queue, name, size, value, null),
                () -> "queue=" + queue);
    }

    /**
     * What the device is.
     *
     * @return its description
     */
    public Description description() {
        return description;
    }

    /**
     * The device's name, numbered where one device was opened several times.
     *
     * @return the name
     */
    public String name() {
        return label;
    }

    /**
     * The device's limits.
     *
     * @return the limits
     */
    public Limits limits() {
        return description.limits();
    }

    /**
     * Sets how much memory {@link #allocate} may hand out in all; at first it is what the driver reports. Drivers that
     * hand out more than there is make this the only safe guard.
     *
     * @param bytes the budget
     */
    public void budget(long bytes) {
        budget = bytes;
    }

    /**
     * Allocates memory; its contents are undefined.
     *
     * @param bytes the size; zero is legal
     * @return a buffer that the caller closes, or that this device's {@link #close} does
     * @throws IllegalArgumentException if the size is negative
     * @throws DeviceException if the device has not that much left; the message says how much was asked and is there
     */
    public Buffer allocate(long bytes) {
        requireOpen();
        if (bytes < 0) {
            throw new IllegalArgumentException("a buffer's size must not be negative: bytes=" + bytes);
        }
        if (bytes > budget - allocated || bytes > limits().maxAllocationBytes()) {
            throw new DeviceException("out of device memory: " + memory(bytes));
        }
        Buffer buffer = Buffer.allocate(this, bytes);
        allocated += bytes;
        buffers.add(buffer);
        return buffer;
    }

    String memory(long asked) {
        return "asked=" + asked + " bytes, in use=" + allocated + ", budget=" + budget + ", largest buffer="
                + limits().maxAllocationBytes() + ", device=" + label;
    }

    void forget(Buffer buffer) {
        if (buffers.remove(buffer)) {
            allocated -= buffer.bytes();
        }
    }

    /**
     * Scratch memory shared by all that runs on this device's in-order queue: what it holds is undefined before and
     * after a group of launches. It grows to the largest size asked for and stays.
     *
     * @param bytes how much is needed, more than zero
     * @return a buffer of at least that size, owned by this device
     * @throws DeviceException if the device has not that much left
     */
    public Buffer workspace(long bytes) {
        Buffer current = workspace;
        if (current == null || current.bytes() < bytes) {
            if (current != null) {
                current.close();
                workspace = null;
            }
            current = allocate(bytes);
            workspace = current;
        }
        return current;
    }

    /**
     * Gives the kernel of a file on the class path, compiling it at the first call for these defines. All who ask for it
     * get the same object.
     *
     * @param file the file below {@code kernels/}
     * @param name the kernel's name
     * @param defines macros, each given to the compiler as {@code -D name=value}
     * @return the kernel; this device owns it
     * @throws DeviceException if it does not compile; the message has the first error, {@link DeviceException#details}
     *     the whole log
     */
    public Kernel kernel(String file, String name, Map<String, String> defines) {
        Program program = program(file, defines);
        return program.shared().computeIfAbsent(name, n -> create(program, file, n));
    }

    /**
     * Lends a kernel like that of {@link #kernel}, but one that nobody else has until {@link Kernel#handBack}, so that
     * no launch of another's comes between and changes arguments. What was handed back is lent first: some drivers compile
     * for each object.
     *
     * @param file as for {@link #kernel}
     * @param name as for {@link #kernel}
     * @param defines as for {@link #kernel}
     * @return the kernel; this device owns it
     * @throws DeviceException as for {@link #kernel}
     */
    public Kernel lend(String file, String name, Map<String, String> defines) {
        Program program = program(file, defines);
        for (Kernel kernel : program.all()) {
            if (kernel.name().equals(name) && kernel.lend()) {
                return kernel;
            }
        }
        return create(program, file, name);
    }

    private Program program(String file, Map<String, String> defines) {
        requireOpen();
        return programs.computeIfAbsent(new ProgramKey(file, Map.copyOf(defines)), this::build);
    }

    private Kernel create(Program program, String file, String name) {
        cl_kernel handle = Status.create(
                "clCreateKernel",
                status -> CL.clCreateKernel(program.handle(), name, status),
                () -> "kernel=" + name + ", file=" + file + ", device=" + label);
        Kernel kernel = new Kernel(this, name, Handles.opened(handle));
        program.all().add(kernel);
        return kernel;
    }

    private Program build(ProgramKey key) {
        String source = KernelSource.load(key.file());
        StringBuilder options = new StringBuilder("-cl-std=CL1.2");
        new TreeMap<>(key.defines())
                .forEach((name, value) ->
                        options.append(" -D ").append(name).append('=').append(value));
        String where = "file=" + key.file() + ", options=" + options + ", device=" + label;
        for (int attempt = 1; ; attempt++) {
            cl_program handle = Status.create(
                    "clCreateProgramWithSource",
                    status -> CL.clCreateProgramWithSource(context, 1, new String[] {source}, null, status),
                    () -> where);
            int status = Status.of(
                    () -> CL.clBuildProgram(handle, 1, new cl_device_id[] {id}, options.toString(), null, null));
            if (status == CL.CL_SUCCESS) {
                return new Program(Handles.opened(handle), new HashMap<>(), new ArrayList<>());
            }
            String log = buildLog(handle);
            Status.of(() -> CL.clReleaseProgram(handle));
            if (attempt == BUILD_ATTEMPTS || !log.contains(LOST_FILE)) {
                Matcher error = ERROR_LINE.matcher(log);
                throw new DeviceException(
                        "a kernel file did not compile: "
                                + (error.find() ? error.group().strip() : "no error line") + ", status="
                                + CL.stringFor_errorCode(status) + ", " + where,
                        log);
            }
            LOG.debug("building again, the compiler lost its own file: {}", where);
        }
    }

    private String buildLog(cl_program program) {
        long[] size = new long[1];
        if (Status.of(() -> CL.clGetProgramBuildInfo(program, id, CL.CL_PROGRAM_BUILD_LOG, 0, null, size))
                        != CL.CL_SUCCESS
                || size[0] < 1) {
            return "";
        }
        byte[] log = new byte[(int) size[0]];
        Status.of(() ->
                CL.clGetProgramBuildInfo(program, id, CL.CL_PROGRAM_BUILD_LOG, log.length, Pointer.to(log), null));
        return new String(log, 0, log.length - 1, java.nio.charset.StandardCharsets.UTF_8);
    }

    /**
     * Launches a kernel; returns before the device is done. The one place where anything is launched.
     *
     * @param kernel a kernel of this device
     * @param range the index space; an empty one launches nothing
     * @param args the kernel's arguments in order: {@link Buffer}, {@link Integer}, {@link Long}, {@link Float} or
     *     {@code float[]} (a vector)
     * @throws IllegalArgumentException if a buffer is empty or on another device
     * @throws IllegalStateException if this device or a buffer is closed
     * @throws DeviceException if the driver refuses; the message has the kernel, the sizes and the device
     */
    public void enqueue(Kernel kernel, Range range, Object... args) {
        requireOpen();
        if (kernel.device() != this) {
            throw new IllegalArgumentException("a kernel must be of the device it runs on: kernel=" + kernel.name()
                    + ", device=" + label + ", kernel's device=" + kernel.device().label);
        }
        if (range.localX() * range.localY() > limits().maxWorkGroupSize()) {
            throw new IllegalArgumentException("a work-group must fit the device: kernel=" + kernel.name() + ", range="
                    + range + ", limit=" + limits().maxWorkGroupSize());
        }
        if (range.isEmpty()) {
            return;
        }
        kernel.arguments(args);
        List<Timed> timed = profile;
        cl_event event = timed == null ? null : new cl_event();
        Status.check(
                "clEnqueueNDRangeKernel",
                () -> CL.clEnqueueNDRangeKernel(
                        queue,
                        kernel.handle(),
                        2,
                        null,
                        new long[] {range.globalX(), range.globalY()},
                        new long[] {range.localX(), range.localY()},
                        0,
                        null,
                        event),
                () -> "kernel=" + kernel.name() + ", range=" + range + ", device=" + label);
        if (timed != null && event != null) {
            timed.add(new Timed(kernel.name(), range, Handles.opened(event)));
        }
    }

    /**
     * Runs work and times each of its launches by the device's clock; waits for the device.
     *
     * @param work enqueues on this device
     * @return the launches in order
     * @throws DeviceException if the queue does not profile (a wrapped one made without profiling)
     */
    public List<KernelTime> profile(Runnable work) {
        List<Timed> timed = new ArrayList<>();
        profile = timed;
        try {
            work.run();
            finish();
            List<KernelTime> times = new ArrayList<>();
            for (Timed t : timed) {
                long start = clock(t, CL.CL_PROFILING_COMMAND_START);
                times.add(new KernelTime(t.kernel(), t.range(), clock(t, CL.CL_PROFILING_COMMAND_END) - start));
            }
            return times;
        } finally {
            profile = null;
            timed.forEach(t -> Handles.release(() -> CL.clReleaseEvent(t.event())));
        }
    }

    private long clock(Timed timed, int name) {
        long[] nanos = new long[1];
        Status.check(
                "clGetEventProfilingInfo",
                () -> CL.clGetEventProfilingInfo(timed.event(), name, Sizeof.cl_long, Pointer.to(nanos), null),
                () -> "kernel=" + timed.kernel() + ", device=" + label);
        return nanos[0];
    }

    /** Hands what is enqueued to the device without waiting; several devices then work at once. */
    public void flush() {
        requireOpen();
        Status.check("clFlush", () -> CL.clFlush(queue), () -> "device=" + label);
    }

    /** Waits until the device has done all that was enqueued. */
    public void finish() {
        requireOpen();
        // Not clFinish: rusticl 22.3 returns from it at once where clFlush has handed everything over before.
        cl_event done = new cl_event();
        Status.check(
                "clEnqueueMarkerWithWaitList",
                () -> CL.clEnqueueMarkerWithWaitList(queue, 0, null, done),
                () -> "device=" + label);
        Handles.opened(done);
        try {
            Status.check(
                    "clWaitForEvents", () -> CL.clWaitForEvents(1, new cl_event[] {done}), () -> "device=" + label);
        } finally {
            Handles.release(() -> CL.clReleaseEvent(done));
        }
        inFlight.clear();
    }

    /** Keeps host memory from the garbage collector while a transfer that nobody waits for uses it. */
    void keepUntilFinished(ByteBuffer host) {
        inFlight.add(host);
    }

    /**
     * The OpenCL handles this library holds in this process: contexts, queues, buffers, programs, kernels, events and
     * sub-devices that it made and has not released.
     *
     * @return their number, 0 when everything is closed
     */
    public static int liveHandles() {
        return Handles.LIVE.get();
    }

    /** Waits for the device, then releases all that was made on it; a second call does nothing. */
    @Override
    public void close() {
        if (closed) {
            return;
        }
        Status.of(() -> CL.clFinish(queue));
        List.copyOf(buffers).forEach(Buffer::close);
        for (Program program : programs.values()) {
            program.all().forEach(k -> Handles.release(() -> CL.clReleaseKernel(k.handle())));
            Handles.release(() -> CL.clReleaseProgram(program.handle()));
        }
        programs.clear();
        closed = true;
        if (matrixProduct) {
            MatrixProduct.clearCache();
        }
        if (owned) {
            Handles.release(() -> CL.clReleaseCommandQueue(queue));
            Handles.release(() -> CL.clReleaseContext(context));
            if (subDevice) {
                Handles.release(() -> CL.clReleaseDevice(id));
            }
        }
    }

    void requireOpen() {
        if (closed) {
            throw new IllegalStateException("the device is closed: device=" + label);
        }
    }

    cl_context context() {
        return context;
    }

    cl_command_queue queue() {
        return queue;
    }

    cl_device_id id() {
        return id;
    }

    void usesMatrixProduct() {
        matrixProduct = true;
    }

    /** Direct memory for transfers of Java arrays, which would else hold off the garbage collector. */
    ByteBuffer staging(int bytes) {
        if (staging.capacity() < bytes) {
            staging = direct(bytes);
        }
        return staging;
    }

    private static ByteBuffer direct(int bytes) {
        return ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder());
    }

    @Override
    public String toString() {
        return label;
    }
}
