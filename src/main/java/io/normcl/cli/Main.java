package io.normcl.cli;

import io.normcl.device.DeviceException;
import java.io.PrintWriter;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.IVersionProvider;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.ScopeType;

/** The command {@code normcl}. */
@Command(
        name = "normcl",
        description = "Neural-network normalization on any OpenCL device.",
        subcommands = {
            DevicesCommand.class,
            VerifyCommand.class,
            TrainCommand.class,
            DemoCommand.class,
            BenchCommand.class,
            TuneCommand.class
        },
        mixinStandardHelpOptions = true,
        versionProvider = Main.Version.class,
        scope = ScopeType.INHERIT)
public final class Main {
    /** The exit code where something failed. */
    static final int FAILED = 1;

    /** The exit code where what was asked can't be done. */
    static final int REFUSED = 2;

    /** The exit code after Ctrl-C: 128 and the signal's number. */
    static final int INTERRUPTED = 130;

    private static final int PATIENCE_SECONDS = 30;

    @Option(
            names = "--verbose",
            scope = ScopeType.INHERIT,
            description = "Where something fails, print the whole stack trace and the driver's log.")
    private boolean verbose;

    private final CountDownLatch ended = new CountDownLatch(1);
    private volatile boolean training;
    private volatile boolean stopped;

    /** What picocli builds. */
    Main() {}

    /**
     * Runs a command and ends the process with its exit code.
     *
     * @param args the command and its options
     */
    public static void main(String... args) {
        System.setProperty("logback.configurationFile", "io/normcl/cli/logback.xml");
        System.setProperty("java.awt.headless", "true");
        System.setProperty("jdk.console", "java.base"); // a console that is null where there is no terminal
        // JOCL unpacks its natives to one name, on which several processes at once can crash.
        System.setProperty("uniqueLibraryNames", "true");
        PrintWriter out = new PrintWriter(System.out, true, StandardCharsets.UTF_8);
        PrintWriter err = new PrintWriter(System.err, true, StandardCharsets.UTF_8);
        Main main = new Main();
        Runtime.getRuntime().addShutdownHook(new Thread(main::stop, "stop"));
        int exit = run(main, out, err, args);
        main.ended.countDown();
        System.exit(exit);
    }

    /** Ctrl-C: lets what is being trained end after its step, and say so. */
    private void stop() {
        stopped = true;
        try {
            if (training && !ended.await(PATIENCE_SECONDS, TimeUnit.SECONDS)) {
                System.err.println("normcl: stopped in the middle of a step");
            }
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    /** Something is trained from now on that asks, after each step, whether it is to stop. */
    Progress progress(PrintWriter out) {
        training = true;
        return new Progress(out, () -> stopped);
    }

    /** Runs a command: what it finds goes to out, what went wrong to err, in one line. */
    static int run(PrintWriter out, PrintWriter err, String... args) {
        return run(new Main(), out, err, args);
    }

    private static int run(Main main, PrintWriter out, PrintWriter err, String... args) {
        return new CommandLine(main)
                .setOut(out)
                .setErr(err)
                .setCaseInsensitiveEnumValuesAllowed(true)
                .setParameterExceptionHandler((e, given) -> refused(e, err))
                .setExecutionExceptionHandler((e, command, parsed) -> main.failed(e, err))
                .execute(args);
    }

    private static int refused(ParameterException e, PrintWriter err) {
        String command = e.getCommandLine().getCommandSpec().qualifiedName();
        err.println(oneLine(e) + " (see " + command + " --help)");
        return REFUSED;
    }

    private int failed(Exception e, PrintWriter err) {
        if (verbose) {
            e.printStackTrace(err);
            if (e instanceof DeviceException driver) {
                err.println(driver.details());
            }
        }
        boolean told = e instanceof DeviceException
                || e instanceof IllegalArgumentException
                || e instanceof java.io.IOException
                || e instanceof ArithmeticException
                || e instanceof CancellationException;
        err.println(oneLine(e) + (told || verbose ? "" : " (an error in normcl itself: --verbose says where)"));
        return e instanceof CancellationException
                ? INTERRUPTED
                : e instanceof IllegalArgumentException ? REFUSED : FAILED;
    }

    private static String oneLine(Exception e) {
        @Nullable String message = e.getMessage();
        return "normcl: "
                + (message == null ? e.toString() : message).lines().findFirst().orElse("");
    }

    /** Tells the version from the jar's manifest. */
    static final class Version implements IVersionProvider {
        @Override
        public String[] getVersion() {
            String version = Main.class.getPackage().getImplementationVersion();
            return new String[] {"normcl " + (version == null ? "(unpackaged)" : version)};
        }
    }
}
