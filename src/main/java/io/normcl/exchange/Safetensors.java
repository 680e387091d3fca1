package io.normcl.exchange;

import com.google.gson.Strictness;
import com.google.gson.stream.JsonReader;
import com.google.gson.stream.JsonToken;
import com.google.gson.stream.JsonWriter;
import com.google.gson.stream.MalformedJsonException;
import java.io.EOFException;
import java.io.IOException;
import java.io.StringReader;
import java.io.StringWriter;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.CharBuffer;
import java.nio.channels.SeekableByteChannel;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/**
 * Named tensors in the safetensors format, as PyTorch's users exchange them: eight bytes with the length of a JSON
 * header, the header (type, shape and place of each tensor, and a map of strings), the tensors' bytes, little endian.
 * Source: the format section of the safetensors README.
 *
 * <p>Reading trusts nothing: lengths are checked before anything is allocated by them, and the tensors must cover the
 * rest of the file without a gap, an overlap or a byte left over.
 */
public final class Safetensors {
    private static final String METADATA = "__metadata__";
    private static final int LONGEST_HEADER = 100_000_000; // as in the reference implementation
    private static final Map<String, Integer> BITS = Map.ofEntries(
            Map.entry("BOOL", 8),
            Map.entry("F4", 4),
            Map.entry("F6_E2M3", 6),
            Map.entry("F6_E3M2", 6),
            Map.entry("U8", 8),
            Map.entry("I8", 8),
            Map.entry("F8_E5M2", 8),
            Map.entry("F8_E4M3", 8),
            Map.entry("F8_E8M0", 8),
            Map.entry("I16", 16),
            Map.entry("U16", 16),
            Map.entry("F16", 16),
            Map.entry("BF16", 16),
            Map.entry("I32", 32),
            Map.entry("U32", 32),
            Map.entry("F32", 32),
            Map.entry("C64", 64),
            Map.entry("F64", 64),
            Map.entry("I64", 64),
            Map.entry("U64", 64));

    private final Map<String, Entry> tensors;
    private final Map<String, String> metadata;

    private Safetensors(Map<String, Entry> tensors, Map<String, String> metadata) {
        this.tensors = Collections.unmodifiableMap(tensors);
        this.metadata = Collections.unmodifiableMap(metadata);
    }

    /** One tensor: its type, its shape and its bytes. */
    public static final class Entry {
        private final String dtype;
        private final long[] shape;
        private final ByteBuffer data;

        /**
         * A tensor of any type that the format knows.
         *
         * @param dtype the format's name of the type: F32, F64, I64, BF16, ...
         * @param shape the dimensions, none for a scalar; copied
         * @param data the values in C order and little endian, from position to limit; retained, not moved
         * @throws IllegalArgumentException if the type is unknown or the bytes are not as many as the shape needs
         */
        public Entry(String dtype, long[] shape, ByteBuffer data) {
            if (bytes(dtype, shape) != data.remaining()) {
                throw new IllegalArgumentException("a tensor has as many bytes as its shape: dtype=" + dtype
                        + ", shape=" + Arrays.toString(shape) + ", bytes=" + data.remaining());
            }
            this.dtype = dtype;
            this.shape = shape.clone();
            this.data = data.slice();
        }

        /**
         * A tensor of floats, F32.
         *
         * @param values in C order, copied
         * @param shape the dimensions, none for a scalar
         * @return the tensor
         * @throws IllegalArgumentException if the shape has not as many values
         */
        public static Entry of(float[] values, long... shape) {
            ByteBuffer data = allocate(values.length, Float.BYTES);
            data.asFloatBuffer().put(values);
            return new Entry("F32", shape, data);
        }

        /**
         * A tensor of doubles, F64.
         *
         * @param values in C order, copied
         * @param shape the dimensions, none for a scalar
         * @return the tensor
         * @throws IllegalArgumentException if the shape has not as many values
         */
        public static Entry of(double[] values, long... shape) {
            ByteBuffer data = allocate(values.length, Double.BYTES);
            data.asDoubleBuffer().put(values);
            return new Entry("F64", shape, data);
        }

        /**
         * A tensor of longs, I64.
         *
         * @param values in C order, copied
         * @param shape the dimensions, none for a scalar such as {@code num_batches_tracked}
         * @return the tensor
         * @throws IllegalArgumentException if the shape has not as many values
         */
        public static Entry of(long[] values, long... shape) {
            ByteBuffer data = allocate(values.length, Long.BYTES);
            data.asLongBuffer().put(values);
            return new Entry("I64", shape, data);
        }

        /**
         * The type.
         *
         * @return the format's name of it
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
         * The bytes.
         *
         * @return a read-only view from 0 to the end, little endian
         */
        public ByteBuffer data() {
            return data.asReadOnlyBuffer().order(ByteOrder.LITTLE_ENDIAN);
        }

        /**
         * The values of an F32 tensor.
         *
         * @return a new array in C order
         * @throws IllegalArgumentException if it has another type
         */
        public float[] floats() {
            float[] values = new float[require("F32") / Float.BYTES];
            data().asFloatBuffer().get(values);
            return values;
        }

        /**
         * The values of an F64 tensor.
         *
         * @return a new array in C order
         * @throws IllegalArgumentException if it has another type
         */
        public double[] doubles() {
            double[] values = new double[require("F64") / Double.BYTES];
            data().asDoubleBuffer().get(values);
            return values;
        }

        /**
         * The values of an I64 tensor.
         *
         * @return a new array in C order
         * @throws IllegalArgumentException if it has another type
         */
        public long[] longs() {
            long[] values = new long[require("I64") / Long.BYTES];
            data().asLongBuffer().get(values);
            return values;
        }

        @Override
        public String toString() {
            return dtype + Arrays.toString(shape);
        }

        private int require(String wanted) {
            if (!dtype.equals(wanted)) {
                throw new IllegalArgumentException(
                        "a tensor is read as what it is: dtype=" + dtype + ", wanted=" + wanted);
            }
            return data.remaining();
        }

        private static ByteBuffer allocate(int values, int width) {
            return ByteBuffer.allocate(Math.multiplyExact(values, width)).order(ByteOrder.LITTLE_ENDIAN);
        }

        private static int bits(String dtype) {
            Integer bits = BITS.get(dtype);
            if (bits == null) {
                throw new IllegalArgumentException("a type is one of the format's: dtype=" + dtype);
            }
            return bits;
        }

        /** The bytes that a tensor needs. */
        private static long bytes(String dtype, long[] shape) {
            long total = bits(dtype);
            for (long size : shape) {
                if (size < 0 || Math.multiplyHigh(total, size) != 0 || total * size < 0) {
                    throw new IllegalArgumentException("a shape is sizes: shape=" + Arrays.toString(shape));
                }
                total *= size;
            }
            if (total % 8 != 0) {
                throw new IllegalArgumentException(
                        "a tensor is whole bytes: dtype=" + dtype + ", shape=" + Arrays.toString(shape));
            }
            return total / 8;
        }
    }

    /**
     * The tensors.
     *
     * @return an unmodifiable map by name, in the order of the file
     */
    public Map<String, Entry> tensors() {
        return tensors;
    }

    /**
     * What the file says besides.
     *
     * @return an unmodifiable map, empty where the file has none
     */
    public Map<String, String> metadata() {
        return metadata;
    }

    /**
     * Writes a file, replacing it in one step. The same tensors give the same bytes, whatever the maps' order.
     *
     * @param file the file, whole afterwards or as it was before
     * @param tensors the tensors by name
     * @param metadata strings to go with them; written where there are any
     * @throws IOException if it can't be written
     * @throws IllegalArgumentException if a tensor has the name that the format keeps for the metadata
     */
    public static void write(Path file, Map<String, Entry> tensors, Map<String, String> metadata) throws IOException {
        if (tensors.containsKey(METADATA)) {
            throw new IllegalArgumentException("a tensor's name is not the format's own: name=" + METADATA);
        }
        // Widest types first, so that every tensor is aligned, as in the reference implementation.
        List<Map.Entry<String, Entry>> sorted = new ArrayList<>(new TreeMap<>(tensors).entrySet());
        sorted.sort(Comparator.comparing(tensor -> -Entry.bits(tensor.getValue().dtype)));
        List<ByteBuffer> parts = new ArrayList<>();
        StringWriter header = new StringWriter();
        try (JsonWriter json = new JsonWriter(header)) {
            json.beginObject();
            if (!metadata.isEmpty()) {
                json.name(METADATA).beginObject();
                for (Map.Entry<String, String> entry : new TreeMap<>(metadata).entrySet()) {
                    json.name(entry.getKey()).value(entry.getValue());
                }
                json.endObject();
            }
            long offset = 0;
            for (Map.Entry<String, Entry> tensor : sorted) {
                Entry entry = tensor.getValue();
                json.name(tensor.getKey()).beginObject().name("dtype").value(entry.dtype);
                json.name("shape").beginArray();
                for (long size : entry.shape) {
                    json.value(size);
                }
                json.endArray().name("data_offsets").beginArray().value(offset);
                offset += entry.data.remaining();
                json.value(offset).endArray().endObject();
                parts.add(entry.data);
            }
            json.endObject();
        }
        ByteBuffer text = StandardCharsets.UTF_8.newEncoder().encode(CharBuffer.wrap(header.getBuffer()));
        int padding = -text.remaining() & 7;
        ByteBuffer start = ByteBuffer.allocate(8 + text.remaining() + padding).order(ByteOrder.LITTLE_ENDIAN);
        start.putLong(text.remaining() + padding)
                .put(text)
                .put(" ".repeat(padding).getBytes(StandardCharsets.UTF_8));
        parts.add(0, start.flip());
        WholeFile.write(file, parts);
    }

    /**
     * Reads a file.
     *
     * @param file the file
     * @return its tensors and metadata
     * @throws IOException if it can't be read or is damaged, with what is wrong
     */
    public static Safetensors read(Path file) throws IOException {
        try (SeekableByteChannel channel = WholeFile.open(file)) {
            try {
                return read(channel);
            } catch (IOException | IllegalArgumentException e) {
                String told = WholeFile.line(String.valueOf(e.getMessage()));
                throw new IOException("a damaged safetensors file: file=" + file + ", " + told, e);
            }
        }
    }

    private static Safetensors read(SeekableByteChannel channel) throws IOException {
        long size = channel.size();
        require(size >= 8, "the header is missing: size=" + size);
        long length = WholeFile.read(channel, 8).order(ByteOrder.LITTLE_ENDIAN).getLong();
        require(
                length >= 2 && length <= LONGEST_HEADER && length <= size - 8,
                "the header can't be so long: bytes=" + Long.toUnsignedString(length) + ", size=" + size);
        Map<String, Place> places = new LinkedHashMap<>();
        Map<String, String> metadata = new LinkedHashMap<>();
        readHeader(text(WholeFile.read(channel, (int) length)), places, metadata);

        List<Map.Entry<String, Place>> sorted = new ArrayList<>(places.entrySet());
        sorted.sort(Comparator.comparing(place -> place.getValue().end()));
        sorted.sort(Comparator.comparing(place -> place.getValue().begin()));
        long end = 0;
        for (Map.Entry<String, Place> named : sorted) {
            Place place = named.getValue();
            String told = "tensor=" + named.getKey() + ", data_offsets=" + place.begin() + ".." + place.end();
            require(place.begin() == end && place.end() >= end, "a gap, or tensors that overlap: " + told);
            require(place.end() - end == place.bytes(), "a place of another size than the tensor: " + told);
            require(place.bytes() <= Integer.MAX_VALUE - 8, "a tensor beyond 2 GiB can't be read: " + told);
            end = place.end();
        }
        require(
                end == size - 8 - length,
                "not as many bytes as the tensors need: bytes=" + (size - 8 - length) + ", needed=" + end);

        Map<String, Entry> tensors = new LinkedHashMap<>();
        for (Map.Entry<String, Place> named : sorted) {
            Place place = named.getValue();
            ByteBuffer data = WholeFile.read(channel, (int) place.bytes());
            tensors.put(named.getKey(), new Entry(place.dtype(), place.sizes(), data));
        }
        return new Safetensors(tensors, metadata);
    }

    private static String text(ByteBuffer header) throws IOException {
        try {
            return StandardCharsets.UTF_8.newDecoder().decode(header).toString();
        } catch (CharacterCodingException e) {
            throw new IOException("the header is not UTF-8", e);
        }
    }

    private static void readHeader(String header, Map<String, Place> places, Map<String, String> metadata)
            throws IOException {
        JsonReader json = new JsonReader(new StringReader(header));
        json.setStrictness(Strictness.STRICT);
        require(header.startsWith("{"), "the header is not a JSON object");
        try {
            json.beginObject();
            while (json.hasNext()) {
                String name = json.nextName();
                if (!name.equals(METADATA)) {
                    require(places.put(name, readPlace(json)) == null, "a tensor stands there twice: tensor=" + name);
                    continue;
                }
                json.beginObject();
                while (json.hasNext()) {
                    String key = json.nextName();
                    require(metadata.put(key, readString(json)) == null, "metadata stand there twice: key=" + key);
                }
                json.endObject();
            }
            json.endObject();
            require(json.peek() == JsonToken.END_DOCUMENT, "the header goes on after its JSON object");
        } catch (MalformedJsonException | EOFException | IllegalStateException | NumberFormatException e) {
            throw new IOException("the header is not JSON, or not a header's: at=" + json.getPath(), e);
        }
    }

    private static Place readPlace(JsonReader json) throws IOException {
        String dtype = "";
        List<Long> shape = null;
        List<Long> offsets = List.of();
        json.beginObject();
        while (json.hasNext()) {
            switch (json.nextName()) {
                case "dtype" -> dtype = readString(json);
                case "shape" -> shape = readSizes(json);
                case "data_offsets" -> offsets = readSizes(json);
                default -> json.skipValue();
            }
        }
        if (shape == null || offsets.size() != 2) {
            throw new IOException("a tensor without shape or data_offsets: at=" + json.getPath());
        }
        json.endObject();
        return new Place(dtype, shape, offsets.get(0), offsets.get(1));
    }

    private static String readString(JsonReader json) throws IOException {
        require(json.peek() == JsonToken.STRING, "the header has no string at=" + json.getPath());
        return json.nextString();
    }

    private static List<Long> readSizes(JsonReader json) throws IOException {
        List<Long> sizes = new ArrayList<>();
        json.beginArray();
        while (json.hasNext()) {
            require(json.peek() == JsonToken.NUMBER, "the header has no number at=" + json.getPath());
            sizes.add(json.nextLong());
        }
        json.endArray();
        return sizes;
    }

    private static void require(boolean holds, String message) throws IOException {
        if (!holds) {
            throw new IOException(message);
        }
    }

    /** A tensor as the header tells of it; believed only when all of them fit together and into the file. */
    private record Place(String dtype, List<Long> shape, long begin, long end) {
        long[] sizes() {
            return shape.stream().mapToLong(Long::longValue).toArray();
        }

        long bytes() {
            return Entry.bytes(dtype, sizes());
        }
    }
}
