package io.normcl.exchange;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.SeekableByteChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/**
 * An array in NumPy's file format, version 1.0 in C order and little endian: {@code <f4}, {@code <f8} or {@code <i8}.
 * Source: NumPy's manual, {@code numpy.lib.format}.
 */
public final class Npy {
    /** Magic, version 1.0; two bytes with the header's length follow. */
    private static final byte[] MAGIC = {(byte) 0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0};

    private static final int PREFIX = MAGIC.length + 2;
    private static final Pattern HEADER = Pattern.compile("\\{\\s*'descr'\\s*:\\s*'([^']*)'\\s*,"
            + "\\s*'fortran_order'\\s*:\\s*(True|False)\\s*,\\s*'shape'\\s*:\\s*\\(([0-9, ]*)\\)\\s*,?\\s*\\}\\s*");

    private final String dtype;
    private final long[] shape;
    private final ByteBuffer data;

    private Npy(String dtype, long[] shape, ByteBuffer data) {
        this.dtype = dtype;
        this.shape = shape;
        this.data = data;
    }

    /**
     * An array of floats.
     *
     * @param values in C order, copied
     * @param shape the dimensions, none for a scalar
     * @return the array
     * @throws IllegalArgumentException if the shape has not as many values
     */
    public static Npy of(float[] values, long... shape) {
        ByteBuffer data = allocate(values.length, Float.BYTES, shape);
        data.asFloatBuffer().put(values);
        return new Npy("<f4", shape.clone(), data);
    }

    /**
     * An array of doubles.
     *
     * @param values in C order, copied
     * @param shape the dimensions, none for a scalar
     * @return the array
     * @throws IllegalArgumentException if the shape has not as many values
     */
    public static Npy of(double[] values, long... shape) {
        ByteBuffer data = allocate(values.length, Double.BYTES, shape);
        data.asDoubleBuffer().put(values);
        return new Npy("<f8", shape.clone(), data);
    }

    /**
     * An array of longs.
     *
     * @param values in C order, copied
     * @param shape the dimensions, none for a scalar
     * @return the array
     * @throws IllegalArgumentException if the shape has not as many values
     */
    public static Npy of(long[] values, long... shape) {
        ByteBuffer data = allocate(values.length, Long.BYTES, shape);
        data.asLongBuffer().put(values);
        return new Npy("<i8", shape.clone(), data);
    }

    /**
     * Reads a file.
     *
     * @param file the file
     * @return its array
     * @throws IOException if it can't be read, is damaged, or holds another type, order or version
     */
    public static Npy read(Path file) throws IOException {
        try (SeekableByteChannel channel = WholeFile.open(file)) {
            long size = channel.size();
            require(size >= PREFIX, file, "a header", "size", size);
            ByteBuffer prefix = WholeFile.read(channel, PREFIX).order(ByteOrder.LITTLE_ENDIAN);
            byte[] magic = new byte[MAGIC.length];
            prefix.get(magic);
            require(Arrays.equals(magic, MAGIC), file, "npy version 1.0", "it starts with", Arrays.toString(magic));
            int length = Short.toUnsignedInt(prefix.getShort());
            require(length <= size - PREFIX, file, "a whole header", "header length", length);
            String header = StandardCharsets.ISO_8859_1
                    .decode(WholeFile.read(channel, length))
                    .toString();
            Matcher fields = HEADER.matcher(header);
            require(fields.matches(), file, "a header that can be read", "header", header.strip());
            String dtype = fields.group(1);
            require(dtype.matches("<[fi]8|<f4"), file, "the type <f4, <f8 or <i8", "type", dtype);
            require(fields.group(2).equals("False"), file, "C order", "fortran_order", fields.group(2));
            long[] shape = shape(file, fields.group(3));
            long bytes = size - PREFIX - length;
            int width = dtype.charAt(2) - '0';
            require(
                    bytes % width == 0 && elements(shape) == bytes / width && bytes <= Integer.MAX_VALUE - 8,
                    file,
                    "as many bytes as its shape",
                    "shape " + fields.group(3) + ", type " + dtype + ", bytes",
                    bytes);
            ByteBuffer data = WholeFile.read(channel, (int) bytes).order(ByteOrder.LITTLE_ENDIAN);
            return new Npy(dtype, shape, data);
        }
    }

    /**
     * Writes this array, replacing the file in one step.
     *
     * @param file the file, whole afterwards or as it was before
     * @throws IOException if it can't be written
     */
    public void write(Path file) throws IOException {
        String sizes = Arrays.stream(shape).mapToObj(Long::toString).collect(Collectors.joining(", "));
        String fields = "{'descr': '" + dtype + "', 'fortran_order': False, 'shape': (" + sizes
                + (shape.length == 1 ? "," : "") + "), }";
        int length = (PREFIX + fields.length() + 1 + 63) / 64 * 64 - PREFIX;
        String header = fields + " ".repeat(length - fields.length() - 1) + "\n";
        ByteBuffer prefix = ByteBuffer.allocate(PREFIX).order(ByteOrder.LITTLE_ENDIAN);
        prefix.put(MAGIC).putShort((short) length).flip();
        WholeFile.write(file, List.of(prefix, StandardCharsets.ISO_8859_1.encode(header), data));
    }

    /**
     * The type as NumPy writes it.
     *
     * @return {@code <f4}, {@code <f8} or {@code <i8}
     */
    public String dtype() {
        return dtype;
    }

    /**
     * The dimensions.
     *
     * @return a copy of the shape
     */
    public long[] shape() {
        return shape.clone();
    }

    /**
     * The values as doubles.
     *
     * @return a new array in C order; longs beyond 2⁵³ are rounded
     */
    public double[] doubles() {
        double[] values = new double[data.capacity() / (dtype.charAt(2) - '0')];
        switch (dtype) {
            case "<f8" -> data.asDoubleBuffer().get(values);
            case "<f4" -> Arrays.setAll(values, i -> data.getFloat(i * Float.BYTES));
            default -> Arrays.setAll(values, i -> data.getLong(i * Long.BYTES));
        }
        return values;
    }

    private static ByteBuffer allocate(int values, int width, long[] shape) {
        if (elements(shape) != values) {
            throw new IllegalArgumentException(
                    "a shape has as many values as its array: shape=" + Arrays.toString(shape) + ", values=" + values);
        }
        return ByteBuffer.allocate(Math.multiplyExact(values, width)).order(ByteOrder.LITTLE_ENDIAN);
    }

    private static long[] shape(Path file, String sizes) throws IOException {
        try {
            return Arrays.stream(sizes.split(","))
                    .map(String::strip)
                    .filter(size -> !size.isEmpty())
                    .mapToLong(Long::parseLong)
                    .toArray();
        } catch (NumberFormatException e) {
            throw new IOException("an npy file needs sizes: file=" + file + ", shape=" + WholeFile.line(sizes), e);
        }
    }

    /** The product of the dimensions, or -1 where it is no size. */
    private static long elements(long[] shape) {
        long elements = 1;
        for (long size : shape) {
            if (size < 0 || Math.multiplyHigh(elements, size) != 0 || elements * size < 0) {
                return -1;
            }
            elements *= size;
        }
        return elements;
    }

    private static void require(boolean holds, Path file, String what, String name, Object value) throws IOException {
        if (!holds) {
            String told = WholeFile.line(name + "=" + value);
            throw new IOException("an npy file needs " + what + ": file=" + file + ", " + told);
        }
    }
}
