package io.normcl.peers;

import io.normcl.bench.BenchCase;
import io.normcl.bench.BenchCase.Op;
import io.normcl.bench.BenchCase.Pass;
import io.normcl.reference.NormReference;
import io.normcl.reference.NormReference.Gradients;
import io.normcl.reference.NormReference.Statistics;
import io.normcl.tensor.Layout;
import java.util.Arrays;
import org.bytedeco.javacpp.FloatPointer;
import org.jspecify.annotations.Nullable;

/**
 * What the passes of a case give in double over the first set: in channels or groups spread over the tensor, of layer and
 * RMS norm in rows, with dGamma and dBeta of all rows.
 */
final class Exact {
    private static final int SAMPLE = 1 << 20;

    private final boolean[] parameters;
    private final double[] dGamma;
    private final double[] dBeta;
    private final int[] at;
    private final double[] training;
    private final double[] evaluation;
    private final double[] dx;

    private Exact(int parameters, int sample) {
        this.parameters = new boolean[parameters];
        dGamma = new double[parameters];
        dBeta = new double[parameters];
        at = new int[sample];
        training = new double[sample];
        evaluation = new double[sample];
        dx = new double[sample];
    }

    static Exact of(BenchCase timed, SharedTensors shared) {
        return timed.op() == Op.LAYER_NORM || timed.op() == Op.RMS_NORM
                ? ofRows(timed, shared)
                : ofChannels(timed, shared);
    }

    private static Exact ofChannels(BenchCase timed, SharedTensors shared) {
        int n = Math.toIntExact(timed.shape().get(0));
        int c = Math.toIntExact(timed.shape().get(1));
        int s = Math.toIntExact(timed.elements() / n / c);
        int together = timed.op() == Op.BATCH_NORM ? 1 : c / timed.groups();
        int units = c / together;
        int taken = (int) Math.max(1, Math.min(units, SAMPLE / ((long) n * s * together)));
        int k = taken * together;
        Exact exact = new Exact(c, n * k * s);
        int[] channels = new int[k];
        for (int i = 0; i < k; i++) {
            channels[i] = (int) ((long) (i / together) * units / taken) * together + i % together;
            exact.parameters[channels[i]] = true;
        }
        boolean last = timed.layout() == Layout.CHANNELS_LAST;
        for (int i = 0; i < exact.at.length; i++) {
            int channel = channels[i / s % k];
            int sample = i / s / k;
            int place = i % s;
            exact.at[i] = last ? (sample * s + place) * c + channel : (sample * c + channel) * s + place;
        }
        NormReference reference = timed.op() == Op.BATCH_NORM
                ? NormReference.batchNorm(n, k, s, false)
                : NormReference.groupNorm(n, k, s, false, taken);
        double[] x = gathered(shared.set(0).x(), exact.at);
        double[] gamma = chosen(shared.gamma(), channels);
        double[] beta = chosen(shared.beta(), channels);
        Statistics batch = reference.statistics(x);
        Statistics running = timed.op() == Op.BATCH_NORM
                ? reference.running(chosen(shared.runningMean(), channels), chosen(shared.runningVar(), channels))
                : batch;
        copy(reference.forward(batch, gamma, beta, x, null), exact.training, 0);
        copy(reference.forward(running, gamma, beta, x, null), exact.evaluation, 0);
        Gradients gradients =
                reference.backward(batch, gamma, beta, x, null, gathered(shared.set(0).dy(), exact.at));
        copy(gradients.dx(), exact.dx, 0);
        for (int i = 0; i < k; i++) {
            exact.dGamma[channels[i]] = gradients.dGamma()[i];
            exact.dBeta[channels[i]] = gradients.dBeta()[i];
        }
        return exact;
    }

    private static Exact ofRows(BenchCase timed, SharedTensors shared) {
        int d = shared.parameters();
        int rows = Math.toIntExact(timed.elements() / d);
        int block = Math.max(1, Math.min(rows, SAMPLE / d / 8));
        int blocks = (rows + block - 1) / block;
        int every = Math.max(1, blocks / 8);
        int sample = 0;
        for (int b = 0; b < blocks; b += every) {
            sample += Math.min(block, rows - b * block);
        }
        Exact exact = new Exact(d, sample * d);
        Arrays.fill(exact.parameters, true);
        boolean centered = timed.op() == Op.LAYER_NORM;
        double[] gamma = chosen(shared.gamma(), range(0, d));
        double @Nullable [] beta = centered ? chosen(shared.beta(), range(0, d)) : null;
        int taken = 0;
        for (int b = 0; b < blocks; b++) {
            int count = Math.min(block, rows - b * block);
            int[] places = range(b * block * d, count * d);
            NormReference reference =
                    centered ? NormReference.layerNorm(count, d) : NormReference.rmsNorm(count, d, false);
            double[] x = gathered(shared.set(0).x(), places);
            Statistics statistics = reference.statistics(x);
            Gradients gradients =
                    reference.backward(statistics, gamma, beta, x, null, gathered(shared.set(0).dy(), places));
            for (int i = 0; i < d; i++) {
                exact.dGamma[i] += gradients.dGamma()[i];
                exact.dBeta[i] += centered ? gradients.dBeta()[i] : 0;
            }
            if (b % every == 0) {
                double[] y = reference.forward(statistics, gamma, beta, x, null);
                System.arraycopy(places, 0, exact.at, taken, places.length);
                copy(y, exact.training, taken);
                copy(y, exact.evaluation, taken);
                copy(gradients.dx(), exact.dx, taken);
                taken += places.length;
            }
        }
        return exact;
    }

    private static void copy(double[] from, double[] to, int at) {
        System.arraycopy(from, 0, to, at, from.length);
    }

    private static int[] range(int from, int count) {
        int[] range = new int[count];
        Arrays.setAll(range, i -> from + i);
        return range;
    }

    private static double[] gathered(FloatPointer tensor, int[] places) {
        double[] values = new double[places.length];
        for (int i = 0; i < values.length; i++) {
            values[i] = tensor.get(places[i]);
        }
        return values;
    }

    private static double[] chosen(float[] values, int[] which) {
        double[] chosen = new double[which.length];
        Arrays.setAll(chosen, i -> values[which[i]]);
        return chosen;
    }

    /**
     * How far a pass was from the truth.
     *
     * @param pass which
     * @param shared what it wrote, in the first set and as parameter gradients
     * @return the largest error over the largest value of y, or the worst of dx, dGamma and dBeta; NaN where one is
     */
    double error(Pass pass, SharedTensors shared) {
        return switch (pass) {
            case FORWARD_TRAINING -> error(training, gathered(shared.set(0).y(), at));
            case FORWARD_EVALUATION -> error(evaluation, gathered(shared.set(0).y(), at));
            case BACKWARD -> {
                int[] known = range(0, parameters.length);
                known = Arrays.stream(known).filter(i -> parameters[i]).toArray();
                double worst = error(dx, gathered(shared.set(0).dx(), at));
                worst = Math.max(worst, error(of(dGamma, known), chosen(shared.dGamma(), known)));
                yield Math.max(worst, error(of(dBeta, known), chosen(shared.dBeta(), known)));
            }
        };
    }

    private static double[] of(double[] values, int[] which) {
        return Arrays.stream(which).mapToDouble(i -> values[i]).toArray();
    }

    private static double error(double[] truth, double[] found) {
        double largest = 0;
        double error = 0;
        for (int i = 0; i < truth.length; i++) {
            largest = Math.max(largest, Math.abs(truth[i]));
            error = Math.max(error, Math.abs(truth[i] - found[i])); // a NaN stays
        }
        return largest == 0 ? error : error / largest;
    }
}
