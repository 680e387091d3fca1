package io.normcl.cli;

import io.normcl.device.Device;
import io.normcl.lab.Findings;
import io.normcl.lab.Report;
import io.normcl.lab.SyncComparison;
import io.normcl.train.FashionMnist;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParentCommand;
import picocli.CommandLine.Spec;

/** {@code normcl demo}: shows what synchronized batch norm does, and checks it. */
@Command(
        name = "demo",
        description = "Train the same network on one device, on several with local and with synchronized batch norm,"
                + " and compare.",
        sortOptions = false,
        exitCodeListHeading = "Exit code: ",
        exitCodeList = {
            "0:synchronized training agrees with one device's",
            "1:it does not, or something failed",
            "2:something can't be done as asked"
        })
final class DemoCommand implements Callable<Integer> {
    @ParentCommand
    @SuppressWarnings("NullAway.Init") // picocli's
    private Main main;

    @Spec
    @SuppressWarnings("NullAway.Init") // picocli's
    private CommandSpec spec;

    @Option(
            names = "--devices",
            paramLabel = "DEVICES",
            description = "As cpu, gpu, an index, a part of the name; cpu:4 for four; a comma between several."
                    + " Default: ${DEFAULT-VALUE}")
    private String devices = "cpu:4";

    @Option(
            names = "--batch-per-device",
            paramLabel = "N",
            description = "Samples of a batch on each device. Default: ${DEFAULT-VALUE}")
    private int batchPerDevice = 2;

    @Option(names = "--epochs", paramLabel = "N", description = "Default: ${DEFAULT-VALUE}")
    private int epochs = 1;

    @Option(
            names = "--samples",
            paramLabel = "N",
            description = "How many pictures to train on. Default: ${DEFAULT-VALUE}")
    private int samples = 12_000;

    @Option(
            names = "--seed",
            paramLabel = "N",
            description = "Of the initial weights and the order of the samples. Default: ${DEFAULT-VALUE}")
    private long seed = 1;

    @Option(names = "--data", paramLabel = "FOLDER", description = "The four IDX files. Default: ${DEFAULT-VALUE}")
    private Path data = FashionMnist.DEBIAN;

    @Option(
            names = "--out",
            paramLabel = "FOLDER",
            description = "Where the report and the figures are written. Default: ${DEFAULT-VALUE}")
    private Path out = Path.of("out", "demo");

    @Override
    public Integer call() throws IOException {
        PrintWriter print = spec.commandLine().getOut();
        long start = System.nanoTime();
        OutputFolder.prepare(out);
        FashionMnist pictures = FashionMnist.read(data);
        List<Device> opened = Device.open(devices);
        Findings findings;
        try (Progress progress = main.progress(print)) {
            print.println("comparing on " + opened);
            SyncComparison.Setup setup = new SyncComparison.Setup(batchPerDevice, epochs, samples, seed);
            findings = SyncComparison.run(opened, pictures, setup, progress);
        } finally {
            opened.forEach(Device::close);
        }
        Report.write(out, findings);
        print.println();
        print.print(Report.table(findings));
        print.println();
        Report.verdict(findings).forEach(print::println);
        print.println(String.format(
                Locale.ROOT, "report: %s (%.0f s)", out.resolve("report.html"), (System.nanoTime() - start) / 1e9));
        print.flush();
        if (!findings.passed()) {
            spec.commandLine().getErr().println("normcl: the demonstration failed its own checks");
        }
        return findings.passed() ? 0 : Main.FAILED;
    }
}
