package io.normcl.plan;

import io.normcl.tensor.Activation;
import io.normcl.tensor.DataType;
import java.util.Map;
import java.util.TreeMap;

/**
 * How a pass's tensors are stored and what is fused with it.
 *
 * @param type of x, y, dy, dx, z, dz, the addend and the sum
 * @param activation what follows scale and shift
 * @param residual whether z is added before the activation
 * @param dz backward: whether the gradient of z is written
 * @param addend forward over rows: whether x is a sum of two tensors, which is written out
 * @param line the size of the last spatial dimension, which lengths cut; 0 without lengths
 */
public record Form(DataType type, Activation activation, boolean residual, boolean dz, boolean addend, long line) {
    /** Floats, nothing fused, no lengths. */
    public static final Form PLAIN = new Form(DataType.FLOAT, Activation.NONE, false, false, false, 0);

    boolean masked() {
        return line > 0;
    }

    /** The bytes of a forward that passes so often over a tensor, y's included. */
    long forwardBytes(long elements, int passes) {
        return elements * type.bytes() * (passes + (residual ? 1 : 0) + (addend ? 2 : 0));
    }

    /** The bytes of a backward that passes so often over a tensor, {@code reads} times to compute gradients. */
    long backwardBytes(long elements, int passes, int reads) {
        boolean again = residual && activation.kind() != Activation.Kind.NONE;
        return elements * type.bytes() * (passes + (again ? reads : 0) + (dz ? 1 : 0));
    }

    /** Those that differ from the kernels' defaults. */
    Map<String, String> defines() {
        Map<String, String> defines = new TreeMap<>();
        if (type != DataType.FLOAT) {
            defines.put("STORAGE", type == DataType.HALF ? "1" : "2");
        }
        if (activation.kind() != Activation.Kind.NONE) {
            defines.put("ACTIVATION", activation.kind() == Activation.Kind.SILU ? "2" : "1");
        }
        if (activation.slope() != 0) {
            defines.put("SLOPE", Float.toHexString(activation.slope()) + "f");
        }
        flag(defines, "RESIDUAL", residual);
        flag(defines, "WRITE_DZ", dz);
        flag(defines, "ADDEND", addend);
        flag(defines, "MASKED", masked());
        return defines;
    }

    private static void flag(Map<String, String> defines, String name, boolean set) {
        if (set) {
            defines.put(name, "1");
        }
    }
}
