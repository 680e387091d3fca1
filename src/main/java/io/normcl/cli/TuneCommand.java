package io.normcl.cli;

import io.normcl.TuningFile;
import io.normcl.bench.BenchCase;
import io.normcl.bench.Suite;
import io.normcl.bench.Tuner;
import io.normcl.bench.Tuner.Choice;
import io.normcl.device.Device;
import io.normcl.plan.Tuned;
import io.normcl.plan.Tuning;
import io.normcl.tensor.DataType;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.Callable;
import me.tongfei.progressbar.ProgressBar;
import me.tongfei.progressbar.ProgressBarBuilder;
import me.tongfei.progressbar.ProgressBarStyle;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** {@code normcl tune}: finds out what a device's plans had better choose, and keeps it for all layers opened later. */
@Command(
        name = "tune",
        description =
                "Time, on one device, what plans may choose (the family of kernels, one launch or several,"
                        + " whether stores past the caches pay, the sizes of vectors, groups and cuts) for the shapes of a suite of"
                        + " normcl bench. What is faster than the plan's own choice is kept in the user's configuration folder, for all layers opened later on that device.",
        sortOptions = false)
final class TuneCommand implements Callable<Integer> {
    @Spec
    @SuppressWarnings("NullAway.Init") // picocli's
    private CommandSpec spec;

    @Option(names = "--suite", paramLabel = "SUITE", description = "cnn, rows, small or all. Default: ${DEFAULT-VALUE}")
    private String suite = "all";

    @Option(
            names = "--device",
            paramLabel = "DEVICE",
            description = "As cpu, gpu, an index or a part of the name. Default: ${DEFAULT-VALUE}")
    private String device = "cpu";

    @Option(
            names = "--dtype",
            split = ",",
            paramLabel = "TYPE",
            description = "How tensors are stored: ${COMPLETION-CANDIDATES}. Default: FLOAT")
    private List<DataType> types = List.of(DataType.FLOAT);

    @Option(names = "--rounds", paramLabel = "N", description = "Default: ${DEFAULT-VALUE}")
    private int rounds = 11;

    @Option(names = "--show", description = "Instead: print what is kept for the device.")
    private boolean show;

    @Option(names = "--reset", description = "Instead: delete what is kept for the device.")
    private boolean reset;

    @Override
    public Integer call() throws IOException {
        if (rounds < 1) {
            throw new IllegalArgumentException("there must be at least one round: --rounds=" + rounds);
        }
        if (show && reset) {
            throw new IllegalArgumentException("what is kept is either shown or deleted: --show, --reset");
        }
        Suite.of(suite);
        List<Device> opened = Device.open(device);
        try {
            if (opened.size() > 1) {
                throw new IllegalArgumentException("one device is tuned at a time: --device=" + device);
            }
            PrintWriter out = spec.commandLine().getOut();
            out.println(opened.get(0).description());
            TuningFile file = TuningFile.of(opened.get(0));
            if (reset) {
                out.println((Files.deleteIfExists(file.path()) ? "deleted: " : "there is none: ") + file.path());
            } else if (show) {
                show(file, out);
            } else {
                tune(opened.get(0), file, out);
            }
        } finally {
            opened.forEach(Device::close);
        }
        return 0;
    }

    private static void show(TuningFile file, PrintWriter out) {
        Map<String, String> lines = file.read().lines();
        lines.forEach((name, words) -> out.println(String.format(Locale.ROOT, "%-48s %s", name, words)));
        out.println(lines.size() + " classes of shapes in " + file.path());
    }

    private void tune(Device tuned, TuningFile file, PrintWriter out) throws IOException {
        Tuner tuner = new Tuner(tuned, rounds);
        OutputFolder.prepare("configuration folder", file.path().resolveSibling(""));
        List<String> skipped = new ArrayList<>();
        List<BenchCase> cases = new ArrayList<>();
        types.forEach(type -> Suite.of(suite).cases().forEach(timed -> cases.add(timed.withType(type))));
        try (ProgressBar bar = Progress.isTerminal() ? bar(cases.size()) : null) {
            for (BenchCase timed : cases) {
                tuner.measure(timed, skipped::add);
                if (bar == null) {
                    out.println("timed " + timed);
                } else {
                    bar.step(); // and lines afterwards: the bar would overwrite them
                }
            }
        }
        skipped.forEach(spec.commandLine().getErr()::println);
        List<Choice> choices = tuner.choices();
        Tuner.keep(file, choices);
        int changed = 0;
        for (Choice choice : choices) {
            if (!choice.tuning().equals(Tuning.NONE)) {
                changed++;
                out.println(String.format(
                        Locale.ROOT,
                        "%-48s %5.2f times as fast: %s",
                        choice.shapes(),
                        choice.gain(),
                        Tuned.words(choice.tuning())));
            }
        }
        out.println("faster than the plan's own choice: " + changed + " of " + choices.size()
                + " classes of shapes, kept in " + file.path());
    }

    private static ProgressBar bar(int cases) {
        return new ProgressBarBuilder()
                .setTaskName("cases")
                .setInitialMax(cases)
                .setStyle(ProgressBarStyle.ASCII)
                .build();
    }
}
