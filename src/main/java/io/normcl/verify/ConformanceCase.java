package io.normcl.verify;

import io.normcl.exchange.Npy;
import java.io.IOException;
import java.io.Reader;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Properties;
import java.util.zip.CRC32;
import org.jspecify.annotations.Nullable;

/**
 * One case: an operation's inputs, what it must give, and how exactly. A case is a folder with a
 * {@code case.properties} and one npy file per tensor; large inputs are not stored but made from a seed.
 */
public final class ConformanceCase {
    private static final int MADE_AT_ONCE = 4096;

    private final Path folder;
    private final Properties properties;

    private ConformanceCase(Path folder, Properties properties) {
        this.folder = folder;
        this.properties = properties;
    }

    /**
     * Reads a case's properties.
     *
     * @param folder the case's folder; its tensors are read when they are asked for
     * @return the case
     * @throws IOException if there is no {@code case.properties} that can be read
     */
    public static ConformanceCase read(Path folder) throws IOException {
        Properties properties = new Properties();
        try (Reader reader = Files.newBufferedReader(folder.resolve("case.properties"), StandardCharsets.US_ASCII)) {
            properties.load(reader);
        } catch (IllegalArgumentException e) {
            throw new IOException("not properties: file=" + folder.resolve("case.properties"), e);
        }
        return new ConformanceCase(folder, properties);
    }

    /**
     * The name.
     *
     * @return the name of the case's folder
     */
    public String name() {
        return folder.getFileName().toString();
    }

    /**
     * What is to be run.
     *
     * @return the operation's name, as batch_norm
     */
    public String operation() {
        return property("op");
    }

    /**
     * Whether the call must be refused.
     *
     * @return true where no values are expected
     */
    public boolean expectsRefusal() {
        return property("expect").equals("error");
    }

    /**
     * A property that the case must have.
     *
     * @param key its name
     * @return its value
     * @throws IllegalStateException if the case has none
     */
    public String property(String key) {
        String value = properties.getProperty(key);
        if (value == null) {
            throw new IllegalStateException("a case needs its properties: case=" + name() + ", missing=" + key);
        }
        return value;
    }

    /**
     * A property that the case may have.
     *
     * @param key its name
     * @param otherwise what holds where the case has none
     * @return its value
     */
    public String property(String key, String otherwise) {
        return properties.getProperty(key, otherwise);
    }

    /**
     * A number that the case may have.
     *
     * @param key its name
     * @return its value, null where the case has none
     */
    public @Nullable Double number(String key) {
        String value = properties.getProperty(key);
        return value == null ? null : Double.valueOf(value);
    }

    /**
     * A yes or no.
     *
     * @param key its name
     * @return whether the case says true
     */
    public boolean flag(String key) {
        return Boolean.parseBoolean(properties.getProperty(key));
    }

    /**
     * A list that the case may have.
     *
     * @param key its name
     * @return its parts, none where the case has no such list
     */
    public List<String> list(String key) {
        return Arrays.stream(properties.getProperty(key, "").split(","))
                .map(String::strip)
                .filter(part -> !part.isEmpty())
                .toList();
    }

    /**
     * Whether a tensor is there.
     *
     * @param tensor its name
     * @return whether it is stored or can be made
     */
    public boolean has(String tensor) {
        return generated(tensor) || Files.exists(file(tensor));
    }

    /**
     * A tensor's shape.
     *
     * @param tensor its name
     * @return its dimensions as stored
     * @throws IOException if it can't be read
     */
    public long[] shape(String tensor) throws IOException {
        return generated(tensor)
                ? list("shape").stream().mapToLong(Long::parseLong).toArray()
                : Npy.read(file(tensor)).shape();
    }

    /**
     * A tensor's values.
     *
     * @param tensor its name
     * @return a new array in C order
     * @throws IOException if it can't be read, or was made and is not what the case says of it
     */
    public double[] values(String tensor) throws IOException {
        return generated(tensor) ? generate(tensor) : Npy.read(file(tensor)).doubles();
    }

    /**
     * Values as an array to be written: counts as longs, all else as floats.
     *
     * @param tensor the name of a stored tensor
     * @param values what was computed for it, copied
     * @return an array of the stored tensor's shape, or of one dimension where it has not as many values
     * @throws IOException if the stored tensor can't be read
     */
    Npy like(String tensor, double[] values) throws IOException {
        Npy stored = Npy.read(file(tensor));
        long count = Arrays.stream(stored.shape()).reduce(1, Math::multiplyExact);
        long[] shape = count == values.length ? stored.shape() : new long[] {values.length};
        if (stored.dtype().equals("<i8")) {
            return Npy.of(Arrays.stream(values).mapToLong(Math::round).toArray(), shape);
        }
        float[] floats = new float[values.length];
        for (int i = 0; i < floats.length; i++) {
            floats[i] = (float) values[i];
        }
        return Npy.of(floats, shape);
    }

    private Path file(String tensor) {
        return folder.resolve(tensor + ".npy");
    }

    private boolean generated(String tensor) {
        return list("generated_inputs").contains(tensor);
    }

    /** Makes a tensor from its seed and compares it with the first values and the checksum that the case names. */
    private double[] generate(String tensor) throws IOException {
        String prefix = "gen." + tensor + ".";
        boolean uniform = property(prefix + "dist").equals("uniform");
        double first = Double.parseDouble(property(prefix + (uniform ? "lo" : "mean")));
        double second = Double.parseDouble(property(prefix + (uniform ? "hi" : "std")));
        long seed = Long.parseUnsignedLong(property(prefix + "seed"));
        int count = Math.toIntExact(Arrays.stream(shape(tensor)).reduce(1, Math::multiplyExact));
        double[] values = new double[count];
        ByteBuffer bytes = ByteBuffer.allocate(MADE_AT_ONCE * Float.BYTES).order(ByteOrder.LITTLE_ENDIAN);
        CRC32 checksum = new CRC32();
        for (int i = 0; i < count; i++) {
            long z = mix(seed + (i + 1) * 0x9E3779B97F4A7C15L);
            long sum = (z & 0xffff) + (z >>> 16 & 0xffff) + (z >>> 32 & 0xffff) + (z >>> 48);
            float value = (float)
                    (uniform
                            ? first + (second - first) * ((z >>> 11) * 0x1p-53)
                            : first + second * ((sum - 131070) / 37837.0));
            values[i] = value;
            bytes.putFloat(value);
            if (!bytes.hasRemaining() || i == count - 1) {
                checksum.update(bytes.flip());
                bytes.clear();
            }
        }
        List<String> start = list(prefix + "first");
        for (int i = 0; i < start.size(); i++) {
            if (values[i] != Double.parseDouble(start.get(i))) {
                throw new IOException("a made tensor has other values than its case names: case=" + name() + ", tensor="
                        + tensor + ", index=" + i + ", value=" + values[i] + ", named=" + start.get(i));
            }
        }
        if (checksum.getValue() != Long.parseLong(property(prefix + "crc32"))) {
            throw new IOException("a made tensor has another checksum than its case names: case=" + name() + ", tensor="
                    + tensor + ", crc32=" + checksum.getValue());
        }
        return values;
    }

    /** SplitMix64's output function (Steele, Lea and Flood 2014). */
    private static long mix(long state) {
        long z = (state ^ state >>> 30) * 0xBF58476D1CE4E5B9L;
        z = (z ^ z >>> 27) * 0x94D049BB133111EBL;
        return z ^ z >>> 31;
    }

    @Override
    public String toString() {
        return name();
    }
}
