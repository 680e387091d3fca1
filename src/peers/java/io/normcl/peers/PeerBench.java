package io.normcl.peers;

import io.normcl.bench.BenchCase;
import io.normcl.bench.BenchCase.Op;
import io.normcl.bench.BenchCase.Pass;
import io.normcl.bench.HostWarmUp;
import io.normcl.bench.Rounds;
import io.normcl.bench.Rounds.Millis;
import io.normcl.bench.Rounds.Rotation;
import io.normcl.bench.Rounds.Work;
import io.normcl.bench.StreamingCopy;
import io.normcl.bench.Suite;
import io.normcl.bench.TensorSets;
import io.normcl.peers.OneDnnContender.Order;
import io.normcl.tensor.Layout;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.stream.Stream;
import org.bytedeco.dnnl.global.dnnl;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.Loader;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.pytorch.global.torch;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/**
 * {@code scripts/bench}: NormCL beside oneDNN and PyTorch, on the same tensors in the same rounds.
 *
 * <p>oneDNN and PyTorch let their threads spin for a while after an operation; before anything is timed, all are let
 * come to rest, so that none takes a core from the next, and what is timed runs once untimed to wake its own.
 */
@Command(
        name = "scripts/bench",
        description = "Time NormCL beside oneDNN and PyTorch on the same tensors in the same rounds, check each result"
                + " against double, and write bench.csv and bench.html.",
        sortOptions = false,
        mixinStandardHelpOptions = true)
public final class PeerBench implements Callable<Integer> {
    private static final double SLOW_MILLIS = 1000;
    private static final int MOST_DIMENSIONS = 5;

    @Option(
            names = "--suite",
            split = ",",
            paramLabel = "SUITE",
            description = "cnn, rows, small or all. Default: cnn,rows")
    private List<String> suites = List.of();

    @Option(
            names = "--shape",
            split = ",",
            paramLabel = "SHAPE",
            description = "Instead: these shapes, as 512x768 (N and C) or 8x64x28x28 (channels second in either layout);"
                    + " group norm where its groups of " + BenchCase.GROUPS + " divide the channels.")
    private List<String> shapes = List.of();

    @Option(names = "--op", split = ",", description = "These alone: ${COMPLETION-CANDIDATES}")
    private List<Op> ops = List.of(Op.values());

    @Option(names = "--layout", split = ",", description = "These alone: ${COMPLETION-CANDIDATES}")
    private List<Layout> layouts = List.of(Layout.values());

    @Option(names = "--rounds", paramLabel = "N", description = "Default: ${DEFAULT-VALUE}")
    private int rounds = 11;

    @Option(
            names = "--rest",
            paramLabel = "MS",
            description = "How long all threads may come to rest before an untimed run and the timed one after it."
                    + " Default: ${DEFAULT-VALUE}")
    private int rest = 20;

    @Option(names = "--out", paramLabel = "FOLDER", description = "Default: ${DEFAULT-VALUE}")
    private Path out = Path.of("out", "bench");

    private PeerBench() {}

    /**
     * Runs and ends the process.
     *
     * @param args as {@code --help} says
     */
    public static void main(String... args) {
        System.exit(new CommandLine(new PeerBench())
                .setCaseInsensitiveEnumValuesAllowed(true)
                .setExecutionExceptionHandler((e, command, parsed) -> {
                    if (e instanceof IllegalArgumentException) {
                        System.err.println("scripts/bench: " + e.getMessage());
                        return 2;
                    }
                    throw e;
                })
                .execute(args));
    }

    @Override
    public Integer call() throws IOException {
        List<Chosen> cases = cases();
        int threads = Runtime.getRuntime().availableProcessors();
        torch.set_num_threads(threads);
        Files.createDirectories(out);
        List<Result> results = new ArrayList<>();
        List<String> about = new ArrayList<>();
        try (NormClContender.Opened opened = NormClContender.Opened.cpu();
                PrintWriter csv = new PrintWriter(
                        Files.newBufferedWriter(out.resolve("bench.csv"), StandardCharsets.UTF_8), true)) {
            var version = dnnl.dnnl_version();
            about.add(opened.device().description().toString());
            about.add("oneDNN " + version.major() + "." + version.minor() + "." + version.patch() + ", PyTorch "
                    + Loader.getVersion("org.bytedeco", "pytorch") + ", " + threads + " threads each, " + rounds + " rounds");
            about.forEach(System.out::println);
            csv.println(Result.HEADER);
            HostWarmUp host = new HostWarmUp();
            for (Chosen chosen : cases) {
                host.of(opened.device(), chosen.timed());
                for (Result result : run(opened, chosen.suite(), chosen.timed())) {
                    results.add(result);
                    csv.println(result.csv());
                    System.out.println(Page.line(result));
                }
            }
        }
        Files.writeString(out.resolve("bench.html"), Page.of(results, about));
        Page.means(results).forEach(System.out::println);
        System.out.println("written: " + out.resolve("bench.html"));
        return 0;
    }

    private record Chosen(Suite suite, BenchCase timed) {}

    private List<Chosen> cases() {
        if (!suites.isEmpty() && !shapes.isEmpty()) {
            throw new IllegalArgumentException(
                    "suites or shapes, not both: --suite=" + suites + ", --shape=" + shapes);
        }
        List<Chosen> cases = (shapes.isEmpty() ? ofSuites() : ofShapes())
                .distinct()
                .filter(chosen -> ops.contains(chosen.timed().op())
                        && layouts.contains(chosen.timed().layout()))
                .toList();
        if (cases.isEmpty() || rounds < 1 || rest < 0) {
            throw new IllegalArgumentException("a selection must leave something to time: --shape=" + shapes + ", --op="
                    + ops + ", --layout=" + layouts + ", --rounds=" + rounds + ", --rest=" + rest);
        }
        for (Chosen chosen : cases) {
            if (chosen.timed().shape().size() > MOST_DIMENSIONS) {
                throw new IllegalArgumentException("oneDNN takes N, C and at most three more: --shape=" + shapes);
            }
        }
        return cases;
    }

    private Stream<Chosen> ofSuites() {
        List<String> names = suites.isEmpty() ? List.of("cnn", "rows") : suites;
        return names.stream()
                .map(Suite::of)
                .flatMap(suite -> suite == Suite.ALL ? Stream.of(Suite.CNN, Suite.ROWS, Suite.SMALL) : Stream.of(suite))
                .flatMap(suite -> suite.cases().stream().map(timed -> new Chosen(suite, timed)));
    }

    private Stream<Chosen> ofShapes() {
        return shapes.stream()
                .flatMap(shape -> Suite.casesOf(shape).stream())
                .map(timed -> new Chosen(timed.shape().size() == 2 ? Suite.ROWS : Suite.CNN, timed));
    }

    private List<Result> run(NormClContender.Opened opened, Suite suite, BenchCase timed) {
        int count = TensorSets.count(timed, opened.device().limits(), false, 1);
        Pointer memory = Pointer.malloc(SharedTensors.bytes(timed, count));
        if (memory == null || memory.isNull()) {
            throw new IllegalStateException("out of memory: bytes=" + SharedTensors.bytes(timed, count));
        }
        List<Contender> contenders = new ArrayList<>();
        try {
            SharedTensors shared = SharedTensors.of(new BytePointer(memory), timed, count);
            NormClContender own = new NormClContender(opened, timed, shared);
            contenders.add(own);
            contenders.add(new OneDnnContender(timed, shared, Order.SAME));
            if (timed.op() == Op.BATCH_NORM
                    && timed.layout() == Layout.CHANNELS_FIRST
                    && timed.shape().get(1) % 16 == 0
                    && timed.shape().size() > 3) {
                contenders.add(new OneDnnContender(timed, shared, Order.BLOCKED));
                contenders.add(new OneDnnContender(timed, shared, Order.LAST));
            }
            contenders.add(new PyTorchContender(timed, shared, true));
            contenders.add(new PyTorchContender(timed, shared, false));
            Map<Thing, Millis> slow = new HashMap<>();
            Map<Pass, Map<String, Double>> errors = errors(timed, shared, contenders, slow);
            List<Result> results = new ArrayList<>();
            for (boolean cached : new boolean[] {false, true}) {
                results.addAll(time(opened, suite, timed, own, contenders, errors, slow, cached ? 1 : count, cached));
            }
            return results;
        } finally {
            contenders.forEach(Contender::close);
            Pointer.free(memory);
        }
    }

    private record Thing(Pass pass, Contender contender) {}

    /** Errors by pass and library; what takes so long that rounds of it would take minutes is timed here, once. */
    private static Map<Pass, Map<String, Double>> errors(
            BenchCase timed, SharedTensors shared, List<Contender> contenders, Map<Thing, Millis> slow) {
        Exact exact = Exact.of(timed, shared);
        Map<Pass, Map<String, Double>> errors = new EnumMap<>(Pass.class);
        for (Pass pass : Pass.values()) {
            Map<String, Double> of = new LinkedHashMap<>();
            for (Contender contender : contenders) {
                Work work = contender.pass(pass);
                if (work != null && !contender.name().equals(Result.ONEDNN_BEST)) {
                    shared.forget();
                    double millis = millis(work);
                    if (millis > SLOW_MILLIS && !contender.name().equals(Result.NORMCL)) {
                        // The first call may have made its code, but for so long none does.
                        millis = millis < 5 * SLOW_MILLIS ? millis(work) : millis;
                        if (millis > SLOW_MILLIS) {
                            slow.put(new Thing(pass, contender), Millis.of(millis));
                        }
                    }
                    contender.fetch(pass);
                    of.merge(library(contender), exact.error(pass, shared), Math::max);
                }
            }
            errors.put(pass, of);
        }
        return errors;
    }

    private static double millis(Work work) {
        long start = System.nanoTime();
        work.run(0, 1, 1);
        return (System.nanoTime() - start) / 1e6;
    }

    /** The library of a contender; PyTorch has two of them, with outputs beforehand and of its own. */
    private static String library(Contender contender) {
        return contender instanceof PyTorchContender ? Result.PYTORCH : contender.name();
    }

    private List<Result> time(
            NormClContender.Opened opened,
            Suite suite,
            BenchCase timed,
            NormClContender own,
            List<Contender> contenders,
            Map<Pass, Map<String, Double>> errors,
            Map<Thing, Millis> slow,
            int sets,
            boolean cached) {
        List<Thing> things = new ArrayList<>();
        List<Work> works = new ArrayList<>();
        StreamingCopy plain = new StreamingCopy(opened.device(), timed, false);
        StreamingCopy streaming = new StreamingCopy(opened.device(), timed, true);
        works.add(own.copy(plain));
        works.add(own.copy(streaming));
        for (Pass pass : Pass.values()) {
            for (Contender contender : contenders) {
                Work work = contender.pass(pass);
                Thing thing = new Thing(pass, contender);
                if (work != null && !slow.containsKey(thing)) {
                    things.add(thing);
                    works.add(work);
                }
            }
        }
        int calls = TensorSets.calls(timed, opened.device().limits());
        List<Millis> millis = Rounds.time(List.of(new Rotation(works, sets, calls)), rounds, rest);
        Map<Thing, Millis> all = new HashMap<>(slow);
        for (int i = 0; i < things.size(); i++) {
            all.put(things.get(i), millis.get(2 + i));
        }
        double copy = Math.max(millis.get(0).gigabytes(plain.bytes()), millis.get(1).gigabytes(plain.bytes()));
        List<Result> results = new ArrayList<>();
        for (Pass pass : Pass.values()) {
            Map<String, Millis> took = new LinkedHashMap<>();
            Map<String, String> remarks = new LinkedHashMap<>();
            for (Contender contender : contenders) {
                String library = library(contender);
                Thing thing = new Thing(pass, contender);
                Millis found = all.get(thing);
                Millis before = took.get(library);
                if (found == null) {
                    remarks.putIfAbsent(library, contender.remark(pass));
                } else if (before == null || found.by(before) < 1) {
                    took.put(library, found);
                    remarks.put(library, contender.remark(pass) + (slow.containsKey(thing) ? " (timed once)" : ""));
                }
            }
            Millis same = took.get(Result.ONEDNN);
            if (same != null) {
                took.merge(Result.ONEDNN_BEST, same, (a, b) -> a.by(b) < 1 ? a : b);
            }
            results.add(new Result(
                    suite, timed, pass, cached, own.bytes(pass), copy, took, errors.getOrDefault(pass, Map.of()),
                    remarks));
        }
        return results;
    }

    static String lower(Enum<?> constant) {
        return constant.name().toLowerCase(Locale.ROOT);
    }
}
