package io.normcl.train;

import java.io.ByteArrayOutputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.SplittableRandom;
import java.util.zip.GZIPOutputStream;

/** Pictures made up for tests, in the four files of Fashion-MNIST: of each class a bright bar at a place of its own. */
public final class TinyPictures {
    static final String TRAIN_PICTURES = "train-images-idx3-ubyte.gz";
    static final String TRAIN_LABELS = "train-labels-idx1-ubyte.gz";

    private TinyPictures() {}

    /** Writes the four files. */
    public static Path write(Path folder, int train, int test) {
        try {
            Files.createDirectories(folder);
            pair(folder, "train", train, 1);
            pair(folder, "t10k", test, 2);
            return folder;
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    private static void pair(Path folder, String part, int count, long seed) throws IOException {
        SplittableRandom random = new SplittableRandom(seed);
        byte[] labels = new byte[count];
        byte[] pixels = new byte[count * 28 * 28];
        for (int i = 0; i < count; i++) {
            labels[i] = (byte) random.nextInt(10);
            for (int p = 0; p < 28 * 28; p++) {
                int noise = random.nextInt(60);
                boolean bar = p / 28 / 3 == labels[i];
                pixels[i * 28 * 28 + p] = (byte) (bar ? 190 + noise : noise);
            }
        }
        gzip(folder.resolve(part + "-images-idx3-ubyte.gz"), idx(0x803, pixels, count, 28, 28));
        gzip(folder.resolve(part + "-labels-idx1-ubyte.gz"), idx(0x801, labels, count));
    }

    static byte[] idx(int magic, byte[] values, int... sizes) throws IOException {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        try (DataOutputStream out = new DataOutputStream(bytes)) {
            out.writeInt(magic);
            for (int size : sizes) {
                out.writeInt(size);
            }
            out.write(values);
        }
        return bytes.toByteArray();
    }

    static void gzip(Path file, byte[] bytes) throws IOException {
        try (OutputStream out = new GZIPOutputStream(Files.newOutputStream(file))) {
            out.write(bytes);
        }
    }
}
