package io.normcl.bench;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.function.IntConsumer;
import java.util.stream.DoubleStream;
import java.util.stream.IntStream;

/** Timing of several things in turn: what disturbs the machine for a while then disturbs all of them. */
public final class Rounds {
    private static final int WARM_UP = 3;

    private Rounds() {}

    /**
     * What was timed of one thing.
     *
     * @param rounds the times in milliseconds, one or more
     */
    public record Millis(List<Double> rounds) {
        /**
         * Times as they were taken.
         *
         * @param millis the times in milliseconds, one or more
         * @return the times
         */
        public static Millis of(double... millis) {
            return new Millis(Arrays.stream(millis).boxed().toList());
        }

        /**
         * The median.
         *
         * @return milliseconds
         */
        public double median() {
            return median(rounds.stream().mapToDouble(Double::doubleValue));
        }

        /**
         * The shortest round.
         *
         * @return milliseconds
         */
        public double min() {
            return Collections.min(rounds);
        }

        /**
         * These times by others: the median of what each round gives, since a machine that changes from round to round
         * is the same within one.
         *
         * @param other the times of something else, in the same rounds; of other rounds, the medians count
         * @return above 1 where the other takes less
         */
        public double by(Millis other) {
            return rounds.size() == other.rounds.size()
                    ? median(IntStream.range(0, rounds.size()).mapToDouble(i -> rounds.get(i) / other.rounds.get(i)))
                    : median() / other.median();
        }

        private static double median(DoubleStream values) {
            double[] sorted = values.sorted().toArray();
            int middle = sorted.length / 2;
            return sorted.length % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
        }

        /**
         * A rate.
         *
         * @param bytes what was moved
         * @return 10⁹ bytes a second, by the median
         */
        public double gigabytes(long bytes) {
            return bytes / median() / 1e6;
        }
    }

    /**
     * Something to time.
     *
     * @param call begins its work on the set of buffers of that number, or does it
     * @param await waits until all of it is done
     */
    public record Work(IntConsumer call, Runnable await) {
        /**
         * Work that is done when its call returns.
         *
         * @param call does it on the set of buffers of that number
         * @return the work
         */
        public static Work done(IntConsumer call) {
            return new Work(call, () -> {});
        }

        /**
         * Runs it on neighbouring sets, one call after the other, and waits once.
         *
         * @param first the first set
         * @param calls how often it is called
         * @param sets how many sets there are; after the last comes the first
         */
        public void run(int first, int calls, int sets) {
            for (int i = 0; i < calls; i++) {
                call.accept((first + i) % sets);
            }
            await.run();
        }
    }

    /**
     * Works that take the same sets of buffers by turns. Each call takes the next set, so that none finds in a cache what
     * the one before it has left there.
     *
     * @param works what to run
     * @param sets how many sets of buffers there are
     * @param calls how many calls of the same work are timed together, at least 1: a short one alone would be timed with
     *     the waking of threads that a network of layers pays once
     */
    public record Rotation(List<Work> works, int sets, int calls) {}

    /**
     * Runs each work in turn, {@value #WARM_UP} rounds untimed and then as many as asked for.
     *
     * @param rotations the works, by the buffers that they take
     * @param rounds how many are timed, at least 1
     * @param rest milliseconds that threads of all may come to rest in before each; where there are any, what is timed
     *     follows a run of the same that isn't, so that its own threads are awake as in the midst of a training
     * @return the times of a call, in the order of the rotations and of the works of each
     */
    public static List<Millis> time(List<Rotation> rotations, int rounds, int rest) {
        if (rounds < 1) {
            throw new IllegalArgumentException("there must be at least one round: rounds=" + rounds);
        }
        List<double[]> millis = new ArrayList<>();
        rotations.forEach(rotation -> rotation.works().forEach(work -> millis.add(new double[rounds])));
        int[] next = new int[rotations.size()];
        for (int round = -WARM_UP; round < rounds; round++) {
            int timed = 0;
            for (int r = 0; r < next.length; r++) {
                int sets = rotations.get(r).sets();
                int calls = rotations.get(r).calls();
                for (Work work : rotations.get(r).works()) {
                    if (rest > 0) {
                        sleep(rest);
                        work.run(next[r], 1, sets);
                        next[r] = (next[r] + 1) % sets;
                    }
                    long start = System.nanoTime();
                    work.run(next[r], calls, sets);
                    millis.get(timed++)[Math.max(0, round)] = (System.nanoTime() - start) / 1e6 / calls;
                    next[r] = (next[r] + calls) % sets;
                }
            }
        }
        return millis.stream().map(Millis::of).toList();
    }

    private static void sleep(int millis) {
        try {
            Thread.sleep(millis);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }
}
