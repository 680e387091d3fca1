package io.normcl.bench;

import io.normcl.TuningFile;
import io.normcl.bench.BenchCase.Op;
import io.normcl.bench.BenchCase.Pass;
import io.normcl.bench.BenchLayer.Tensors;
import io.normcl.bench.Rounds.Millis;
import io.normcl.bench.Rounds.Rotation;
import io.normcl.bench.Rounds.Work;
import io.normcl.device.Device;
import io.normcl.device.DeviceException;
import io.normcl.exchange.WholeFile;
import io.normcl.plan.Family;
import io.normcl.plan.Plan;
import io.normcl.plan.ShapeClass;
import io.normcl.plan.Tuned;
import io.normcl.plan.Tuning;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.function.Consumer;
import java.util.stream.Stream;

/**
 * Searches, class of shapes by class of shapes, what a device's plans had better choose: the family, one launch or
 * several, whether stores past the caches pay, how wide vectors and how large groups are, and into how many parts sums are
 * cut. All choices of a pass are timed in the same rounds as the plan's own.
 * One is taken where it gains more than {@value #LEAST_GAIN_PERCENT} % in every case of its class.
 */
public final class Tuner {
    private static final int LEAST_GAIN_PERCENT = 3;

    /** What takes so many times the plan's own time at first sight is not timed again. */
    private static final double HOPELESS = 2;

    private final Device device;
    private final int rounds;
    private final Map<ShapeClass, List<Map<Tuning, Double>>> gains = new LinkedHashMap<>();

    /**
     * What was found for a class.
     *
     * @param shapes the class
     * @param tuning the override; of nothing where the plan's own choice stays
     * @param gain the plan's own time divided by that of the override, the least of all cases; 1 where it stays
     */
    public record Choice(ShapeClass shapes, Tuning tuning, double gain) {}

    /**
     * Starts with nothing measured.
     *
     * @param device where
     * @param rounds how often each choice is timed, at least 1
     */
    public Tuner(Device device, int rounds) {
        this.device = device;
        this.rounds = rounds;
    }

    /**
     * Measures the passes of a case.
     *
     * @param timed the case
     * @param skipped takes a line on a case whose tensors the device can't hold; nothing is measured then
     */
    public void measure(BenchCase timed, Consumer<String> skipped) {
        TensorSets.fitting(device, timed, false, 1, skipped).ifPresent(allocated -> {
            try (TensorSets sets = allocated) {
                for (Pass pass : Pass.values()) {
                    if (pass != Pass.FORWARD_EVALUATION
                            || timed.op() == Op.BATCH_NORM) { // else the same as in training
                        measure(timed, pass, sets);
                    }
                }
            }
        });
    }

    private void measure(BenchCase timed, Pass pass, TensorSets sets) {
        Map<Tuning, Plan> plans = new LinkedHashMap<>();
        Map<Plan, BenchLayer> layers = new LinkedHashMap<>();
        try {
            for (Tuning tuning : candidates(pass)) {
                BenchLayer layer = BenchLayer.open(device, timed, tuning);
                Plan plan = plan(layer, pass, sets.get(0));
                plans.put(tuning, plan);
                if (layers.putIfAbsent(plan, layer) != null) {
                    layer.close();
                }
            }
            Map<Plan, Double> found = gains(layers, timed, pass, sets);
            Map<Tuning, Double> gained = new LinkedHashMap<>();
            plans.forEach((tuning, plan) -> gained.put(tuning, found.getOrDefault(plan, 0.0)));
            BenchLayer any = layers.values().iterator().next();
            gains.computeIfAbsent(
                            any.layer().shapeClass(computed(pass), sets.get(0).x()), s -> new ArrayList<>())
                    .add(gained);
        } finally {
            layers.values().forEach(BenchLayer::close);
        }
    }

    private static Plan plan(BenchLayer layer, Pass pass, Tensors tensors) {
        try {
            if (pass == Pass.BACKWARD) {
                layer.prepare(tensors);
            }
            return layer.plan(pass, tensors);
        } catch (RuntimeException e) {
            layer.close();
            throw e;
        }
    }

    private static ShapeClass.Pass computed(Pass pass) {
        return switch (pass) {
            case FORWARD_TRAINING -> ShapeClass.Pass.FORWARD;
            case FORWARD_EVALUATION -> ShapeClass.Pass.FORWARD_RUNNING;
            case BACKWARD -> ShapeClass.Pass.BACKWARD;
        };
    }

    /**
     * The overrides, those of less first: family, launches and stores in every combination; the sizes of vectors and groups,
     * and the parts that sums and rows are cut into, with the rest as the plan has it. One launch is not forced on a device
     * that ends long loops, and an evaluation keeps its family, so that a sample gets the same bits in a batch of any size.
     * Stores past the caches are given up but never taken up: timed alone a pass gains by them even on a small tensor,
     * which whatever reads it next pays for.
     */
    private List<Tuning> candidates(Pass pass) {
        Family own = Tuning.NONE.family(device.limits());
        Family other = own == Family.WIDE ? Family.COOPERATIVE : Family.WIDE;
        boolean endless = device.limits().loopSteps() == Long.MAX_VALUE;
        List<Tuning> all = new ArrayList<>();
        for (Family family : pass == Pass.FORWARD_EVALUATION ? new Family[] {null} : new Family[] {null, other}) {
            for (Boolean fused : endless ? new Boolean[] {null, true, false} : new Boolean[] {null, false}) {
                for (Boolean streams : new Boolean[] {null, false}) {
                    all.add(Tuning.NONE.withFamily(family).withFused(fused).withStreams(streams));
                }
            }
        }
        if (own == Family.WIDE) {
            all.add(Tuning.NONE.withWidth(8));
        } else {
            for (int width : new int[] {1, 2, 4, 8}) {
                for (int items : new int[] {64, 128, 256, 512}) {
                    all.add(Tuning.NONE.withWidth(width).withItems(items));
                }
            }
        }
        int units = device.limits().computeUnits();
        for (int splits :
                pass == Pass.FORWARD_EVALUATION ? new int[0] : new int[] {1, 4, 16, 64, 16 * units, 64 * units}) {
            all.add(Tuning.NONE.withSplits(splits));
        }
        all.sort(
                Comparator.comparingLong(tuning -> Stream.of(Tuned.words(tuning).split(" "))
                        .filter(word -> !word.isEmpty())
                        .count()));
        return all;
    }

    /** How much faster each plan is than the first; 0 of one that the device refuses. */
    private Map<Plan, Double> gains(Map<Plan, BenchLayer> layers, BenchCase timed, Pass pass, TensorSets sets) {
        Map<Plan, BenchLayer> able = new LinkedHashMap<>(layers);
        Plan own = layers.keySet().iterator().next();
        able.entrySet().removeIf(e -> !e.getKey().equals(own) && refused(e.getValue(), pass, sets));
        Map<Plan, Double> gains = time(able, timed, pass, sets, 1);
        Map<Plan, BenchLayer> hopeful = new LinkedHashMap<>(able);
        hopeful.keySet().removeIf(plan -> Objects.requireNonNull(gains.get(plan)) < 1 / HOPELESS);
        gains.putAll(time(hopeful, timed, pass, sets, rounds));
        return gains;
    }

    private boolean refused(BenchLayer layer, Pass pass, TensorSets sets) {
        try {
            layer.enqueue(pass, sets.get(0));
            device.finish();
            return false;
        } catch (DeviceException e) {
            return true;
        }
    }

    private Map<Plan, Double> time(
            Map<Plan, BenchLayer> layers, BenchCase timed, Pass pass, TensorSets sets, int count) {
        List<Work> works = new ArrayList<>();
        layers.values()
                .forEach(layer -> works.add(new Work(set -> layer.enqueue(pass, sets.get(set)), device::finish)));
        Rotation rotation = new Rotation(works, sets.size(), TensorSets.calls(timed, device.limits()));
        List<Millis> millis = Rounds.time(List.of(rotation), count, 0);
        Map<Plan, Double> gains = new HashMap<>();
        int i = 0;
        for (Plan plan : layers.keySet()) {
            gains.put(plan, millis.get(0).by(millis.get(i++)));
        }
        return gains;
    }

    /**
     * What the measurements say.
     *
     * @return a choice for each class that was measured
     */
    public List<Choice> choices() {
        List<Choice> choices = new ArrayList<>();
        gains.forEach((shapes, cases) -> choices.add(choice(shapes, cases)));
        return choices;
    }

    /** The override that gains most where it gains least; the first, which is the plan's own choice, where none does. */
    static Choice choice(ShapeClass shapes, List<Map<Tuning, Double>> cases) {
        Choice best = new Choice(shapes, Tuning.NONE, 1);
        for (Tuning tuning : cases.get(0).keySet()) {
            double least = cases.stream()
                    .mapToDouble(gained -> Objects.requireNonNull(gained.get(tuning)))
                    .min()
                    .orElse(0);
            if (least > Math.max(best.gain(), 1 + LEAST_GAIN_PERCENT / 100.0)) {
                best = new Choice(shapes, tuning, least);
            }
        }
        return best;
    }

    /**
     * Keeps choices in a file, beside what it has of other classes.
     *
     * @param file the device's
     * @param choices what to keep; of a class whose plan's own choice stays, nothing is kept
     * @throws IOException if the file can't be written; it is then as it was
     */
    public static void keep(TuningFile file, List<Choice> choices) throws IOException {
        Map<ShapeClass, Tuning> classes = new HashMap<>(file.read().classes());
        for (Choice choice : choices) {
            classes.remove(choice.shapes());
            if (!choice.tuning().equals(Tuning.NONE)) {
                classes.put(choice.shapes(), choice.tuning());
            }
        }
        Files.createDirectories(file.path().resolveSibling(""));
        WholeFile.write(file.path(), List.of(ByteBuffer.wrap(file.bytes(new Tuned(classes, Tuning.NONE)))));
    }
}
