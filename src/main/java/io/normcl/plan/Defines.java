package io.normcl.plan;

import io.normcl.device.Limits;
import java.util.Map;
import java.util.TreeMap;

/** The macros that kernels are compiled with. */
final class Defines {
    private Defines() {}

    static Map<String, String> of(Limits limits) {
        return Map.of("FP64", limits.fp64() ? "1" : "0");
    }

    static Map<String, String> of(
            Limits limits, String name1, int value1, String name2, int value2, String name3, int value3) {
        return with(with(with(of(limits), name1, value1), name2, value2), name3, value3);
    }

    static Map<String, String> with(Map<String, String> defines, String name, int value) {
        Map<String, String> more = new TreeMap<>(defines);
        more.put(name, Integer.toString(value));
        return more;
    }
}
