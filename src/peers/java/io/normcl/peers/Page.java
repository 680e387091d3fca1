package io.normcl.peers;

import io.normcl.bench.BenchCase.Op;
import io.normcl.bench.BenchCase.Pass;
import io.normcl.bench.Suite;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Objects;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/** The results as lines for a terminal and as a page that needs no other file. */
final class Page {
    /** A library has one colour in every picture (Okabe and Ito's, which colour-blind people tell apart). */
    private static final Map<String, String> COLORS =
            Map.of(Result.NORMCL, "#0072B2", Result.ONEDNN, "#D55E00", Result.PYTORCH, "#009E73");

    private static final List<String> PEERS = List.of(Result.ONEDNN, Result.ONEDNN_BEST, Result.PYTORCH);
    private static final int WIDTH = 520;
    private static final int HEIGHT = 320;
    private static final int EDGE = 50;

    private Page() {}

    static String line(Result r) {
        return String.format(
                Locale.ROOT,
                "%-10s %-18s %-14s %-13s %-7s %8.3f ms %4.0f %% of the copy; onednn %s (best %s), pytorch %s;"
                        + " errors %s %s %s",
                r.timed().name(),
                PeerBench.lower(r.pass()),
                PeerBench.lower(r.timed().layout()),
                r.timed().shapeName(),
                r.cached() ? "cached" : "rotated",
                Objects.requireNonNull(r.millis().get(Result.NORMCL)).median(),
                100 * r.fraction(),
                times(r.ratio(Result.ONEDNN)),
                times(r.ratio(Result.ONEDNN_BEST)),
                times(r.ratio(Result.PYTORCH)),
                error(r, Result.NORMCL),
                error(r, Result.ONEDNN),
                error(r, Result.PYTORCH));
    }

    private static String times(@Nullable Double ratio) {
        return ratio == null ? "none" : String.format(Locale.ROOT, "%.2fx", ratio);
    }

    private static String error(Result r, String library) {
        Double error = r.errors().get(library);
        return error == null ? "-" : String.format(Locale.ROOT, "%.1e", error);
    }

    /** Geometric means and the worst of the ratios, a line for each suite, layer, kind of buffers and peer. */
    static List<String> means(List<Result> results) {
        List<String> lines = new ArrayList<>();
        for (Suite suite : Suite.values()) {
            for (boolean cached : new boolean[] {false, true}) {
                List<Result> all = results.stream()
                        .filter(r -> r.suite() == suite && r.cached() == cached)
                        .toList();
                String where = suite + (cached ? ", cached" : ", rotated");
                mean(where, all, lines);
                for (Op op : Op.values()) {
                    mean(
                            where + ", " + PeerBench.lower(op),
                            all.stream().filter(r -> r.timed().op() == op).toList(),
                            lines);
                }
            }
        }
        return lines;
    }

    private static void mean(String where, List<Result> of, List<String> lines) {
        List<String> parts = new ArrayList<>();
        for (String peer : PEERS) {
            double[] ratios = of.stream()
                    .map(r -> r.ratio(peer))
                    .flatMap(Stream::ofNullable)
                    .mapToDouble(Double::doubleValue)
                    .toArray();
            if (ratios.length > 0) {
                parts.add(String.format(
                        Locale.ROOT,
                        "%s %.2fx (worst %.2fx of %d)",
                        peer,
                        geometricMean(ratios),
                        Arrays.stream(ratios).min().orElse(Double.NaN),
                        ratios.length));
            }
        }
        if (!parts.isEmpty()) {
            lines.add(where + ": " + String.join(", ", parts));
        }
    }

    private static double geometricMean(double... values) {
        double sum = 0;
        for (double value : values) {
            sum += Math.log(value);
        }
        return Math.exp(sum / values.length);
    }

    static String of(List<Result> results, List<String> about) {
        StringBuilder page = new StringBuilder("""
                <!DOCTYPE html>
                <html lang="en">
                <head>
                <meta charset="utf-8">
                <title>NormCL beside oneDNN and PyTorch</title>
                <style>
                body { font: 16px/1.5 sans-serif; max-width: 90em; margin: 2em auto; padding: 0 1em; }
                table { border-collapse: collapse; font-size: 13px; }
                td, th { padding: 2px 8px; text-align: right; border-bottom: 1px solid #ddd; }
                td.text, th.text { text-align: left; }
                td.slow { background: #fbe3d6; }
                svg { margin: 0 1em 1em 0; }
                </style>
                </head>
                <body>
                <h1>NormCL beside oneDNN and PyTorch</h1>
                """);
        about.forEach(line -> page.append("<p>").append(escaped(line)).append("</p>\n"));
        page.append("<p>").append(escaped(EXPLANATION)).append("</p>\n<h2>Geometric means</h2>\n<ul>\n");
        means(results).forEach(line -> page.append("<li>").append(escaped(line)).append("</li>\n"));
        page.append("</ul>\n");
        for (boolean cached : new boolean[] {false, true}) {
            List<Result> of =
                    results.stream().filter(r -> r.cached() == cached).toList();
            page.append(cached ? "<h2>Buffers cached</h2>\n" : "<h2>Buffers rotated</h2>\n");
            for (Pass pass : Pass.values()) {
                picture(page, pass, of.stream().filter(r -> r.pass() == pass).toList());
            }
            table(page, of);
        }
        return page.append("</body>\n</html>\n").toString();
    }

    private static void table(StringBuilder page, List<Result> results) {
        page.append("<table>\n<tr>");
        for (String head : List.of("layer", "pass", "layout", "shape")) {
            page.append("<th class=\"text\">").append(head).append("</th>");
        }
        for (String head : List.of(
                "NormCL ms", "GB/s", "of the copy", "oneDNN ms", "ratio", "its best ms", "ratio", "PyTorch ms", "ratio",
                "error", "oneDNN's", "PyTorch's")) {
            page.append("<th>").append(head).append("</th>");
        }
        page.append("</tr>\n");
        for (Result r : results) {
            page.append("<tr>");
            for (String text : List.of(
                    r.timed().name(),
                    PeerBench.lower(r.pass()).replace('_', ' '),
                    PeerBench.lower(r.timed().layout()).replace('_', ' '),
                    r.timed().shapeName())) {
                page.append("<td class=\"text\">").append(escaped(text)).append("</td>");
            }
            cell(page, "", number("%.3f", median(r, Result.NORMCL)));
            cell(page, "", number("%.1f", r.gigabytes(Result.NORMCL)));
            cell(page, "", number("%.2f", r.fraction()));
            for (String peer : PEERS) {
                Double ratio = r.ratio(peer);
                if (ratio == null) {
                    String why = r.remarks().getOrDefault(peer.equals(Result.ONEDNN_BEST) ? Result.ONEDNN : peer, "");
                    cell(page, "", escaped(why));
                    cell(page, "", "");
                } else {
                    cell(page, "", number("%.3f", median(r, peer)));
                    cell(page, ratio < 1 ? "slow" : "", number("%.2f", ratio));
                }
            }
            for (String library : List.of(Result.NORMCL, Result.ONEDNN, Result.PYTORCH)) {
                cell(page, "", error(r, library));
            }
            page.append("</tr>\n");
        }
        page.append("</table>\n");
    }

    private static void cell(StringBuilder page, String style, String text) {
        page.append(style.isEmpty() ? "<td>" : "<td class=\"" + style + "\">").append(text).append("</td>");
    }

    private static double median(Result r, String library) {
        return Objects.requireNonNull(r.millis().get(library)).median();
    }

    /** Bytes a second over the tensor's size, under the roof that the copy is. */
    private static void picture(StringBuilder page, Pass pass, List<Result> results) {
        double least = Double.MAX_VALUE;
        double most = 0;
        double top = 0;
        for (Result r : results) {
            least = Math.min(least, (double) r.timed().tensorBytes());
            most = Math.max(most, (double) r.timed().tensorBytes());
            top = Math.max(top, r.copy());
            for (String library : COLORS.keySet()) {
                top = r.millis().containsKey(library) ? Math.max(top, r.gigabytes(library)) : top;
            }
        }
        if (results.isEmpty()) {
            return;
        }
        double left = Math.log(least) - 0.2;
        double wide = Math.log(most) + 0.2 - left;
        page.append(String.format(
                Locale.ROOT,
                "<svg width=\"%d\" height=\"%d\" font-size=\"12\" font-family=\"sans-serif\"><text x=\"%d\" y=\"16\""
                        + " font-size=\"14\">%s: GB/s over MB of a tensor</text>%n",
                WIDTH,
                HEIGHT,
                EDGE,
                PeerBench.lower(pass).replace('_', ' ')));
        page.append(String.format(
                Locale.ROOT,
                "<path d=\"M%1$d %1$d V%2$d H%3$d\" fill=\"none\" stroke=\"#444\"/>%n",
                EDGE,
                HEIGHT - EDGE,
                WIDTH - 10));
        for (int i = 0; i <= 4; i++) {
            page.append(String.format(
                    Locale.ROOT,
                    "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.3g</text>%n",
                    EDGE - 5,
                    y(top * i / 4, top) + 4,
                    top * i / 4));
            double bytes = Math.exp(left + wide * i / 4);
            page.append(String.format(
                    Locale.ROOT,
                    "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.3g</text>%n",
                    x(bytes, left, wide),
                    HEIGHT - EDGE + 16,
                    bytes / 1e6));
        }
        for (Result r : results) {
            double x = x((double) r.timed().tensorBytes(), left, wide);
            double roof = y(r.copy(), top);
            page.append(String.format(
                    Locale.ROOT,
                    "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#000\"/>%n",
                    x - 8,
                    x + 8,
                    roof,
                    roof));
            for (Map.Entry<String, String> library : COLORS.entrySet()) {
                if (r.millis().containsKey(library.getKey())) {
                    page.append(String.format(
                            Locale.ROOT,
                            "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\" fill=\"%s\" fill-opacity=\"0.7\"><title>%s"
                                    + "</title></circle>%n",
                            x,
                            y(r.gigabytes(library.getKey()), top),
                            library.getValue(),
                            escaped(library.getKey() + " " + r.timed())));
                }
            }
        }
        int at = EDGE;
        for (String library : List.of(Result.NORMCL, Result.ONEDNN, Result.PYTORCH)) {
            page.append(String.format(
                    Locale.ROOT,
                    "<circle cx=\"%d\" cy=\"%d\" r=\"4\" fill=\"%s\"/><text x=\"%d\" y=\"%d\">%s</text>%n",
                    at,
                    HEIGHT - 14,
                    COLORS.get(library),
                    at + 8,
                    HEIGHT - 10,
                    library));
            at += 90;
        }
        page.append(String.format(
                Locale.ROOT,
                "<line x1=\"%d\" x2=\"%d\" y1=\"%d\" y2=\"%d\" stroke=\"#000\"/><text x=\"%d\" y=\"%d\">the copy</text>"
                        + "</svg>%n",
                at - 8,
                at + 8,
                HEIGHT - 14,
                HEIGHT - 14,
                at + 14,
                HEIGHT - 10));
    }

    private static double x(double bytes, double left, double wide) {
        return EDGE + (Math.log(bytes) - left) / wide * (WIDTH - 20 - EDGE);
    }

    private static double y(double gigabytes, double top) {
        return HEIGHT - EDGE - gigabytes / top * (HEIGHT - 2 * EDGE);
    }

    private static final String EXPLANATION = "A ratio says how many times as fast NormCL is, the median of the rounds';"
            + " below 1 it is coloured. All libraries work on the same memory, round by round in turn, with outputs that are there"
            + " beforehand; where PyTorch's operators make these by copying it is also timed with outputs of its own, the same"
            + " memory each time, and the faster counts. oneDNN's best is the faster of the same layout and, for channels-first"
            + " batch norm, of channels last or in blocks of 16, without the reordering. GB/s count the bytes that NormCL's plan"
            + " needs, for every library; the copy is NormCL's own, the faster of plain and streaming stores. What takes a peer more than a second is timed once. Errors are"
            + " the largest against double over the largest value, of a backward the worst of dx, dGamma and dBeta;"
            + " oneDNN 3.13's backward of RMS norm also takes off the mean of gamma·dy, as layer norm's does, which is its"
            + " large error there.";

    private static String escaped(String text) {
        return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;");
    }

    private static String number(String format, double value) {
        return String.format(Locale.ROOT, format, value);
    }
}
