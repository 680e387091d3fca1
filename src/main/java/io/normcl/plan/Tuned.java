package io.normcl.plan;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/**
 * What overrides the plans' own choices, class of shapes by class of shapes.
 *
 * @param classes the classes that have an override of their own
 * @param otherwise the override of all others
 */
public record Tuned(Map<ShapeClass, Tuning> classes, Tuning otherwise) {
    /** Overrides nothing. */
    public static final Tuned NOTHING = always(Tuning.NONE);

    private static final String WIDE = "wide";
    private static final String COOPERATIVE = "cooperative";
    private static final String ONE = "one-launch";
    private static final String SEVERAL = "several-launches";
    private static final String STREAMS = "streaming-stores";
    private static final String STAYS = "plain-stores";
    private static final String ITEMS = "items-";
    private static final String WIDTH = "width-";
    private static final String SPLITS = "splits-";

    /**
     * Keeps the map from changing.
     *
     * @param classes the classes that have an override of their own
     * @param otherwise the override of all others
     */
    public Tuned {
        classes = Map.copyOf(classes);
    }

    /**
     * The same override for all.
     *
     * @param tuning the override
     * @return the table
     */
    public static Tuned always(Tuning tuning) {
        return new Tuned(Map.of(), tuning);
    }

    /**
     * Looks up a class.
     *
     * @param shapes the class
     * @return its override
     */
    public Tuning of(ShapeClass shapes) {
        return classes.getOrDefault(shapes, otherwise);
    }

    /**
     * Writes the classes as words.
     *
     * @return for each class's name what {@link #words} has for it
     */
    public Map<String, String> lines() {
        Map<String, String> lines = new TreeMap<>();
        classes.forEach((shapes, tuning) -> lines.put(shapes.toString(), words(tuning)));
        return lines;
    }

    /**
     * Reads what {@link #lines} wrote.
     *
     * @param lines for each class's name its override
     * @return the table, which overrides nothing of other classes
     * @throws IllegalArgumentException if a name or a word is unknown
     */
    public static Tuned parse(Map<String, String> lines) {
        Map<ShapeClass, Tuning> classes = new TreeMap<>((a, b) -> a.toString().compareTo(b.toString()));
        lines.forEach((name, words) -> classes.put(ShapeClass.parse(name), tuning(words)));
        return new Tuned(classes, Tuning.NONE);
    }

    /**
     * Writes an override.
     *
     * @param tuning the override
     * @return a word for each choice that is not the plan's; empty where all are
     */
    public static String words(Tuning tuning) {
        Boolean fused = tuning.fused();
        Boolean streams = tuning.streams();
        List<String> words = new ArrayList<>();
        if (tuning.family() != null) {
            words.add(tuning.family() == Family.WIDE ? WIDE : COOPERATIVE);
        }
        if (fused != null) {
            words.add(fused ? ONE : SEVERAL);
        }
        if (streams != null) {
            words.add(streams ? STREAMS : STAYS);
        }
        if (tuning.items() != null) {
            words.add(ITEMS + tuning.items());
        }
        if (tuning.width() != null) {
            words.add(WIDTH + tuning.width());
        }
        if (tuning.splits() != null) {
            words.add(SPLITS + tuning.splits());
        }
        return String.join(" ", words);
    }

    private static Tuning tuning(String words) {
        Tuning tuning = Tuning.NONE;
        for (String word : words.split(" ", -1)) {
            int dash = word.lastIndexOf('-') + 1;
            tuning = switch (word) {
                case WIDE -> tuning.withFamily(Family.WIDE);
                case COOPERATIVE -> tuning.withFamily(Family.COOPERATIVE);
                case ONE -> tuning.withFused(true);
                case SEVERAL -> tuning.withFused(false);
                case STREAMS -> tuning.withStreams(true);
                case STAYS -> tuning.withStreams(false);
                default ->
                    switch (word.substring(0, dash)) {
                        case ITEMS -> tuning.withItems(number(word, dash, 1024));
                        case WIDTH -> tuning.withWidth(number(word, dash, 16));
                        case SPLITS -> tuning.withSplits(number(word, dash, 1024));
                        default -> throw unknown(word);
                    };
            };
        }
        return tuning;
    }

    /** A power of two up to a limit. */
    private static int number(String word, int dash, int most) {
        for (int power = 1; power <= most; power *= 2) {
            if (word.substring(dash).equals(Integer.toString(power))) {
                return power;
            }
        }
        throw unknown(word);
    }

    private static IllegalArgumentException unknown(String word) {
        return new IllegalArgumentException("there is no such choice: choice=" + word);
    }
}
