package io.normcl.cli;

import io.normcl.bench.BenchCase;
import io.normcl.bench.BenchCase.Op;
import io.normcl.bench.BenchCase.Pass;
import io.normcl.bench.HostWarmUp;
import io.normcl.bench.LayerBench;
import io.normcl.bench.Listing;
import io.normcl.bench.Suite;
import io.normcl.bench.SyncBench;
import io.normcl.device.Device;
import io.normcl.plan.Family;
import io.normcl.plan.Tuning;
import io.normcl.tensor.Activation;
import io.normcl.tensor.DataType;
import io.normcl.tensor.Layout;
import java.io.PrintWriter;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** {@code normcl bench}: how long the passes of layers take, beside a copy of the same tensor. */
@Command(
        name = "bench",
        description = {
            "Time layers' passes, and in the same rounds a streaming copy of the same tensor. GB/s and the fraction of"
                    + " the copy's count each needed read and write once, as the layer's plan states it.",
            "Without a suite: batch norm, or --op, of one --shape."
        },
        sortOptions = false)
final class BenchCommand implements Callable<Integer> {
    private static final double SLOPE = 0.01;

    @Spec
    @SuppressWarnings("NullAway.Init") // picocli's
    private CommandSpec spec;

    @Parameters(arity = "0..1", paramLabel = "SUITE", description = "cnn, rows, small or all: --suite without the name")
    private @Nullable String suiteName;

    @Option(names = "--suite", paramLabel = "SUITE", description = "cnn, rows, small or all")
    private @Nullable String suiteOption;

    @Option(
            names = "--device",
            paramLabel = "DEVICE",
            description = "As cpu, gpu, an index or a part of the name. Default: ${DEFAULT-VALUE}")
    private String device = "cpu";

    @Option(
            names = "--op",
            split = ",",
            paramLabel = "OP",
            description = "Of a suite these alone: ${COMPLETION-CANDIDATES}")
    private List<Op> ops = List.of();

    @Option(names = "--pass", split = ",", paramLabel = "PASS", description = "These alone: ${COMPLETION-CANDIDATES}")
    private List<Pass> passes = List.of(Pass.values());

    @Option(
            names = "--layout",
            split = ",",
            paramLabel = "LAYOUT",
            description = "Of a suite these alone: ${COMPLETION-CANDIDATES}")
    private List<Layout> layouts = List.of();

    @Option(
            names = "--dtype",
            split = ",",
            paramLabel = "TYPE",
            description = "How tensors are stored: ${COMPLETION-CANDIDATES}; several by turns, but for --cached and"
                    + " --sync. Default: FLOAT")
    private List<DataType> types = List.of(DataType.FLOAT);

    @Option(
            names = "--shape",
            paramLabel = "NxCxHxW",
            description = "Channels second in either layout. Default: 32x64x112x112")
    private @Nullable String shape;

    @Option(
            names = "--groups",
            paramLabel = "N",
            description = "Of group norm. Default: " + BenchCase.GROUPS + ", or 1 per location")
    private @Nullable Integer groups;

    @Option(
            names = "--activation",
            paramLabel = "KIND",
            description = "Fused with the layer: ${COMPLETION-CANDIDATES}. Default: ${DEFAULT-VALUE}")
    private Activation.Kind activation = Activation.Kind.NONE;

    @Option(names = "--residual", description = "Fuse a residual that is added before the activation.")
    private boolean residual;

    @Option(
            names = "--family",
            paramLabel = "FAMILY",
            description = "Which kernels: ${COMPLETION-CANDIDATES}. Default: as the plan chooses")
    private @Nullable Family family;

    @Option(names = "--tuned", description = "Let plans choose as normcl tune has found it best on the device.")
    private boolean tuned;

    @Option(
            names = "--cached",
            description = "Take the same tensors in every round, so that caches hold what fits into them. Else the"
                    + " tensors rotate, over four times the last cache.")
    private boolean cached;

    @Option(names = "--rounds", paramLabel = "N", description = "Default: ${DEFAULT-VALUE}")
    private int rounds = 21;

    @Option(
            names = "--sync",
            split = ",",
            paramLabel = "N",
            description = "Instead: what synchronizing batch norm costs over so many parts of the device, several with"
                    + " commas; the batch is shared out among them.")
    private List<Integer> sync = List.of();

    @Option(
            names = "--format",
            paramLabel = "FORMAT",
            description = "${COMPLETION-CANDIDATES}. Default: ${DEFAULT-VALUE}")
    private Listing.Format format = Listing.Format.TABLE;

    @Override
    public Integer call() {
        Tuning tuning = tuned ? null : Tuning.NONE.withFamily(family);
        LayerBench.Settings settings = new LayerBench.Settings(passes, rounds, cached, tuning);
        PrintWriter out = spec.commandLine().getOut();
        if (rounds < 1) {
            throw new IllegalArgumentException("there must be at least one round: --rounds=" + rounds);
        }
        if (tuned && family != null) {
            throw new IllegalArgumentException(
                    "the family is either given or as tuned: --family=" + family + ", --tuned");
        }
        if (!sync.isEmpty()) {
            synchronize(settings, out);
            return 0;
        }
        List<BenchCase> cases = cases();
        List<Device> opened = Device.open(device);
        try {
            Device first = opened.get(0);
            PrintWriter err = spec.commandLine().getErr();
            if (format == Listing.Format.TABLE) {
                out.println(first.description());
            }
            try (Listing listing = new Listing(out, format, LayerBench.COLUMNS)) {
                HostWarmUp host = new HostWarmUp();
                for (BenchCase timed : cases) {
                    List<BenchCase> ofTypes =
                            types.stream().map(timed::withType).toList();
                    host.of(first, timed);
                    for (List<BenchCase> byTurns :
                            cached ? ofTypes.stream().map(List::of).toList() : List.of(ofTypes)) {
                        LayerBench.run(first, byTurns, settings, row -> listing.add(row.cells()), err::println);
                    }
                }
            }
        } finally {
            opened.forEach(Device::close);
        }
        return 0;
    }

    private void synchronize(LayerBench.Settings settings, PrintWriter out) {
        List<BenchCase> cases = cases().stream()
                .filter(timed -> timed.op() == Op.BATCH_NORM)
                .flatMap(timed -> types.stream().map(timed::withType))
                .toList();
        requireAny(cases);
        if (sync.stream().anyMatch(count -> count < 1)) {
            throw new IllegalArgumentException("parts of a device must be at least one: --sync=" + sync);
        }
        PrintWriter err = spec.commandLine().getErr();
        HostWarmUp host = new HostWarmUp();
        try (Listing listing = new Listing(out, format, SyncBench.COLUMNS)) {
            for (BenchCase timed : cases) {
                for (int count : sync) {
                    List<Device> parts = Device.open(device + ":" + count);
                    try {
                        host.ofSynchronized(parts);
                        SyncBench.run(parts, timed, settings, row -> listing.add(row.cells()), err::println);
                    } finally {
                        parts.forEach(Device::close);
                    }
                }
            }
        }
    }

    private List<BenchCase> cases() {
        String suite = suiteName != null ? suiteName : suiteOption;
        if (suite != null && (shape != null || groups != null || (suiteName != null && suiteOption != null))) {
            throw new IllegalArgumentException("a suite is one, and has its own shapes and groups: suite=" + suite
                    + ", --suite=" + suiteOption + ", --shape=" + shape + ", --groups=" + groups);
        }
        List<BenchCase> cases = (suite == null ? ofShape() : ofSuite(suite))
                .stream().map(timed -> timed.withFused(fused(), residual)).toList();
        requireAny(cases);
        return cases;
    }

    private void requireAny(List<BenchCase> cases) {
        if (cases.isEmpty()) {
            throw new IllegalArgumentException(
                    "a selection must leave something to time: --op=" + ops + ", --layout=" + layouts);
        }
    }

    private List<BenchCase> ofSuite(String suite) {
        return Suite.of(suite).cases().stream()
                .filter(timed -> ops.isEmpty() || ops.contains(timed.op()))
                .filter(timed -> layouts.isEmpty() || layouts.contains(timed.layout()))
                .toList();
    }

    private List<BenchCase> ofShape() {
        List<BenchCase> cases = new ArrayList<>();
        for (Op op : ops.isEmpty() ? List.of(Op.BATCH_NORM) : ops) {
            for (Layout layout : layouts.isEmpty() ? List.of(Layout.CHANNELS_FIRST) : layouts) {
                BenchCase timed = BenchCase.of(op, layout, shape == null ? "32x64x112x112" : shape);
                timed = groups == null ? timed : timed.withGroups(groups);
                if (!cases.contains(timed)) {
                    cases.add(timed);
                }
            }
        }
        return cases;
    }

    private Activation fused() {
        return activation == Activation.Kind.LEAKY_RELU ? Activation.leakyRelu(SLOPE) : new Activation(activation, 0);
    }
}
