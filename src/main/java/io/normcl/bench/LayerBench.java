package io.normcl.bench;

import io.normcl.bench.BenchCase.Pass;
import io.normcl.bench.Listing.Column;
import io.normcl.bench.Rounds.Millis;
import io.normcl.bench.Rounds.Rotation;
import io.normcl.bench.Rounds.Work;
import io.normcl.device.Device;
import io.normcl.plan.Family;
import io.normcl.plan.Plan;
import io.normcl.plan.Tuning;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/**
 * Times the passes of a layer and, in the same rounds, the streaming copy of a tensor of the same size: the faster of
 * plain stores and of such that go past the caches. Each pass is enqueued and waited for.
 */
public final class LayerBench {
    /** The columns of the results. */
    public static final List<Column> COLUMNS = List.of(
            new Column("op", -24, 0),
            new Column("pass", -18, 0),
            new Column("layout", -14, 0),
            new Column("dtype", -8, 0),
            new Column("shape", -13, 0),
            new Column("family", -11, 0),
            new Column("median_ms", 9, 3),
            new Column("min_ms", 8, 3),
            new Column("bytes", 10, 0),
            new Column("gbps", 6, 1),
            new Column("copy_gbps", 9, 1),
            new Column("fraction", 8, 2));

    private LayerBench() {}

    /**
     * What was measured of one pass.
     *
     * @param timed the case
     * @param pass what ran
     * @param family the kernels that ran
     * @param millis how long a round took
     * @param bytes what must pass to and from memory, by the plan
     * @param copyGigabytes the copy's bytes in 10⁹ a second, of its median
     */
    public record Row(BenchCase timed, Pass pass, Family family, Millis millis, long bytes, double copyGigabytes) {
        /**
         * The values of the columns.
         *
         * @return as many as there are {@link #COLUMNS}
         */
        public Object[] cells() {
            double gigabytes = millis.gigabytes(bytes);
            return new Object[] {
                timed.name(),
                BenchCase.lower(pass),
                BenchCase.lower(timed.layout()),
                BenchCase.lower(timed.type()),
                timed.shapeName(),
                BenchCase.lower(family),
                millis.median(),
                millis.min(),
                bytes,
                gigabytes,
                copyGigabytes,
                gigabytes / copyGigabytes
            };
        }
    }

    /**
     * How cases are measured.
     *
     * @param passes which, in this order
     * @param rounds how often each is timed, at least 1
     * @param cached whether all rounds take the same tensors
     * @param tuning what overrides the plans; null for what {@code normcl tune} has kept
     */
    public record Settings(
            List<Pass> passes,
            int rounds,
            boolean cached,
            @Nullable Tuning tuning) {}

    /**
     * Measures cases by turns within each round, so that what slows memory for a while slows all of them; the tensors of
     * all are there at once.
     *
     * @param device where
     * @param cases as one layer's with several types
     * @param settings how
     * @param rows takes what was measured, case by case and pass by pass
     * @param skipped takes a line on a case whose tensors the device can't hold beside those before it, which isn't
     *     measured
     * @throws IllegalArgumentException if a case is none that its layer can be of
     */
    public static void run(
            Device device, List<BenchCase> cases, Settings settings, Consumer<Row> rows, Consumer<String> skipped) {
        List<Timed> all = new ArrayList<>();
        try {
            for (BenchCase timed : cases) {
                TensorSets.fitting(device, timed, settings.cached(), cases.size(), skipped)
                        .ifPresent(sets -> all.add(Timed.open(device, timed, settings.tuning(), sets)));
            }
            List<Rotation> rotations = all.stream()
                    .map(timed -> timed.rotation(device, settings.passes()))
                    .toList();
            Iterator<Millis> millis =
                    Rounds.time(rotations, settings.rounds(), 0).iterator();
            all.forEach(timed -> timed.report(settings.passes(), millis, rows));
        } finally {
            all.forEach(Timed::close);
        }
    }

    private record Timed(BenchCase timed, BenchLayer layer, TensorSets sets, List<StreamingCopy> copies) {
        /** Takes the sets over, also where it throws. */
        static Timed open(Device device, BenchCase timed, @Nullable Tuning tuning, TensorSets sets) {
            BenchLayer layer = null;
            try {
                layer = BenchLayer.open(device, timed, tuning);
                layer.prepare(sets.get(0));
                StreamingCopy plain = new StreamingCopy(device, timed, false);
                return new Timed(timed, layer, sets, List.of(plain, new StreamingCopy(device, timed, true)));
            } catch (RuntimeException e) {
                sets.close();
                if (layer != null) {
                    layer.close();
                }
                throw e;
            }
        }

        /** The copies and then the passes. */
        Rotation rotation(Device device, List<Pass> passes) {
            List<Work> works = new ArrayList<>();
            for (StreamingCopy copy : copies) {
                works.add(new Work(
                        set -> copy.enqueue(sets.get(set).x(), sets.get(set).y()), device::finish));
            }
            for (Pass pass : passes) {
                works.add(new Work(set -> layer.enqueue(pass, sets.get(set)), device::finish));
            }
            return new Rotation(works, sets.size(), TensorSets.calls(timed, device.limits()));
        }

        /** Takes as many times as there are copies and passes. */
        void report(List<Pass> passes, Iterator<Millis> millis, Consumer<Row> rows) {
            double copied = 0;
            for (StreamingCopy copy : copies) {
                copied = Math.max(copied, millis.next().gigabytes(copy.bytes()));
            }
            for (Pass pass : passes) {
                Plan plan = layer.plan(pass, sets.get(0));
                rows.accept(new Row(timed, pass, family(plan), millis.next(), plan.bytes(), copied));
            }
        }

        void close() {
            layer.close();
            sets.close();
        }
    }

    /** Kernels that walk a tensor are called by their family. */
    private static Family family(Plan plan) {
        boolean cooperative =
                plan.calls().stream().anyMatch(call -> call.kernel().startsWith("cooperative_"));
        return cooperative ? Family.COOPERATIVE : Family.WIDE;
    }
}
