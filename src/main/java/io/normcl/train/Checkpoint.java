package io.normcl.train;

import io.normcl.exchange.Safetensors;
import io.normcl.exchange.Safetensors.Entry;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;

/**
 * A run at rest in a safetensors file. The parameters and the first replica's running statistics have PyTorch's names,
 * {@code num_batches_tracked} is the position, further tensors are named as {@link State} says, and the settings are
 * in the metadata.
 */
public final class Checkpoint {
    private static final String TRACKED = ".num_batches_tracked";
    private static final String NETWORK = "network";

    private final Map<String, Entry> tensors;
    private final Map<String, String> metadata;
    private final String source;

    private Checkpoint(Map<String, Entry> tensors, Map<String, String> metadata, String source) {
        this.tensors = tensors;
        this.metadata = metadata;
        this.source = source;
    }

    /**
     * What a trainer has learned.
     *
     * @param trainer read
     * @return a copy
     */
    public static Checkpoint of(Trainer trainer) {
        Map<String, long[]> shapes = trainer.shapes();
        Map<String, Entry> tensors = new LinkedHashMap<>();
        State state = trainer.state();
        state.tensors().forEach((name, values) -> {
            tensors.put(name, Entry.of(values, shapes.getOrDefault(name, new long[] {values.length})));
            if (name.endsWith(".running_mean")) {
                String norm = name.substring(0, name.lastIndexOf('.'));
                tensors.put(norm + TRACKED, Entry.of(new long[] {state.step()}));
            }
        });
        return new Checkpoint(tensors, metadata(trainer.settings()), "a trainer");
    }

    private static Map<String, String> metadata(Settings settings) {
        Map<String, String> metadata = new TreeMap<>();
        metadata.put("format", "pt");
        metadata.put(NETWORK, Network.NAME);
        metadata.put("norm", settings.norm().name().toLowerCase(Locale.ROOT));
        metadata.put("devices", Integer.toString(settings.devices()));
        metadata.put("batch-per-device", Integer.toString(settings.batchPerDevice()));
        metadata.put("samples", Integer.toString(settings.samples()));
        metadata.put("seed", Long.toString(settings.seed()));
        metadata.put("learning-rate", Float.toString(settings.rate()));
        metadata.put("momentum", Float.toString(settings.momentum()));
        metadata.put("weight-decay", Float.toString(settings.decay()));
        return metadata;
    }

    /**
     * Writes the checkpoint; the file is whole afterwards, or as it was before.
     *
     * @param file the file
     * @throws IOException if it can't be written
     */
    public void write(Path file) throws IOException {
        Safetensors.write(file, tensors, metadata);
    }

    /**
     * Reads a checkpoint.
     *
     * @param file the file
     * @return the checkpoint
     * @throws IllegalArgumentException if the file is damaged, or is of something else than this network
     */
    public static Checkpoint read(Path file) {
        try {
            Safetensors read = Safetensors.read(file);
            String network = read.metadata().getOrDefault(NETWORK, "unknown");
            if (!network.equals(Network.NAME)) {
                throw new IllegalArgumentException("a checkpoint must be of this network: checkpoint=" + file
                        + ", network=" + network + ", expected=" + Network.NAME);
            }
            return new Checkpoint(read.tensors(), read.metadata(), file.toString());
        } catch (IOException e) {
            throw new IllegalArgumentException("a checkpoint must be a whole safetensors file: " + e.getMessage(), e);
        }
    }

    /**
     * The settings of the run.
     *
     * @return the settings
     * @throws IllegalArgumentException if the file names them not or wrongly
     */
    public Settings settings() {
        try {
            return new Settings(
                    Norm.valueOf(said("norm").toUpperCase(Locale.ROOT)),
                    Integer.parseInt(said("devices")),
                    Integer.parseInt(said("batch-per-device")),
                    Integer.parseInt(said("samples")),
                    Long.parseLong(said("seed")),
                    Float.parseFloat(said("learning-rate")),
                    Float.parseFloat(said("momentum")),
                    Float.parseFloat(said("weight-decay")));
        } catch (IllegalArgumentException e) {
            throw new IllegalArgumentException(
                    "a checkpoint must name its settings: checkpoint=" + source + ", " + e.getMessage(), e);
        }
    }

    private String said(String key) {
        String value = metadata.get(key);
        if (value == null) {
            throw new IllegalArgumentException(key + "=missing");
        }
        return value;
    }

    /**
     * Puts a trainer where the run was.
     *
     * @param trainer of the same settings; overwritten
     * @throws IllegalArgumentException if its settings or tensors are others than the checkpoint's; the message says
     *     which, and nothing has changed
     */
    public void restore(Trainer trainer) {
        List<String> differences = new ArrayList<>();
        metadata(trainer.settings()).forEach((key, value) -> {
            if (!value.equals(metadata.get(key))) {
                differences.add(
                        key + "=" + metadata.getOrDefault(key, "missing") + " in the checkpoint, " + value + " asked");
            }
        });
        Map<String, float[]> values = new LinkedHashMap<>();
        Set<Long> steps = new TreeSet<>();
        new TreeMap<>(of(trainer).tensors).forEach((name, wanted) -> {
            Entry found = tensors.get(name);
            if (found == null || !found.toString().equals(wanted.toString())) {
                String there = found == null ? "missing" : found.toString();
                differences.add(name + "=" + there + " in the checkpoint, " + wanted + " expected");
            } else if (name.endsWith(TRACKED)) {
                steps.add(found.longs()[0]);
            } else {
                values.put(name, found.floats());
            }
        });
        if (!differences.isEmpty()) {
            throw new IllegalArgumentException("a checkpoint must be of a run with the same settings: checkpoint="
                    + source + ", " + String.join("; ", differences));
        }
        if (steps.size() != 1) {
            throw new IllegalArgumentException(
                    "a checkpoint must be of one step: checkpoint=" + source + ", steps=" + steps);
        }
        trainer.state(new State(steps.iterator().next(), values));
    }
}
