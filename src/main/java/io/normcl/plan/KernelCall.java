package io.normcl.plan;

import io.normcl.device.Range;
import java.util.List;
import java.util.Map;

/**
 * One launch.
 *
 * @param file the kernel file
 * @param kernel the kernel's name
 * @param defines what it is compiled with
 * @param range the index space
 * @param args each a {@link Slot}, a {@link Long} or an {@link Integer}
 */
public record KernelCall(String file, String kernel, Map<String, String> defines, Range range, List<Object> args) {
    /**
     * Keeps the lists from changing.
     *
     * @param file the kernel file
     * @param kernel the kernel's name
     * @param defines what it is compiled with
     * @param range the index space
     * @param args each a {@link Slot}, a {@link Long} or an {@link Integer}
     */
    public KernelCall {
        defines = Map.copyOf(defines);
        args = List.copyOf(args);
    }
}
