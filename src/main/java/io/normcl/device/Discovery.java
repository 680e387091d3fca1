package io.normcl.device;

import io.normcl.device.Limits.ReadsAhead;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.jocl.CL;
import org.jocl.Pointer;
import org.jocl.Sizeof;
import org.jocl.cl_device_id;
import org.jocl.cl_platform_id;
import org.jspecify.annotations.Nullable;

/** Finds the devices of every platform and asks them what they are. */
final class Discovery {
    /** CL_DEVICE_TYPE_ALL as an unsigned 32-bit number; JOCL's -1L is refused by rusticl. */
    private static final long ANY_TYPE = 0xFFFFFFFFL;

    private static final Pattern CPU_FAMILY = Pattern.compile("(?m)^cpu family\\s*:\\s*(\\d+)$");

    private static final int ZEN_5 = 26;

    private static final String INSTALL = "install a driver (on Debian: pocl-opencl-icd for the CPU)";

    record Found(cl_platform_id platform, cl_device_id device, Description description) {}

    private interface Query {
        int get(int name, long size, @Nullable Pointer value, long @Nullable [] sizeOut);
    }

    private Discovery() {}

    static List<Found> all() {
        List<Found> found = new ArrayList<>();
        for (cl_platform_id platform : platforms()) {
            int[] count = new int[1];
            if (Status.of(() -> CL.clGetDeviceIDs(platform, ANY_TYPE, 0, null, count)) != CL.CL_SUCCESS) {
                continue;
            }
            cl_device_id[] devices = new cl_device_id[count[0]];
            if (Status.of(() -> CL.clGetDeviceIDs(platform, ANY_TYPE, devices.length, devices, null))
                    != CL.CL_SUCCESS) {
                continue;
            }
            for (cl_device_id device : devices) {
                found.add(new Found(platform, device, describe(device, found.size())));
            }
        }
        if (found.isEmpty()) {
            throw new DeviceException("no OpenCL device found: " + INSTALL);
        }
        return found;
    }

    private static cl_platform_id[] platforms() {
        int[] count = new int[1];
        int status;
        try {
            status = Status.of(() -> CL.clGetPlatformIDs(0, null, count));
        } catch (LinkageError e) {
            throw new DeviceException(
                    "no OpenCL loader found: install one (on Debian: ocl-icd-libopencl1), then " + INSTALL + "; reason="
                            + String.valueOf(e.getMessage()).lines().findFirst().orElse(""));
        }
        if (status != CL.CL_SUCCESS || count[0] == 0) {
            throw new DeviceException("no OpenCL platform found: " + INSTALL);
        }
        cl_platform_id[] platforms = new cl_platform_id[count[0]];
        Status.check(
                "clGetPlatformIDs",
                () -> CL.clGetPlatformIDs(platforms.length, platforms, null),
                () -> "platforms=" + platforms.length);
        return platforms;
    }

    static Description describe(cl_device_id device, int index) {
        Query query = (name, size, value, sizeOut) -> CL.clGetDeviceInfo(device, name, size, value, sizeOut);
        cl_platform_id platform = new cl_platform_id();
        Status.check(
                "clGetDeviceInfo",
                () -> query.get(CL.CL_DEVICE_PLATFORM, Sizeof.cl_platform_id, Pointer.to(platform), null),
                () -> "device=" + index);
        Query ofPlatform = (name, size, value, sizeOut) -> CL.clGetPlatformInfo(platform, name, size, value, sizeOut);
        long type = number(query, CL.CL_DEVICE_TYPE);
        boolean cpu = (type & CL.CL_DEVICE_TYPE_CPU) != 0;
        return new Description(
                index,
                text(ofPlatform, CL.CL_PLATFORM_NAME),
                text(query, CL.CL_DEVICE_NAME),
                text(query, CL.CL_DEVICE_VENDOR),
                cpu ? "cpu" : (type & CL.CL_DEVICE_TYPE_GPU) != 0 ? "gpu" : "accelerator",
                text(query, CL.CL_DRIVER_VERSION),
                text(query, CL.CL_DEVICE_VERSION),
                new Limits(
                        cpu,
                        (int) number(query, CL.CL_DEVICE_MAX_COMPUTE_UNITS),
                        number(query, CL.CL_DEVICE_MAX_WORK_GROUP_SIZE),
                        number(query, CL.CL_DEVICE_LOCAL_MEM_SIZE),
                        number(query, CL.CL_DEVICE_MAX_MEM_ALLOC_SIZE),
                        number(query, CL.CL_DEVICE_GLOBAL_MEM_SIZE),
                        number(query, CL.CL_DEVICE_GLOBAL_MEM_CACHE_SIZE),
                        number(query, CL.CL_DEVICE_DOUBLE_FP_CONFIG) != 0,
                        text(query, CL.CL_DEVICE_NAME).contains("llvmpipe") ? 65_535 : Long.MAX_VALUE,
                        cpu && text(query, CL.CL_DEVICE_VENDOR).equals("AuthenticAMD")
                                ? amd(cpuInfo())
                                : ReadsAhead.NEVER));
    }

    /** OpenCL doesn't tell one of AMD's CPUs from another, Linux does. */
    private static String cpuInfo() {
        try {
            return Files.readString(Path.of("/proc/cpuinfo"));
        } catch (IOException e) {
            return "";
        }
    }

    static ReadsAhead amd(String cpuInfo) {
        Matcher family = CPU_FAMILY.matcher(cpuInfo);
        return family.find() && Integer.parseInt(family.group(1)) >= ZEN_5 ? ReadsAhead.SUMMING : ReadsAhead.STRAIGHT;
    }

    /** How many sub-devices the device can be cut into; below two it can't, and asking kills some runtimes. */
    static long mostSubDevices(cl_device_id device) {
        return number(
                (name, size, value, sizeOut) -> CL.clGetDeviceInfo(device, name, size, value, sizeOut),
                CL.CL_DEVICE_PARTITION_MAX_SUB_DEVICES);
    }

    private static String text(Query query, int name) {
        long[] size = new long[1];
        if (Status.of(() -> query.get(name, 0, null, size)) != CL.CL_SUCCESS || size[0] < 1) {
            return "";
        }
        byte[] bytes = new byte[(int) size[0]];
        if (Status.of(() -> query.get(name, bytes.length, Pointer.to(bytes), null)) != CL.CL_SUCCESS) {
            return "";
        }
        return new String(bytes, 0, bytes.length - 1, StandardCharsets.UTF_8).strip();
    }

    /** A number of four or eight bytes, or 0 where the driver does not know the question. */
    private static long number(Query query, int name) {
        long[] size = new long[1];
        long[] value = new long[1];
        if (Status.of(() -> query.get(name, 0, null, size)) != CL.CL_SUCCESS
                || (size[0] != Sizeof.cl_int && size[0] != Sizeof.cl_long)
                || Status.of(() -> query.get(name, size[0], Pointer.to(value), null)) != CL.CL_SUCCESS) {
            return 0;
        }
        return value[0];
    }
}
