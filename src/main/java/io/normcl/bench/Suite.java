package io.normcl.bench;

import io.normcl.bench.BenchCase.Op;
import io.normcl.tensor.Layout;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.stream.Collectors;

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

    private static final List<String> PICTURES =
            List.of("32x64x112x112", "32x256x56x56", "32x512x28x28", "32x2048x7x7", "2x256x200x304", "8x64x32x64x64");
    private static final List<String> LINES =
            List.of("8192x768", "8192x1024", "4096x4096", "2048x8192", "16384x256", "100000x32", "4096x1024");

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
        List<BenchCase> cases = new ArrayList<>();
        switch (this) {
            case CNN -> PICTURES.forEach(shape -> pictures(cases, shape, Op.BATCH_NORM, Op.GROUP_NORM));
            case ROWS -> LINES.forEach(shape -> rows(cases, shape));
            case SMALL -> {
                pictures(cases, "2x64x8x8", Op.BATCH_NORM, Op.GROUP_NORM);
                lines(cases, "1x1000", Op.LAYER_NORM, Op.RMS_NORM);
                rows(cases, "32x10");
            }
            case ALL -> List.of(CNN, ROWS, SMALL).forEach(suite -> cases.addAll(suite.cases()));
        }
        return cases;
    }

    /**
     * The cases that {@link #CNN} or {@link #ROWS} would have of a shape.
     *
     * @param shape as {@link BenchCase#shape(String)} reads it; of two numbers, rows
     * @return the cases, of floats with nothing fused; batch norm where a channel has several values, group norm where
     *     {@value BenchCase#GROUPS} groups divide the channels and have several values each
     * @throws IllegalArgumentException if that is no shape of N, C and perhaps places
     */
    public static List<BenchCase> casesOf(String shape) {
        List<BenchCase> cases = new ArrayList<>();
        if (BenchCase.shape(shape).size() == 2) {
            rows(cases, shape);
        } else {
            pictures(cases, shape, Op.BATCH_NORM, Op.GROUP_NORM);
        }
        cases.removeIf(timed -> !takes(timed));
        return cases;
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

    private static void rows(List<BenchCase> cases, String shape) {
        lines(cases, shape, Op.LAYER_NORM, Op.RMS_NORM, Op.BATCH_NORM);
    }

    private static void pictures(List<BenchCase> cases, String shape, Op... ops) {
        for (Op op : ops) {
            for (Layout layout : Layout.values()) {
                cases.add(BenchCase.of(op, layout, shape));
            }
        }
    }

    private static void lines(List<BenchCase> cases, String shape, Op... ops) {
        for (Op op : ops) {
            cases.add(BenchCase.of(op, Layout.CHANNELS_LAST, shape));
        }
    }

    @Override
    public String toString() {
        return name().toLowerCase(Locale.ROOT);
    }
}
