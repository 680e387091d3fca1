package io.normcl;

import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;

/** The kernels that the sources in {@code kernels/} define. */
public final class KernelNames {
    private static final Path FOLDER = Path.of("kernels");
    private static final Pattern DEFINITION = Pattern.compile(
            "KERNEL\\((\\w+)\\)|(?:FINALIZE|__kernel)\\s+(?:__attribute__\\s*\\(\\(.*\\)\\)\\s*)?void\\s+(\\w+)\\s*\\(");

    private KernelNames() {}

    /** Each kernel's name as compiled, for what KERNEL defines in both families, and its file; no name twice. */
    public static Map<String, String> files() throws IOException {
        Map<String, String> files = new TreeMap<>();
        try (Stream<Path> paths = Files.walk(FOLDER)) {
            for (Path path : paths.filter(p -> p.toString().endsWith(".cl")).toList()) {
                String file = FOLDER.relativize(path).toString();
                Matcher names = DEFINITION.matcher(Files.readString(path));
                while (names.find()) {
                    String both = names.group(1);
                    for (String name :
                            both != null ? List.of("wide_" + both, "cooperative_" + both) : List.of(names.group(2))) {
                        assertNull(files.put(name, file), name);
                    }
                }
                assertTrue(files.containsValue(file), file);
            }
        }
        return files;
    }
}
