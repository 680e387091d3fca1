package io.normcl;

import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.plan.ChannelPlan;
import io.normcl.plan.Plan;
import io.normcl.sync.ChannelMoments;
import io.normcl.sync.ChannelSums;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/** The host's side of a merge: partial results that it reads from a device and the merged ones that it writes back. */
final class HostPartials {
    private final Device device;
    private final boolean doubles;
    private ByteBuffer partials = direct(0);
    private ByteBuffer result = direct(0);
    private boolean writing;
    private long splits;

    HostPartials(Device device) {
        this.device = device;
        this.doubles = device.limits().fp64();
    }

    /** Starts a read of all partial results; hands what is enqueued to the device. */
    void enqueueRead(Buffer from, Plan plan) {
        int bytes = Math.toIntExact(plan.workspaceBytes());
        if (partials.capacity() < bytes) {
            partials = direct(bytes);
        }
        partials.clear().limit(bytes);
        splits = plan.splits();
        from.enqueueRead(0, partials);
        device.flush();
    }

    /** Waits for the read, and merges what it gave. */
    void merge(ChannelMoments into) {
        finish();
        int channels = into.channels();
        for (int split = 0; split < splits; split++) {
            for (int c = 0; c < channels; c++) {
                int at = ChannelPlan.FORWARD_PARTIAL * (split * channels + c);
                into.merge(c, real(at), real(at + 1), real(at + 2));
            }
        }
    }

    /** Waits for the read, and adds what it gave. */
    void add(ChannelSums into) {
        finish();
        int channels = into.channels();
        for (int split = 0; split < splits; split++) {
            for (int c = 0; c < channels; c++) {
                int at = ChannelPlan.BACKWARD_PARTIAL * (split * channels + c);
                into.add(c, real(at), real(at + 1));
            }
        }
    }

    private void finish() {
        device.finish();
        writing = false;
    }

    /** As {@code moments_statistics} in real.clh. */
    void writeStatistics(ChannelMoments moments, double eps, Buffer stats) {
        ByteBuffer host = host(16 * moments.channels());
        for (int c = 0; c < moments.channels(); c++) {
            boolean any = moments.count(c) > 0; // of none, by their lengths, everything is 0
            double mean = moments.mean(c);
            double variance = any ? moments.variance(c) : 0;
            double spread = variance + eps;
            float high = (float) mean;
            host.putFloat(high);
            host.putFloat((float) (mean - high));
            host.putFloat(any && spread != 0 ? (float) (1 / Math.sqrt(spread)) : 0);
            host.putFloat((float) variance);
        }
        stats.enqueueWrite(0, host.flip());
        device.flush();
    }

    /** The means that a backward's dx takes. */
    void writeMeans(ChannelSums all, long count, Buffer sums) {
        ByteBuffer host = host(8 * all.channels());
        for (int c = 0; c < all.channels(); c++) {
            host.putFloat((float) (all.dBeta(c) / count));
            host.putFloat((float) (all.dGamma(c) / count));
        }
        sums.enqueueWrite(0, host.flip());
    }

    /** A real of the kernels: a double, or a high and a low float. */
    private double real(int index) {
        return doubles
                ? partials.getDouble(8 * index)
                : (double) partials.getFloat(8 * index) + partials.getFloat(8 * index + 4);
    }

    /** Memory for a write that nobody waits for; another one where the last may not be done. */
    private ByteBuffer host(int bytes) {
        if (writing || result.capacity() < bytes) {
            result = direct(bytes);
        }
        writing = true;
        return result.clear();
    }

    private static ByteBuffer direct(int bytes) {
        return ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder());
    }
}
