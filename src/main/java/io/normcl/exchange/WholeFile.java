package io.normcl.exchange;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.SeekableByteChannel;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.List;
import java.util.concurrent.ThreadLocalRandom;

/** Files written whole or not at all, and read without trust in what they say of their lengths. */
public final class WholeFile {
    private static final int LONGEST_LINE = 300;

    private WholeFile() {}

    /**
     * Replaces a file by these bytes in one step: whoever looks finds the old file or the new one, never a part.
     *
     * @param file in a folder that there is
     * @param parts what it is to hold, one after the other; read
     * @throws IOException if it can't be written; the old file, if any, is then as it was
     */
    public static void write(Path file, List<ByteBuffer> parts) throws IOException {
        Path target = file.toAbsolutePath();
        String unique = Long.toHexString(ThreadLocalRandom.current().nextLong());
        Path temporary = target.resolveSibling("." + target.getFileName() + "." + unique + ".tmp");
        try {
            try (FileChannel channel =
                    FileChannel.open(temporary, StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE)) {
                for (ByteBuffer part : parts) {
                    ByteBuffer bytes = part.duplicate();
                    while (bytes.hasRemaining()) {
                        channel.write(bytes);
                    }
                }
                channel.force(true);
            }
            Files.move(temporary, target, StandardCopyOption.ATOMIC_MOVE);
        } catch (IOException e) {
            Files.deleteIfExists(temporary);
            throw new IOException("can't be written: file=" + file + ", reason=" + reason(e), e);
        }
    }

    static SeekableByteChannel open(Path file) throws IOException {
        try {
            return Files.newByteChannel(file);
        } catch (FileSystemException e) {
            throw new IOException("can't be read: file=" + file + ", reason=" + reason(e), e);
        }
    }

    /** The next bytes, in a buffer of exactly that size; the caller has checked the count against the file's size. */
    static ByteBuffer read(SeekableByteChannel channel, int count) throws IOException {
        ByteBuffer bytes = ByteBuffer.allocate(count);
        while (bytes.hasRemaining()) {
            if (channel.read(bytes) < 0) {
                throw new IOException(
                        "ends too early: position=" + channel.position() + ", bytes missing=" + bytes.remaining());
            }
        }
        return bytes.flip();
    }

    /** What a file says of itself, fit to be told in one line. */
    static String line(String told) {
        String line = told.replaceAll("[\\p{Cc}\\p{Zl}\\p{Zp}]", "?");
        return line.length() <= LONGEST_LINE ? line : line.substring(0, LONGEST_LINE) + "...";
    }

    private static String reason(IOException e) {
        if (e instanceof NoSuchFileException) {
            return "no such file or folder";
        }
        String told = e instanceof FileSystemException f ? f.getReason() : e.getMessage();
        return told == null ? e.getClass().getSimpleName() : told;
    }
}
