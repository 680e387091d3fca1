package io.normcl.peers;

import io.normcl.bench.BenchCase;
import java.util.Arrays;
import java.util.Random;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.Pointer;

/** The tensors of a case in host memory that every library works on, several sets of them, and its parameters. */
final class SharedTensors {
    private static final int PAGE = 4096;
    private static final int CHUNK = 1 << 20;

    /**
     * One set.
     *
     * @param x the input
     * @param y the output
     * @param dy the gradient of the output
     * @param dx the gradient of the input
     */
    record Set(FloatPointer x, FloatPointer y, FloatPointer dy, FloatPointer dx) {}

    private final Set[] sets;
    private final float[] gamma;
    private final float[] beta;
    private final float[] runningMean;
    private final float[] runningVar;
    private final float[] dGamma;
    private final float[] dBeta;

    private SharedTensors(Set[] sets, int parameters) {
        this.sets = sets;
        Random random = new Random(2);
        gamma = new float[parameters];
        beta = new float[parameters];
        runningMean = new float[parameters];
        runningVar = new float[parameters];
        dGamma = new float[parameters];
        dBeta = new float[parameters];
        for (int i = 0; i < parameters; i++) {
            gamma[i] = 0.5f + random.nextFloat();
            beta[i] = (float) random.nextGaussian();
            runningMean[i] = (float) random.nextGaussian();
            runningVar[i] = 0.5f + random.nextFloat();
        }
    }

    /** The memory that a number of sets takes. */
    static long bytes(BenchCase timed, int count) {
        return 4L * count * (timed.tensorBytes() + 2 * PAGE) + PAGE;
    }

    /**
     * Lays sets out in memory, a page between tensors as an allocator has it, since all libraries lose at distances of a power of
     * two, and fills them: x with normal values about 1, dy with normal values about 0.
     *
     * @param memory at least as many bytes as {@link #bytes} says
     * @param timed the case
     * @param count how many sets
     * @return the tensors, valid as long as the memory is
     */
    static SharedTensors of(BytePointer memory, BenchCase timed, int count) {
        long elements = timed.elements();
        long next = PAGE - memory.address() % PAGE;
        Random random = new Random(1);
        float[] normal = new float[(int) Math.min(elements, CHUNK + 1)]; // one more: no power of two
        float[] shifted = new float[normal.length];
        for (int i = 0; i < normal.length; i++) {
            normal[i] = (float) random.nextGaussian();
            shifted[i] = 1 + 2 * (float) random.nextGaussian();
        }
        Set[] sets = new Set[count];
        for (int i = 0; i < count; i++) {
            FloatPointer[] tensors = new FloatPointer[4];
            for (int t = 0; t < tensors.length; t++) {
                tensors[t] = new FloatPointer(memory.getPointer(next)).capacity(elements);
                next += (timed.tensorBytes() + PAGE - 1) / PAGE * PAGE + PAGE;
            }
            sets[i] = new Set(tensors[0], tensors[1], tensors[2], tensors[3]);
            fill(sets[i].x(), shifted);
            fill(sets[i].dy(), normal);
            Pointer.memset(sets[i].y(), 0, timed.tensorBytes());
            Pointer.memset(sets[i].dx(), 0, timed.tensorBytes());
        }
        boolean rows = timed.op() == BenchCase.Op.LAYER_NORM || timed.op() == BenchCase.Op.RMS_NORM;
        long c = timed.shape().get(1);
        return new SharedTensors(sets, Math.toIntExact(rows ? elements / timed.shape().get(0) : c));
    }

    private static void fill(FloatPointer tensor, float[] values) {
        for (long done = 0; done < tensor.capacity(); done += values.length) {
            tensor.position(done).put(values, 0, (int) Math.min(values.length, tensor.capacity() - done));
        }
        tensor.position(0);
    }

    /** Makes results of an earlier run unmistakable in the first set. */
    void forget() {
        Pointer.memset(sets[0].y(), 0xff, sets[0].y().capacity() * Float.BYTES);
        Pointer.memset(sets[0].dx(), 0xff, sets[0].dx().capacity() * Float.BYTES);
        Arrays.fill(dGamma, Float.NaN);
        Arrays.fill(dBeta, Float.NaN);
    }

    int count() {
        return sets.length;
    }

    Set set(int i) {
        return sets[i];
    }

    int parameters() {
        return gamma.length;
    }

    float[] gamma() {
        return gamma;
    }

    float[] beta() {
        return beta;
    }

    float[] runningMean() {
        return runningMean;
    }

    float[] runningVar() {
        return runningVar;
    }

    /** Where a library puts its gradient of gamma after a backward that is to be judged. */
    float[] dGamma() {
        return dGamma;
    }

    float[] dBeta() {
        return dBeta;
    }
}
