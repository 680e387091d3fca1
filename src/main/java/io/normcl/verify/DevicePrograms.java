package io.normcl.verify;

import io.normcl.device.Device;
import io.normcl.plan.Tuning;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** Every operation that the library offers on a device, by the name that cases have for it. */
public final class DevicePrograms {
    private DevicePrograms() {}

    /**
     * The programs.
     *
     * @param devices one for each replica of a synchronized layer; what needs one device takes the first
     * @param tuning the kernels to use
     * @return the programs by operation
     */
    public static Map<String, Program> of(List<Device> devices, Tuning tuning) {
        Map<String, Program> programs = new HashMap<>();
        programs.putAll(new BatchNormProgram(new DeviceEngine(devices, tuning, false)).byOperation());
        programs.putAll(new RowNormProgram(new RowNormDeviceEngine(devices.get(0), tuning)).byOperation());
        programs.putAll(new FoldProgram().byOperation());
        return programs;
    }
}
