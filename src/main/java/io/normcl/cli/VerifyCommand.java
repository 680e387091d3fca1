package io.normcl.cli;

import io.normcl.device.Description;
import io.normcl.device.Device;
import io.normcl.verify.ConformanceCases;
import io.normcl.verify.Finding;
import io.normcl.verify.Verdict.Outcome;
import io.normcl.verify.Verification;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.stream.Collectors;
import me.tongfei.progressbar.ProgressBar;
import me.tongfei.progressbar.ProgressBarBuilder;
import me.tongfei.progressbar.ProgressBarStyle;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** {@code normcl verify}: runs cases computed elsewhere and says which the device gets right. */
@Command(
        name = "verify",
        description = "Run cases whose right results are known, in both families of kernels, and name each that fails,"
                + " that misses its tight tolerance, or that is less exact than PyTorch in float.",
        sortOptions = false,
        exitCodeListHeading = "Exit code: ",
        exitCodeList = {
            "0:every case passed, but for those that can't be done in float",
            "1:one did not, or something failed",
            "2:something can't be done as asked"
        })
final class VerifyCommand implements Callable<Integer> {
    @Spec
    @SuppressWarnings("NullAway.Init") // picocli's
    private CommandSpec spec;

    @Parameters(paramLabel = "CASES", description = "A folder of case folders, or a zip archive of one.")
    @SuppressWarnings("NullAway.Init") // picocli's
    private Path place;

    @Option(
            names = "--device",
            paramLabel = "DEVICE",
            description = "As cpu, gpu, an index or a part of the name; opened as often as a case has replicas."
                    + " Default: ${DEFAULT-VALUE}")
    private String device = "cpu";

    @Option(
            names = "--out",
            paramLabel = "FOLDER",
            description =
                    "Write what was computed: FOLDER/<case>/<tensor>.npy, or ERROR.txt or SKIP.txt; where a family"
                            + " of kernels fails, what the first such computed.")
    private @Nullable Path out;

    @Override
    public Integer call() throws IOException {
        try (ConformanceCases cases = open(place)) {
            if (out != null) {
                OutputFolder.prepare(out);
            }
            List<Device> devices = new ArrayList<>(Device.open(device));
            try {
                int replicas = cases.mostReplicas();
                while (devices.size() < replicas) {
                    devices.addAll(Device.open(device));
                }
                return verify(cases, devices) ? 0 : Main.FAILED;
            } finally {
                devices.forEach(Device::close);
            }
        }
    }

    private static ConformanceCases open(Path place) {
        try {
            return ConformanceCases.open(place);
        } catch (IOException e) {
            throw new IllegalArgumentException("cases are needed that can be read: " + e.getMessage(), e);
        }
    }

    private boolean verify(ConformanceCases cases, List<Device> devices) throws IOException {
        PrintWriter print = spec.commandLine().getOut();
        print.println(devices.stream()
                .map(Device::description)
                .distinct()
                .map(Description::toString)
                .collect(Collectors.joining(", ")));
        Verification verification = new Verification(devices);
        List<Finding> findings = new ArrayList<>();
        boolean terminal = Progress.isTerminal();
        try (ProgressBar bar = terminal ? bar(cases.names().size()) : null) {
            for (String name : cases.names()) {
                Finding finding = verification.run(cases, name);
                findings.add(finding);
                if (out != null) {
                    Verification.write(finding, out);
                }
                if (bar == null) {
                    finding.lines().forEach(print::println);
                } else {
                    bar.step(); // and lines afterwards: the bar would overwrite them
                }
            }
        }
        if (terminal) {
            findings.forEach(finding -> finding.lines().forEach(print::println));
        }
        Finding.totals(findings).forEach(print::println);
        return findings.stream().noneMatch(finding -> finding.outcome() == Outcome.FAILED);
    }

    private static ProgressBar bar(int cases) {
        return new ProgressBarBuilder()
                .setTaskName("cases")
                .setInitialMax(cases)
                .setStyle(ProgressBarStyle.ASCII)
                .build();
    }
}
