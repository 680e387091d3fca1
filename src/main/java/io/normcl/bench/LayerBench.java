package io.normcl.bench;

import io.normcl.bench.BenchCase.Pass;
import io.normcl.bench.BenchLayer.Tensors;
import io.normcl.bench.Listing.Column;
import io.normcl.bench.Rounds.Millis;
import io.normcl.bench.Rounds.Work;
import io.normcl.device.Device;
import io.normcl.device.DeviceException;
import io.normcl.plan.Family;
import io.normcl.plan.Plan;
import io.normcl.plan.Tuning;
import java.util.ArrayList;
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
     * Measures a case.
     *
     * @param device where
     * @param timed the case
     * @param settings how
     * @param rows takes what was measured, pass by pass
     * @param skipped takes a line on a case whose tensors the device can't hold; nothing is measured then
     * @throws IllegalArgumentException if the case is none that its layer can be of
     */
    public static void run(
            Device device, BenchCase timed, Settings settings, Consumer<Row> rows, Consumer<String> skipped) {
        int count = TensorSets.count(timed, device.limits(), settings.cached());
        try (BenchLayer layer = BenchLayer.open(device, timed, settings.tuning())) {
            TensorSets allocated;
            try {
                allocated = TensorSets.allocate(device, timed, count);
            } catch (DeviceException e) {
                skipped.accept("skipped " + timed + ": " + e.getMessage());
                return;
            }
            try (TensorSets sets = allocated) {
                measure(device, timed, settings, layer, sets).forEach(rows);
            }
        }
    }

    private static List<Row> measure(
            Device device, BenchCase timed, Settings settings, BenchLayer layer, TensorSets sets) {
        StreamingCopy plain = new StreamingCopy(device, timed, false);
        StreamingCopy streaming = new StreamingCopy(device, timed, true);
        List<Work> works = new ArrayList<>();
        for (StreamingCopy copy : List.of(plain, streaming)) {
            works.add(new Work(
                    set -> copy.enqueue(sets.get(set).x(), sets.get(set).y()), device::finish));
        }
        for (Pass pass : settings.passes()) {
            works.add(new Work(set -> layer.enqueue(pass, sets.get(set)), device::finish));
        }
        layer.prepare(sets.get(0));
        List<Millis> millis =
                Rounds.time(works, sets.size(), TensorSets.calls(timed, device.limits()), settings.rounds(), 0);
        double copy =
                Math.max(millis.get(0).gigabytes(plain.bytes()), millis.get(1).gigabytes(streaming.bytes()));
        List<Row> rows = new ArrayList<>();
        for (int i = 0; i < settings.passes().size(); i++) {
            Pass pass = settings.passes().get(i);
            Tensors first = sets.get(0);
            Plan plan = layer.plan(pass, first);
            rows.add(new Row(timed, pass, family(plan), millis.get(2 + i), plan.bytes(), copy));
        }
        return rows;
    }

    /** Kernels that walk a tensor are called by their family. */
    private static Family family(Plan plan) {
        boolean cooperative =
                plan.calls().stream().anyMatch(call -> call.kernel().startsWith("cooperative_"));
        return cooperative ? Family.COOPERATIVE : Family.WIDE;
    }
}
