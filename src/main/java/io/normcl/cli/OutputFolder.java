package io.normcl.cli;

import java.io.IOException;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.Path;

/** Finds out before the work starts whether its results can be written. */
final class OutputFolder {
    private OutputFolder() {}

    static void prepare(Path folder) {
        prepare("--out", folder);
    }

    /** The same for a folder that messages call something else. */
    static void prepare(String name, Path folder) {
        try {
            Files.createDirectories(folder);
            Files.delete(Files.createTempFile(folder, ".writable", null));
        } catch (IOException e) {
            String reason = e instanceof FileSystemException f && f.getReason() != null
                    ? f.getReason()
                    : e.getClass().getSimpleName();
            throw new IllegalArgumentException(
                    "the output folder must be writable: " + name + "=" + folder + ", reason=" + reason, e);
        }
    }
}
