package io.normcl.verify;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.FileSystem;
import java.nio.file.FileSystems;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.ProviderNotFoundException;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.stream.Stream;
import java.util.zip.ZipException;
import org.jspecify.annotations.Nullable;

/** The cases of a folder of case folders, or of an archive of one. */
public final class ConformanceCases implements AutoCloseable {
    private final @Nullable FileSystem archive;
    private final List<Path> folders;

    private ConformanceCases(@Nullable FileSystem archive, List<Path> folders) {
        this.archive = archive;
        this.folders = folders;
    }

    /**
     * Finds the cases: every folder with a {@code case.properties}, at most two folders down.
     *
     * @param place a folder or a zip archive
     * @return its cases, to be closed by the caller
     * @throws IOException if it can't be read or holds no case
     */
    public static ConformanceCases open(Path place) throws IOException {
        if (!Files.exists(place)) {
            throw new IOException("no such folder or archive: cases=" + place);
        }
        FileSystem archive = Files.isDirectory(place) ? null : openArchive(place);
        try (Stream<Path> files = Files.walk(archive == null ? place : archive.getPath("/"), 3)) {
            List<Path> folders = files.filter(file -> file.endsWith("case.properties"))
                    .map(file -> file.toAbsolutePath().normalize().getParent())
                    .filter(folder -> folder.getFileName() != null)
                    .sorted()
                    .toList();
            if (folders.isEmpty()) {
                throw new IOException("no folder with a case.properties in it: cases=" + place);
            }
            ConformanceCases cases = new ConformanceCases(archive, folders);
            Set<String> names = new HashSet<>();
            for (String name : cases.names()) {
                if (!names.add(name)) {
                    throw new IOException("two cases have one name: case=" + name + ", cases=" + place);
                }
            }
            return cases;
        } catch (IOException | RuntimeException e) {
            if (archive != null) {
                archive.close();
            }
            if (e instanceof UncheckedIOException walk) {
                throw walk.getCause();
            }
            throw e;
        }
    }

    private static FileSystem openArchive(Path file) throws IOException {
        try {
            return FileSystems.newFileSystem(file);
        } catch (ProviderNotFoundException e) {
            throw new IOException("neither a folder nor a zip archive: cases=" + file, e);
        } catch (ZipException e) {
            throw new IOException("not a whole zip archive: cases=" + file + ", reason=" + e.getMessage(), e);
        }
    }

    /**
     * The names of the cases.
     *
     * @return sorted
     */
    public List<String> names() {
        return folders.stream().map(folder -> folder.getFileName().toString()).toList();
    }

    /**
     * How many replicas a synchronized layer has at most.
     *
     * @return at least one; cases that can't be read don't count
     */
    public int mostReplicas() {
        int most = 1;
        for (String name : names()) {
            try {
                ConformanceCase read = get(name);
                while (read.operation().equals("sync_batch_norm") && read.has("x_" + most)) {
                    most++;
                }
            } catch (IOException | RuntimeException e) {
                // running it tells
            }
        }
        return most;
    }

    /**
     * Reads one case; its tensors are read when they are asked for, so that this must be open then.
     *
     * @param name one of {@link #names()}
     * @return the case
     * @throws IOException if it can't be read
     * @throws IllegalArgumentException if there is no such case
     */
    public ConformanceCase get(String name) throws IOException {
        for (Path folder : folders) {
            if (folder.endsWith(name)) {
                return ConformanceCase.read(folder);
            }
        }
        throw new IllegalArgumentException("a case is one of those that are there: case=" + name);
    }

    /**
     * Reads the cases of some operations.
     *
     * @param operations names of operations, as batch_norm
     * @return their cases, sorted by name
     * @throws IOException if one can't be read
     */
    public List<ConformanceCase> of(String... operations) throws IOException {
        List<ConformanceCase> cases = new ArrayList<>();
        for (Path folder : folders) {
            ConformanceCase read = ConformanceCase.read(folder);
            if (List.of(operations).contains(read.operation())) {
                cases.add(read);
            }
        }
        return cases;
    }

    @Override
    public void close() throws IOException {
        if (archive != null) {
            archive.close();
        }
    }
}
