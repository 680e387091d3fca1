package io.normcl.lab;

import io.normcl.lab.Findings.Check;
import io.normcl.lab.Findings.Point;
import io.normcl.lab.Findings.Run;
import java.awt.Color;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.function.ToDoubleFunction;
import org.knowm.xchart.ChartEncoder;
import org.knowm.xchart.XYChart;
import org.knowm.xchart.XYChartBuilder;
import org.knowm.xchart.XYSeries;
import org.knowm.xchart.style.markers.SeriesMarkers;

/**
 * Tells what a comparison found: a table for the terminal, and a folder with {@code report.html}, which needs no other
 * file, the curves as {@code loss.png}, {@code accuracy.png} and {@code agreement.png}, and every figure in
 * {@code runs.csv}, {@code curves.csv} and {@code checks.csv}.
 */
public final class Report {
    /** A run has one colour in every picture (Okabe and Ito's, which colour-blind people tell apart). */
    private static final Map<String, Color> COLORS = Map.of(
            SyncComparison.ONE, new Color(0x0072B2),
            SyncComparison.LOCAL, new Color(0xD55E00),
            SyncComparison.SYNC, new Color(0x009E73),
            SyncComparison.CONTROL, new Color(0xCC79A7));

    private static final double SMALLEST = 1e-12; // a difference of 0 has no place on a logarithmic axis

    private Report() {}

    /**
     * The table that the terminal and the page show.
     *
     * @param findings what was found
     * @return lines, the last with a line break
     */
    public static String table(Findings findings) {
        StringBuilder table = new StringBuilder();
        for (String[] row : rows(findings)) {
            table.append(String.format("%-13s %6s %9s %9s | %9s %9s %10s | %9s %10s | %9s%n", (Object[]) row));
        }
        return table.toString();
    }

    private static List<String[]> rows(Findings findings) {
        List<String[]> rows = new ArrayList<>();
        rows.add(new String[] {"", "", "test", "test", "worst", "single", "step", "distance", "at end", "samples"});
        rows.add(new String[] {
            "run", "loss", "loss", "accuracy", "output", "gradients", "statistics", "weights", "statistics", "a second"
        });
        for (Run run : findings.runs()) {
            boolean one = run.equals(findings.one());
            rows.add(new String[] {
                run.name(),
                number("%.3f", run.loss()),
                number("%.3f", run.testLoss()),
                percent(run.accuracy()),
                one ? "" : number("%.1e", run.worst(Check::output)),
                one ? "" : number("%.1e", run.worst(Check::gradients)),
                one ? "" : number("%.1e", run.worst(Check::statistics)),
                one ? "" : number("%.3g", run.weightDistance()),
                one ? "" : number("%.3g", run.statisticsDistance()),
                number("%.0f", run.samplesPerSecond())
            });
        }
        return rows;
    }

    /**
     * Whether each check held, a line each.
     *
     * @param findings what was found
     * @return two lines
     */
    public static List<String> verdict(Findings findings) {
        return List.of(
                (findings.stepsAgree() ? "passed" : "FAILED")
                        + number(": every synchronized step is the one device's to %.0e", Findings.STEP_LIMIT)
                        + number(" (worst %.1e,", findings.sync().worst())
                        + number(" local %.1e)", findings.local().worst()),
                (findings.endsNear() ? "passed" : "FAILED")
                        + number(
                                ": the synchronized run ends within %.0f times the control's distance",
                                Findings.DISTANCE_LIMIT)
                        + number(" (%.3g", findings.sync().weightDistance())
                        + number(" to %.3g)", findings.control().weightDistance()));
    }

    /** What the curves show, by the figures. */
    static String summary(Findings f) {
        int k = f.devices().size();
        int each = f.setup().batchPerDevice();
        StringBuilder text = new StringBuilder();
        text.append(String.format(
                Locale.ROOT,
                "The same network, from the same seed, learned for %,d steps from batches of %d pictures. On one device"
                        + " it ends with %s of the test pictures recognized. Shared out over %d devices, %d to each, it"
                        + " ends with %s where each device normalizes by its own samples (local) and with %s where all"
                        + " normalize by the whole batch (synchronized). ",
                f.steps(),
                k * each,
                percent(f.one().accuracy()),
                k,
                each,
                percent(f.local().accuracy()),
                percent(f.sync().accuracy())));
        text.append(
                f.localStandsApart()
                        ? String.format(
                                Locale.ROOT,
                                "Local batch norm stands apart, %.0f points behind synchronized, with a training loss of"
                                        + " %.2f against %.2f: the statistics of %d samples are not those of %d. ",
                                100 * (f.sync().accuracy() - f.local().accuracy()),
                                f.local().loss(),
                                f.sync().loss(),
                                each,
                                k * each)
                        : "Here local batch norm does not stand apart from synchronized: with this many samples a"
                                + " device, or this short a run, the difference does not show in the test accuracy. ");
        text.append(String.format(
                Locale.ROOT,
                "A single synchronized step from the one device's weights differs from the one device's by %.1e at"
                        + " worst, a local one by %.1e; the limit for synchronized is %.0e, which it %s. ",
                f.sync().worst(),
                f.local().worst(),
                Findings.STEP_LIMIT,
                f.stepsAgree() ? "keeps" : "BREAKS"));
        text.append(String.format(
                Locale.ROOT,
                "Whole runs drift apart from any difference in rounding: reversing the order of each batch (control)"
                        + " moves the final weights by %.3g, synchronizing by %.3g, which is %s the %.0f times that are"
                        + " allowed. ",
                f.control().weightDistance(),
                f.sync().weightDistance(),
                f.endsNear() ? "within" : "MORE THAN",
                Findings.DISTANCE_LIMIT));
        return text.append(f.passed() ? "Both checks passed." : "The demonstration FAILED.")
                .toString();
    }

    /**
     * Writes the folder.
     *
     * @param folder where to; made if it is not there, files of these names are replaced
     * @param findings what was found
     * @throws IOException if a file can't be written
     */
    public static void write(Path folder, Findings findings) throws IOException {
        Files.createDirectories(folder);
        byte[] loss = curve(findings, "Training loss", Point::loss);
        byte[] accuracy = curve(findings, "Test accuracy in evaluation mode", Point::accuracy);
        byte[] agreement = agreement(findings);
        Files.write(folder.resolve("loss.png"), loss);
        Files.write(folder.resolve("accuracy.png"), accuracy);
        Files.write(folder.resolve("agreement.png"), agreement);
        Files.writeString(folder.resolve("runs.csv"), runs(findings));
        Files.writeString(folder.resolve("curves.csv"), curves(findings));
        Files.writeString(folder.resolve("checks.csv"), checks(findings));
        Files.writeString(folder.resolve("report.html"), page(findings, accuracy, loss, agreement));
    }

    private static byte[] curve(Findings findings, String title, ToDoubleFunction<Point> side) throws IOException {
        XYChart chart = chart(title, "step");
        for (Run run : findings.runs()) {
            double[] steps = run.curve().stream().mapToDouble(Point::step).toArray();
            double[] values = run.curve().stream().mapToDouble(side).toArray();
            add(chart, run.name(), steps, values);
        }
        return png(chart);
    }

    private static byte[] agreement(Findings findings) throws IOException {
        XYChart chart = chart("Single steps: difference from the one device's", "step");
        chart.getStyler().setYAxisLogarithmic(true);
        chart.getStyler().setYAxisDecimalPattern("0E0");
        for (Run run : List.of(findings.local(), findings.sync(), findings.control())) {
            double[] steps = run.checks().stream().mapToDouble(Check::step).toArray();
            double[] values = run.checks().stream()
                    .mapToDouble(check -> Math.max(check.worst(), SMALLEST))
                    .toArray();
            add(chart, run.name(), steps, values);
        }
        double last =
                findings.one().curve().stream().mapToDouble(Point::step).max().orElse(1);
        add(chart, "limit", new double[] {0, last}, new double[] {Findings.STEP_LIMIT, Findings.STEP_LIMIT});
        return png(chart);
    }

    private static XYChart chart(String title, String x) {
        XYChart chart = new XYChartBuilder()
                .width(720)
                .height(400)
                .title(title)
                .xAxisTitle(x)
                .build();
        chart.getStyler().setXAxisDecimalPattern("#,##0");
        chart.getStyler().setChartBackgroundColor(Color.WHITE);
        return chart;
    }

    /** A curve without the points that no picture can show. */
    private static void add(XYChart chart, String name, double[] xs, double[] ys) {
        List<Double> x = new ArrayList<>();
        List<Double> y = new ArrayList<>();
        for (int i = 0; i < xs.length; i++) {
            if (Double.isFinite(ys[i])) {
                x.add(xs[i]);
                y.add(ys[i]);
            }
        }
        if (!x.isEmpty()) {
            XYSeries series = chart.addSeries(name, x, y);
            series.setLineColor(COLORS.getOrDefault(name, Color.GRAY));
            series.setMarkerColor(COLORS.getOrDefault(name, Color.GRAY));
            series.setMarker(xs.length > 2 ? SeriesMarkers.CIRCLE : SeriesMarkers.NONE);
        }
    }

    private static byte[] png(XYChart chart) throws IOException {
        return ChartEncoder.getBytes(chart, "png");
    }

    private static String runs(Findings findings) {
        StringBuilder csv = new StringBuilder("run,loss,test_loss,test_accuracy,worst_output,worst_gradients,"
                + "worst_running_statistics,weight_distance,running_statistics_distance,samples_per_second\n");
        for (Run run : findings.runs()) {
            csv.append(run.name());
            for (double value : new double[] {
                run.loss(),
                run.testLoss(),
                run.accuracy(),
                run.worst(Check::output),
                run.worst(Check::gradients),
                run.worst(Check::statistics),
                run.weightDistance(),
                run.statisticsDistance(),
                run.samplesPerSecond()
            }) {
                csv.append(',').append(value);
            }
            csv.append('\n');
        }
        return csv.toString();
    }

    private static String curves(Findings findings) {
        StringBuilder csv = new StringBuilder("run,step,loss,test_accuracy\n");
        for (Run run : findings.runs()) {
            for (Point point : run.curve()) {
                csv.append(run.name() + "," + point.step() + "," + point.loss() + "," + point.accuracy() + "\n");
            }
        }
        return csv.toString();
    }

    private static String checks(Findings findings) {
        StringBuilder csv = new StringBuilder("run,step,output,gradients,running_statistics\n");
        for (Run run : findings.runs()) {
            for (Check check : run.checks()) {
                csv.append(run.name() + "," + check.step() + "," + check.output() + "," + check.gradients() + ","
                        + check.statistics() + "\n");
            }
        }
        return csv.toString();
    }

    private static String page(Findings findings, byte[]... pictures) {
        StringBuilder page = new StringBuilder();
        page.append("""
                <!DOCTYPE html>
                <html lang="en">
                <head>
                <meta charset="utf-8">
                <title>Synchronized batch norm</title>
                <style>
                body { font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; }
                pre { overflow-x: auto; background: #f4f4f4; padding: 1em; font-size: 13px; }
                img { max-width: 100%; }
                </style>
                </head>
                <body>
                <h1>Synchronized batch norm</h1>
                """);
        page.append("<p>").append(escaped(summary(findings))).append("</p>\n<pre>");
        page.append(escaped(table(findings))).append("</pre>\n<ul>\n");
        verdict(findings)
                .forEach(line -> page.append("<li>").append(escaped(line)).append("</li>\n"));
        page.append("</ul>\n");
        for (byte[] picture : pictures) {
            page.append("<p><img alt=\"curves\" src=\"data:image/png;base64,")
                    .append(Base64.getEncoder().encodeToString(picture))
                    .append("\"></p>\n");
        }
        page.append("<p>").append(escaped(EXPLANATION)).append("</p>\n<p>");
        page.append(escaped("Devices: " + String.join(", ", findings.devices()) + ". Samples: "
                + findings.setup().samples() + ", epochs: " + findings.setup().epochs() + ", seed: "
                + findings.setup().seed() + "."));
        return page.append("</p>\n</body>\n</html>\n").toString();
    }

    private static final String EXPLANATION = "The columns: loss is the mean training loss of the last part of the run;"
            + " test loss and accuracy are of all test pictures in evaluation mode, with the first replica's running"
            + " statistics. A single step begins with the one device's weights and running statistics and takes its"
            + " batch; output, gradients and statistics are the L2 distances of its logits, gradients and running"
            + " statistics from the one device's, relative to their length there, the worst of all steps looked at."
            + " Distance at end is the L2 distance of all weights, and of the running statistics, from the one"
            + " device's. Samples a second leave out the first step, which compiles the kernels.";

    private static String escaped(String text) {
        return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;");
    }

    private static String percent(double share) {
        return number("%.1f %%", 100 * share);
    }

    private static String number(String format, double value) {
        return String.format(Locale.ROOT, format, value);
    }
}
