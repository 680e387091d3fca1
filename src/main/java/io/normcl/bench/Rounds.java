package io.normcl.bench;

import java.util.Arrays;
import java.util.List;
import java.util.function.IntConsumer;

/** Timing of several things in turn: what disturbs the machine for a while then disturbs all of them. */
public final class Rounds {
    private static final int WARM_UP = 3;

    private Rounds() {}

    /**
     * What was timed of one thing.
     *
     * @param median of the rounds, in milliseconds
     * @param min the shortest round, in milliseconds
     */
    public record Millis(double median, double min) {
        /**
         * Takes the median and the least of times.
         *
         * @param millis the times, at least one
         * @return both
         */
        public static Millis of(double... millis) {
            double[] sorted = millis.clone();
            Arrays.sort(sorted);
            int middle = sorted.length / 2;
            double median = sorted.length % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
            return new Millis(median, sorted[0]);
        }

        /**
         * A rate.
         *
         * @param bytes what was moved
         * @return 10⁹ bytes a second, by the median
         */
        public double gigabytes(long bytes) {
            return bytes / median / 1e6;
        }
    }

    /**
     * Runs each in turn, {@value #WARM_UP} rounds untimed and then as many as asked for. Each run takes the next set of
     * buffers, so that none finds in a cache what the one before it has left there.
     *
     * @param things each does its work on the set of buffers of that number and waits for it
     * @param sets how many sets there are
     * @param rounds how many are timed, at least 1
     * @param rest milliseconds that threads of all may come to rest in before each; where there are any, what is timed
     *     follows a run of the same that isn't, so that its own threads are awake as in the midst of a training
     * @return the times, in the order of the things
     */
    public static List<Millis> time(List<IntConsumer> things, int sets, int rounds, int rest) {
        if (rounds < 1) {
            throw new IllegalArgumentException("there must be at least one round: rounds=" + rounds);
        }
        double[][] millis = new double[things.size()][rounds];
        int next = 0;
        for (int round = -WARM_UP; round < rounds; round++) {
            for (int i = 0; i < millis.length; i++) {
                if (rest > 0) {
                    sleep(rest);
                    things.get(i).accept(next++ % sets);
                }
                int set = next++ % sets;
                long start = System.nanoTime();
                things.get(i).accept(set);
                millis[i][Math.max(0, round)] = (System.nanoTime() - start) / 1e6;
            }
        }
        return Arrays.stream(millis).map(Millis::of).toList();
    }

    private static void sleep(int millis) {
        try {
            Thread.sleep(millis);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }
}
