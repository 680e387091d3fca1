package io.normcl.bench;

import io.normcl.bench.BenchCase.Op;
import io.normcl.tensor.Layout;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/** The named sets of cases. */
public enum Suite {
    /** Batch and group norm of convolutional networks, in both layouts. */
    CNN,
    /** Layer and RMS norm of transformers, and batch norm over (N, C). */
    ROWS,
    /** Tensors so small that launching is what counts. */
    SMALL,
    /** All of them. */
    ALL;

    /**
     * Finds a suite.
     *
     * @param name as the command line has it
     * @return the suite
     * @throws IllegalArgumentException if there is none of that name
     */
    public static Suite of(String name) {
        return Arrays.stream(values())
                .filter(suite -> suite.name().equalsIgnoreCase(name))
                .findFirst()
                .orElseThrow(() -> new IllegalArgumentException("there is no such suite: suite=" + name + ", there are "
                        + Arrays.stream(values()).map(BenchCase::lower).collect(Collectors.joining(", "))));
    }

    /**
     * What the suite consists of.
     *
     * @return the cases, of floats with nothing fused
     */
    public List<BenchCase> cases() {
        return shapes().flatMap(shape -> casesOf(shape).stream()).toList();
    }

    private Stream<String> shapes() {
        return switch (this) {
            case CNN ->
                Stream.of(
                        "32x64x112x112",
                        "32x256x56x56",
                        "32x512x28x28",
                        "32x2048x7x7",
                        "2x256x200x304",
                        "8x64x32x64x64");
            case ROWS ->
                Stream.of("8192x768", "8192x1024", "4096x4096", "2048x8192", "16384x256", "100000x32", "4096x1024");
            case SMALL -> Stream.of("2x64x8x8", "1x1000", "32x10");
            case ALL -> Stream.of(CNN, ROWS, SMALL).flatMap(Suite::shapes);
        };
    }

    /**
     * The cases that a suite has of a shape: of two numbers layer, RMS and batch norm, of more batch and group norm in both layouts.
     *
     * @param shape as {@link BenchCase#shape(String)} reads it
     * @return the cases, of floats with nothing fused; batch norm where a channel has several values, group norm where
     *     {@value BenchCase#GROUPS} groups divide the channels and have several values each
     * @throws IllegalArgumentException if that is no shape of N, C and perhaps places
     */
    public static List<BenchCase> casesOf(String shape) {
        boolean rows = BenchCase.shape(shape).size() == 2;
        List<Op> ops =
                rows ? List.of(Op.LAYER_NORM, Op.RMS_NORM, Op.BATCH_NORM) : List.of(Op.BATCH_NORM, Op.GROUP_NORM);
        List<Layout> layouts = rows ? List.of(Layout.CHANNELS_LAST) : List.of(Layout.values());
        return ops.stream()
                .flatMap(op -> layouts.stream().map(layout -> BenchCase.of(op, layout, shape)))
                .filter(Suite::takes)
                .toList();
    }

    private static boolean takes(BenchCase timed) {
        long n = timed.shape().get(0);
        long c = timed.shape().get(1);
        return switch (timed.op()) {
            case BATCH_NORM -> timed.elements() > c;
            case GROUP_NORM -> c % timed.groups() == 0 && timed.elements() > n * timed.groups();
            default -> true;
        };
    }

    @Override
    public String toString() {
        return name().toLowerCase(Locale.ROOT);
    }
}
