package io.normcl.bench;

import java.io.PrintWriter;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.stream.Collectors;

/** Prints results line by line as they come, for a person, a spreadsheet or a program. */
public final class Listing implements AutoCloseable {
    /** The ways to print. */
    public enum Format {
        /** Aligned columns. */
        TABLE,
        /** A header and comma-separated values. */
        CSV,
        /** An array of objects. */
        JSON
    }

    /**
     * A column.
     *
     * @param name its header and key
     * @param width in a table; negative to align on the left
     * @param decimals of its numbers in a table
     */
    public record Column(String name, int width, int decimals) {}

    private final PrintWriter out;
    private final Format format;
    private final List<Column> columns;
    private int rows;

    /**
     * Prints what comes before the first line.
     *
     * @param out where to; not closed
     * @param format how
     * @param columns what
     */
    public Listing(PrintWriter out, Format format, List<Column> columns) {
        this.out = out;
        this.format = format;
        this.columns = List.copyOf(columns);
        List<String> names = columns.stream().map(Column::name).toList();
        switch (format) {
            case TABLE -> out.println(aligned(names));
            case CSV -> out.println(String.join(",", names));
            case JSON -> out.print("[");
        }
    }

    /**
     * Prints a line.
     *
     * @param cells one for each column: a text without commas, quotes or line breaks, a {@link Long} or a {@link Double}
     */
    public void add(Object... cells) {
        List<String> texts = new ArrayList<>();
        for (int i = 0; i < columns.size(); i++) {
            texts.add(text(columns.get(i), cells[i]));
        }
        switch (format) {
            case TABLE -> out.println(aligned(texts));
            case CSV -> out.println(String.join(",", texts));
            case JSON -> out.print((rows == 0 ? "\n" : ",\n") + "  {" + String.join(", ", texts) + "}");
        }
        rows++;
        out.flush();
    }

    private String text(Column column, Object cell) {
        String value = cell.toString();
        if (cell instanceof Double number) {
            value = number(number, format == Format.TABLE ? "%." + column.decimals() + "f" : "%.6g");
        }
        if (format == Format.JSON) {
            return "\"" + column.name() + "\": " + (cell instanceof String ? "\"" + value + "\"" : value);
        }
        return value;
    }

    /** What is not finite has no number in JSON. */
    private String number(double value, String pattern) {
        return Double.isFinite(value) || format != Format.JSON ? String.format(Locale.ROOT, pattern, value) : "null";
    }

    private String aligned(List<String> texts) {
        List<String> padded = new ArrayList<>();
        for (int i = 0; i < texts.size(); i++) {
            padded.add(String.format("%" + columns.get(i).width() + "s", texts.get(i)));
        }
        return padded.stream().collect(Collectors.joining(" ")).stripTrailing();
    }

    /** Prints what comes after the last line. */
    @Override
    public void close() {
        if (format == Format.JSON) {
            out.println(rows == 0 ? "]" : "\n]");
        }
        out.flush();
    }
}
