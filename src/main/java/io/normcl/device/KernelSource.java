package io.normcl.device;

import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** Reads a kernel file from the class path and puts its includes in place, so that a driver needs no include path. */
public final class KernelSource {
    private static final Pattern INCLUDE = Pattern.compile("\\s*#include\\s+\"([^\"]+)\".*");
    private static final int DEEPEST = 8;

    private KernelSource() {}

    /**
     * Reads a kernel file.
     *
     * @param file its name in the folder of kernels
     * @return its text, with what it includes in place
     * @throws IllegalArgumentException if there is none of that name
     */
    public static String load(String file) {
        StringBuilder text = new StringBuilder();
        expand(file, text, 0);
        return text.toString();
    }

    private static void expand(String file, StringBuilder text, int depth) {
        if (depth > DEEPEST) {
            throw new IllegalArgumentException("includes must not go in circles: file=" + file);
        }
        text.append("#line 1 \"").append(file).append("\"\n");
        int number = 0;
        for (String line : read(file).split("\n", -1)) {
            number++;
            Matcher include = INCLUDE.matcher(line);
            if (include.matches()) {
                expand(include.group(1), text, depth + 1);
                text.append("#line ")
                        .append(number + 1)
                        .append(" \"")
                        .append(file)
                        .append("\"\n");
            } else {
                text.append(line).append('\n');
            }
        }
    }

    private static String read(String file) {
        try (InputStream in = KernelSource.class.getResourceAsStream("/kernels/" + file)) {
            if (in == null) {
                throw new IllegalArgumentException("a kernel file must be on the class path: file=kernels/" + file);
            }
            return new String(in.readAllBytes(), StandardCharsets.UTF_8);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }
}
