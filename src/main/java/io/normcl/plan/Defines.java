package io.normcl.plan;

import io.normcl.device.Limits;
import java.util.Map;
import java.util.TreeMap;

/** The macros that kernels are compiled with. */
final class Defines {
    private Defines() {}

    /** FP64 and more, as name, value, name, value. */
    static Map<String, String> of(Limits limits, Object... more) {
        Map<String, String> defines = new TreeMap<>();
        defines.put("FP64", limits.fp64() ? "1" : "0");
        for (int i = 0; i < more.length; i += 2) {
            defines.put(more[i].toString(), more[i + 1].toString());
        }
        return defines;
    }

    static Map<String, String> with(Map<String, String> defines, String name, int value) {
        Map<String, String> more = new TreeMap<>(defines);
        more.put(name, Integer.toString(value));
        return more;
    }

    static Map<String, String> with(Map<String, String> defines, Map<String, String> others) {
        Map<String, String> more = new TreeMap<>(defines);
        more.putAll(others);
        return more;
    }
}
