package io.normcl.train;

import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.zip.GZIPInputStream;

/**
 * Fashion-MNIST as its four IDX files hold it (Xiao, Rasul and Vollgraf 2017).
 *
 * @param train the pictures to train on, 60,000 in the original
 * @param test the pictures to judge by, 10,000 in the original
 */
public record FashionMnist(Pictures train, Pictures test) {
    /** Where Debian's package dataset-fashion-mnist puts the files. */
    public static final Path DEBIAN = Path.of("/usr/share/datasets/fashion-mnist");

    /** Height and width of a picture. */
    public static final int SIDE = 28;

    /** Values of a picture. */
    public static final int PIXELS = SIDE * SIDE;

    /** Kinds of clothes. */
    public static final int CLASSES = 10;

    private static final int PICTURE_MAGIC = 0x803; // unsigned bytes, three dimensions
    private static final int LABEL_MAGIC = 0x801; // unsigned bytes, one dimension

    /**
     * Pictures and what they show.
     *
     * @param pixels PIXELS grey values a picture, row by row
     * @param labels a class from 0 to CLASSES - 1 for each picture
     */
    @SuppressWarnings("ArrayRecordComponent") // compared by nobody
    public record Pictures(byte[] pixels, byte[] labels) {
        /**
         * The number of pictures.
         *
         * @return how many
         */
        public int size() {
            return labels.length;
        }

        /** Puts a picture's values at the target's position, from 0 to 1, so that the background adds to no sum. */
        void put(int picture, ByteBuffer target) {
            for (int i = 0; i < PIXELS; i++) {
                target.putFloat((pixels[picture * PIXELS + i] & 0xff) / 255f);
            }
        }
    }

    /**
     * Reads the four files {@code {train,t10k}-{images-idx3,labels-idx1}-ubyte.gz}.
     *
     * @param folder where they lie
     * @return the pictures
     * @throws IllegalArgumentException if a file is missing, truncated or corrupt; the message names it
     */
    public static FashionMnist read(Path folder) {
        return new FashionMnist(pictures(folder, "train"), pictures(folder, "t10k"));
    }

    private static Pictures pictures(Path folder, String part) {
        Path labelFile = folder.resolve(part + "-labels-idx1-ubyte.gz");
        byte[] pixels = idx(folder.resolve(part + "-images-idx3-ubyte.gz"), PICTURE_MAGIC, SIDE, SIDE);
        byte[] labels = idx(labelFile, LABEL_MAGIC);
        if (labels.length != pixels.length / PIXELS) {
            throw broken(labelFile, labels.length + " labels for " + pixels.length / PIXELS + " pictures");
        }
        for (byte label : labels) {
            if (label < 0 || label >= CLASSES) {
                throw broken(labelFile, "a label is not from 0 to " + (CLASSES - 1) + ": " + label);
            }
        }
        return new Pictures(pixels, labels);
    }

    private static byte[] idx(Path file, int magic, int... sizes) {
        if (!Files.isRegularFile(file)) {
            throw broken(file, "there is no such file (on Debian the package dataset-fashion-mnist has it)");
        }
        try (InputStream in = new GZIPInputStream(Files.newInputStream(file), 1 << 16)) {
            ByteBuffer header = ByteBuffer.wrap(in.readNBytes(8 + 4 * sizes.length));
            if (header.remaining() < 8 + 4 * sizes.length) {
                throw new EOFException();
            }
            if (header.getInt() != magic) {
                throw broken(file, "it is not an IDX file of bytes in " + (1 + sizes.length) + " dimensions");
            }
            long bytes = header.getInt();
            for (int size : sizes) {
                int found = header.getInt();
                if (found != size) {
                    throw broken(file, "a picture must be " + SIDE + "x" + SIDE + ", but one side is " + found);
                }
                bytes *= size;
            }
            if (bytes < 1 || bytes > Integer.MAX_VALUE - 8) {
                throw broken(file, "its header promises " + bytes + " bytes");
            }
            byte[] values = in.readNBytes((int) bytes);
            if (values.length < bytes) {
                throw new EOFException();
            }
            if (in.read() >= 0) {
                throw broken(file, "it goes on after the " + bytes + " bytes that its header promises");
            }
            return values;
        } catch (EOFException e) {
            throw broken(file, "it is truncated");
        } catch (IOException e) {
            throw broken(file, String.valueOf(e.getMessage()));
        }
    }

    private static IllegalArgumentException broken(Path file, String reason) {
        return new IllegalArgumentException("a picture file must be whole: file=" + file + ", reason=" + reason);
    }
}
