package io.normcl;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.normcl.device.Buffer;
import io.normcl.tensor.DataType;
import io.normcl.tensor.Layout;
import io.normcl.tensor.Tensor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;

/** Tensors of any data type on the host. Each has more memory than it needs, and what is behind it must stay. */
final class Stored {
    private static final int GUARD = 20;
    private static final short UNTOUCHED = 0x5a5b;

    private Stored() {}

    /** The nearest value of a type, ties to even; NaN stays NaN. */
    static float round(DataType type, float value) {
        if (type == DataType.FLOAT || Float.isNaN(value)) {
            return value;
        }
        double unit = unit(type, value);
        double rounded = Math.rint(Math.abs(value) / unit) * unit;
        return Math.copySign(rounded > largest(type) ? Float.POSITIVE_INFINITY : (float) rounded, value);
    }

    static float[] round(DataType type, float[] values) {
        float[] rounded = new float[values.length];
        for (int i = 0; i < values.length; i++) {
            rounded[i] = round(type, values[i]);
        }
        return rounded;
    }

    /** Half the distance between the neighbours of a value in a type; 0 for floats, whose roundings are counted. */
    static double halfUnit(DataType type, double value) {
        return type == DataType.FLOAT ? 0 : unit(type, value) / 2;
    }

    private static double unit(DataType type, double value) {
        return type == DataType.HALF
                ? Math.scalb(1.0, Math.max(Math.getExponent(value), -14) - 10)
                : Math.scalb(1.0, Math.max(Math.getExponent(value), -126) - 7);
    }

    private static double largest(DataType type) {
        return type == DataType.HALF ? 65504 : 0x1.fep127;
    }

    /** The bits of a value of a 16-bit type; of a NaN some. */
    static short pack(DataType type, float value) {
        int sign = (Float.floatToRawIntBits(value) >>> 16) & 0x8000;
        float rounded = Math.abs(round(type, value));
        if (type == DataType.BFLOAT16) {
            return (short) (sign | (Float.isNaN(value) ? 0x7fc0 : Float.floatToRawIntBits(rounded) >>> 16));
        }
        if (!(rounded <= 65504)) {
            return (short) (sign | (Float.isNaN(value) ? 0x7e00 : 0x7c00));
        }
        int exponent = Math.max(Math.getExponent(rounded), -14);
        return (short) (sign | (((exponent + 14) << 10) + (int) Math.scalb(rounded, 10 - exponent)));
    }

    static float unpack(DataType type, short bits) {
        if (type == DataType.BFLOAT16) {
            return Float.intBitsToFloat(bits << 16);
        }
        int exponent = (bits >> 10) & 0x1f;
        int digits = bits & 0x3ff;
        float value = exponent == 31
                ? digits == 0 ? Float.POSITIVE_INFINITY : Float.NaN
                : Math.scalb((float) (exponent == 0 ? digits : digits + 0x400), Math.max(exponent, 1) - 25);
        return bits < 0 ? -value : value;
    }

    /** A tensor of these values, which must be values of the type. */
    static Tensor tensor(Rig rig, DataType type, float[] values, Layout layout, long... shape) {
        Buffer buffer = rig.floats((values.length + GUARD) * type.bytes() / 4 + 1);
        ByteBuffer bytes = ByteBuffer.allocateDirect((int) buffer.bytes()).order(ByteOrder.nativeOrder());
        for (float value : values) {
            if (type == DataType.FLOAT) {
                bytes.putFloat(value);
            } else {
                bytes.putShort(pack(type, value));
            }
        }
        while (bytes.hasRemaining()) {
            bytes.putShort(UNTOUCHED);
        }
        buffer.write(0, bytes.flip());
        return Tensor.of(buffer, type, layout, shape);
    }

    /** A tensor to be written: NaN so far. */
    static Tensor unwritten(Rig rig, Tensor like) {
        float[] values = new float[(int) like.elements()];
        Arrays.fill(values, Float.NaN);
        return tensor(rig, like.type(), values, like.layout(), like.shape());
    }

    /** The values of a tensor made here; nothing may have been written behind it. */
    static float[] read(Tensor tensor) {
        ByteBuffer bytes =
                ByteBuffer.allocateDirect((int) tensor.buffer().bytes()).order(ByteOrder.nativeOrder());
        tensor.buffer().read(0, bytes);
        bytes.clear();
        float[] values = new float[(int) tensor.elements()];
        for (int i = 0; i < values.length; i++) {
            values[i] = tensor.type() == DataType.FLOAT ? bytes.getFloat() : unpack(tensor.type(), bytes.getShort());
        }
        while (bytes.hasRemaining()) {
            assertEquals(UNTOUCHED, bytes.getShort(), () -> "written past the end of " + tensor);
        }
        return values;
    }
}
