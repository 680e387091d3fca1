package io.normcl;

import io.normcl.device.Description;
import io.normcl.device.Device;
import io.normcl.device.KernelSource;
import io.normcl.plan.Tuned;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.attribute.BasicFileAttributes;
import java.nio.file.attribute.FileTime;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The file in the user's configuration folder that keeps what was tuned on a device. It counts for one driver and one
 * version of the kernels; another's, or a damaged one, is named in a warning and overrides nothing.
 */
public final class TuningFile {
    private static final Logger LOG = LoggerFactory.getLogger(TuningFile.class);
    private static final int LARGEST_BYTES = 1 << 20;
    private static final String DIGEST = "digest";
    private static final String CLASS = "class.";
    static final List<String> KERNELS =
            List.of("channel.cl", "channels_first.cl", "channels_last.cl", "held.cl", "rows.cl");

    /** A state of a file: each is read, and complained about, once. */
    private record State(
            Path path, FileTime modified, @Nullable Object inode, Map<String, String> key) {}

    private static final Map<State, Tuned> READ = new ConcurrentHashMap<>();

    private final Path path;
    private final Description device;

    private TuningFile(Path path, Description device) {
        this.path = path;
        this.device = device;
    }

    /**
     * Finds a device's file in {@code $XDG_CONFIG_HOME/normcl}, or else in {@code ~/.config/normcl}.
     *
     * @param device the device
     * @return the file, whether it is there or not
     */
    public static TuningFile of(Device device) {
        String configured = System.getenv("XDG_CONFIG_HOME");
        Path home = configured != null && Path.of(configured).isAbsolute()
                ? Path.of(configured)
                : Path.of(System.getProperty("user.home", ""), ".config");
        return of(home.resolve("normcl"), device);
    }

    /**
     * Finds a device's file in a folder.
     *
     * @param folder the folder, whether it is there or not
     * @param device the device
     * @return the file, whether it is there or not
     */
    public static TuningFile of(Path folder, Device device) {
        Description told = device.description();
        String units = told.limits().computeUnits() + " units";
        String name = (told.name() + " " + units).toLowerCase(Locale.ROOT).replaceAll("[^a-z0-9]+", "-");
        String unique = digest(told.platform() + "\n" + told.name() + "\n" + units);
        return new TuningFile(
                folder.resolve("tuning-" + name + "-" + unique.substring(0, 8) + ".properties"), device.description());
    }

    static Tuned tuned(Device device) {
        return of(device).read();
    }

    /**
     * Where the file is.
     *
     * @return its path
     */
    public Path path() {
        return path;
    }

    /**
     * Reads the file.
     *
     * @return what was tuned; nothing where there is no file, or one that is damaged or of another driver or version
     */
    public Tuned read() {
        try {
            BasicFileAttributes found = Files.readAttributes(path, BasicFileAttributes.class);
            State state = new State(path, found.lastModifiedTime(), found.fileKey(), key());
            return READ.computeIfAbsent(state, s -> readOrWarn());
        } catch (NoSuchFileException e) {
            return Tuned.NOTHING;
        } catch (IOException e) {
            return READ.computeIfAbsent(new State(path, FileTime.fromMillis(0), null, Map.of()), s -> ignored(e));
        }
    }

    private Tuned readOrWarn() {
        try (InputStream in = Files.newInputStream(path)) {
            return parse(in.readNBytes(LARGEST_BYTES));
        } catch (IOException | IllegalArgumentException e) {
            return ignored(e);
        }
    }

    private Tuned ignored(Exception e) {
        LOG.warn(
                "a tuning file is ignored, normcl tune writes a new one: file={}, reason={}",
                path,
                e instanceof IllegalArgumentException ? e.getMessage() : e.toString());
        return Tuned.NOTHING;
    }

    /**
     * Writes what was tuned as the file is to have it.
     *
     * @param tuned the classes; what it has for all others is not kept
     * @return the file's bytes
     */
    public byte[] bytes(Tuned tuned) {
        Map<String, String> lines = new TreeMap<>(key());
        tuned.lines().forEach((name, words) -> lines.put(CLASS + name, words));
        Properties properties = new Properties();
        properties.putAll(lines);
        properties.setProperty(DIGEST, digest(lines.toString()));
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        try {
            properties.store(out, "written by normcl tune");
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        return out.toByteArray();
    }

    private Tuned parse(byte[] bytes) throws IOException {
        Properties properties = new Properties();
        properties.load(new ByteArrayInputStream(bytes));
        Map<String, String> lines = new TreeMap<>();
        properties.stringPropertyNames().forEach(name -> lines.put(name, properties.getProperty(name)));
        String told = lines.remove(DIGEST);
        if (!digest(lines.toString()).equals(told)) {
            throw new IllegalArgumentException("it is damaged");
        }
        for (Map.Entry<String, String> own : key().entrySet()) {
            if (!own.getValue().equals(lines.remove(own.getKey()))) {
                throw new IllegalArgumentException("it is of another " + own.getKey());
            }
        }
        Map<String, String> classes = new TreeMap<>();
        lines.forEach(
                (name, words) -> classes.put(name.startsWith(CLASS) ? name.substring(CLASS.length()) : name, words));
        return Tuned.parse(classes);
    }

    /** What the file counts for. */
    private Map<String, String> key() {
        return Map.of(
                "device", device.platform() + ", " + device.name(),
                "driver", device.driver() + ", " + device.version(),
                "kernels", Kernels.DIGEST);
    }

    private static String digest(String text) {
        try {
            MessageDigest digest = MessageDigest.getInstance("SHA-256");
            return HexFormat.of().formatHex(digest.digest(text.getBytes(StandardCharsets.UTF_8)));
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException("every Java has SHA-256", e);
        }
    }

    /** Worked out once, and only where there is a file. */
    private static final class Kernels {
        static final String DIGEST =
                digest(KERNELS.stream().map(KernelSource::load).collect(Collectors.joining()));
    }
}
