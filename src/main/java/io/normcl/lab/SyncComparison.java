package io.normcl.lab;

import io.normcl.device.Device;
import io.normcl.lab.Findings.Check;
import io.normcl.lab.Findings.Point;
import io.normcl.lab.Findings.Run;
import io.normcl.train.FashionMnist;
import io.normcl.train.Norm;
import io.normcl.train.Settings;
import io.normcl.train.State;
import io.normcl.train.Trainer;
import io.normcl.train.Watcher;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CancellationException;
import java.util.function.Predicate;

/**
 * Trains the same network from the same seed in four ways: on one device with the whole batch; on all devices with
 * local batch norm; on all devices with synchronized batch norm; and, as a control, on one device with the samples of
 * each batch in reverse order, which changes nothing but the order of sums.
 *
 * <p>Whole runs diverge from any rounding, so single steps are compared: every {@value #CHECK_EVERY} steps all replicas
 * take the one device's weights and batch, and what that step gives is held to what it gave there.
 */
public final class SyncComparison {
    /** The runs' names. */
    static final String ONE = "one device";

    static final String LOCAL = "local";
    static final String SYNC = "synchronized";
    static final String CONTROL = "control";

    /** What a watcher is told is being trained. */
    public static final String RUN = "four runs";

    private static final int CHECK_EVERY = 50;
    private static final int POINTS = 15;
    private static final int JUDGED_ON_THE_WAY = 1000;

    /**
     * What to compare.
     *
     * @param batchPerDevice samples of a batch on each device
     * @param epochs how often to go over the samples
     * @param samples how many pictures to train on
     * @param seed of the initial weights and of the samples' order
     */
    public record Setup(int batchPerDevice, int epochs, int samples, long seed) {}

    /** What a step of the one device began with and gave. */
    @SuppressWarnings("ArrayRecordComponent") // compared by nobody
    private record Moment(State before, float[] logits, Map<String, float[]> gradients, State after) {}

    private final FashionMnist pictures;
    private final Watcher watcher;

    private SyncComparison(FashionMnist pictures, Watcher watcher) {
        this.pictures = pictures;
        this.watcher = watcher;
    }

    /**
     * Trains, one step of each run after the other, and compares.
     *
     * @param devices at least two; the first is also the one device
     * @param pictures what to train on and judge by
     * @param setup what to compare
     * @param watcher looks on
     * @return what was found
     * @throws IllegalArgumentException if there is one device only, or the samples fill no batch or are not there
     * @throws CancellationException if the watcher stops it
     */
    public static Findings run(List<Device> devices, FashionMnist pictures, Setup setup, Watcher watcher) {
        int all = devices.size();
        if (all < 2 || setup.epochs() < 1) {
            throw new IllegalArgumentException("a comparison needs at least two devices (as cpu:4) and one epoch:"
                    + " devices=" + all + ", epochs=" + setup.epochs());
        }
        Settings whole = settings(setup, Norm.LOCAL, 1, all * setup.batchPerDevice());
        whole.requireSamplesOf(pictures);
        Settings local = settings(setup, Norm.LOCAL, all, setup.batchPerDevice());
        Settings sync = settings(setup, Norm.SYNC, all, setup.batchPerDevice());
        long steps = setup.epochs() * whole.stepsPerEpoch();
        List<Device> first = devices.subList(0, 1);
        try (Contestant a = new Contestant(ONE, new Trainer(first, whole), false);
                Contestant b = new Contestant(LOCAL, new Trainer(devices, local), false);
                Contestant c = new Contestant(SYNC, new Trainer(devices, sync), false);
                Contestant d = new Contestant(CONTROL, new Trainer(first, whole), true)) {
            List<Run> runs = new SyncComparison(pictures, watcher).run(List.of(a, b, c, d), steps);
            List<String> names = devices.stream().map(Device::name).toList();
            return new Findings(setup, names, steps, runs.get(0), runs.get(1), runs.get(2), runs.get(3));
        }
    }

    private static Settings settings(Setup setup, Norm norm, int count, int batch) {
        return Settings.of(norm, count, batch, setup.samples(), setup.seed());
    }

    /** A run on its way. */
    private static final class Contestant implements AutoCloseable {
        final String name;
        final Trainer trainer;
        final boolean reversed;
        final List<Point> curve = new ArrayList<>();
        final List<Check> checks = new ArrayList<>();
        double loss; // summed since the last point
        double seconds;

        Contestant(String name, Trainer trainer, boolean reversed) {
            this.name = name;
            this.trainer = trainer;
            this.reversed = reversed;
        }

        int[] batch() {
            return reversed ? SyncComparison.reversed(trainer.batch()) : trainer.batch();
        }

        @Override
        public void close() {
            trainer.close();
        }
    }

    private List<Run> run(List<Contestant> contestants, long steps) {
        Contestant one = contestants.get(0);
        long every = Math.max(1, steps / POINTS);
        for (long step = 1; step <= steps; step++) {
            State before = (step - 1) % CHECK_EVERY == 0 ? one.trainer.state() : null;
            double loss = learn(one);
            if (before != null) {
                Moment moment = new Moment(before, one.trainer.logits(), one.trainer.gradients(), one.trainer.state());
                contestants.subList(1, contestants.size()).forEach(other -> check(other, moment));
            }
            contestants.subList(1, contestants.size()).forEach(this::learn);
            if (step % every == 0) {
                for (Contestant contestant : contestants) {
                    double accuracy = judge(contestant, JUDGED_ON_THE_WAY).accuracy();
                    contestant.curve.add(new Point(step, contestant.loss / every, accuracy));
                    contestant.loss = 0;
                }
            }
            watcher.trained(RUN, step, steps, loss);
            if (watcher.stopped()) {
                throw new CancellationException("stopped at step " + step + " of " + steps);
            }
        }
        State end = one.trainer.state();
        return contestants.stream().map(c -> ended(c, end, steps)).toList();
    }

    private double learn(Contestant contestant) {
        int[] batch = contestant.batch();
        boolean first = contestant.trainer.step() == 0; // compiles the kernels
        long start = System.nanoTime();
        double loss = contestant.trainer.learn(pictures.train(), batch).loss();
        contestant.seconds += first ? 0 : (System.nanoTime() - start) / 1e9;
        contestant.loss += loss;
        return loss;
    }

    private Run ended(Contestant contestant, State one, long steps) {
        Trainer.Score score = judge(contestant, pictures.test().size());
        watcher.judged(contestant.name, steps, score);
        State end = contestant.trainer.state();
        return new Run(
                contestant.name,
                contestant.curve,
                contestant.checks,
                contestant.curve.get(contestant.curve.size() - 1).loss(),
                score.loss(),
                score.accuracy(),
                distance(one, end, SyncComparison::isWeight),
                distance(one, end, SyncComparison::isStatistic),
                contestant.trainer.settings().batch() * (steps - 1) / contestant.seconds);
    }

    private Trainer.Score judge(Contestant contestant, int count) {
        return contestant.trainer.evaluate(
                pictures.test(), Math.min(count, pictures.test().size()));
    }

    /** Takes the one device's step with this run's trainer, which is afterwards as it was. */
    private void check(Contestant contestant, Moment moment) {
        Trainer trainer = contestant.trainer;
        State own = trainer.state();
        int[] batch = contestant.batch();
        trainer.state(moment.before());
        trainer.differentiate(pictures.train(), batch);
        double[] output = new double[2];
        float[] logits = trainer.logits();
        add(output, moment.logits(), contestant.reversed ? samplesReversed(logits) : logits);
        double[] gradients = new double[2];
        Map<String, float[]> expected = moment.gradients();
        trainer.gradients().forEach((name, values) -> add(gradients, expected.getOrDefault(name, values), values));
        double statistics = 0;
        Map<String, float[]> after = trainer.state().tensors();
        for (int k = 0; k < trainer.settings().devices(); k++) {
            double[] replica = new double[2];
            String prefix = "replica" + k + ".";
            moment.after().tensors().forEach((name, values) -> {
                if (isStatistic(name)) {
                    add(replica, values, after.getOrDefault(prefix + name, after.getOrDefault(name, values)));
                }
            });
            statistics = Math.max(statistics, relative(replica));
        }
        contestant.checks.add(new Check(moment.before().step(), relative(output), relative(gradients), statistics));
        trainer.state(own);
    }

    private static double distance(State from, State to, Predicate<String> which) {
        double[] sums = new double[2];
        from.tensors().forEach((name, values) -> {
            if (which.test(name)) {
                add(sums, values, to.tensors().getOrDefault(name, values));
            }
        });
        return Math.sqrt(sums[0]);
    }

    private static boolean isStatistic(String name) {
        return name.contains(".running_") && !name.startsWith("replica");
    }

    private static boolean isWeight(String name) {
        return !name.contains(".running_") && !name.startsWith("momentum.");
    }

    /** Adds up the squares of the difference and of what is expected. */
    private static void add(double[] sums, float[] expected, float[] values) {
        for (int i = 0; i < expected.length; i++) {
            double difference = (double) values[i] - expected[i];
            sums[0] += difference * difference;
            sums[1] += (double) expected[i] * expected[i];
        }
    }

    private static double relative(double[] sums) {
        return Math.sqrt(sums[0] / sums[1]);
    }

    private static int[] reversed(int[] batch) {
        int[] reversed = new int[batch.length];
        for (int i = 0; i < batch.length; i++) {
            reversed[i] = batch[batch.length - 1 - i];
        }
        return reversed;
    }

    private static float[] samplesReversed(float[] logits) {
        int classes = FashionMnist.CLASSES;
        float[] reversed = new float[logits.length];
        for (int i = 0; i < logits.length; i += classes) {
            System.arraycopy(logits, i, reversed, logits.length - classes - i, classes);
        }
        return reversed;
    }
}
