package io.normcl;

import io.normcl.BatchNorm.Mode;
import io.normcl.BatchNorm.Saved;
import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.plan.ChannelPlan;
import io.normcl.plan.Plan;
import io.normcl.plan.Slot;
import io.normcl.sync.ChannelMoments;
import io.normcl.tensor.ChannelView;
import io.normcl.tensor.Tensor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * Synchronized batch norm: the same batch norm on several devices, normalizing over the concatenation of their shards.
 *
 * <p>Each device computes the partial statistics of its shard by its ordinary plan; the host merges them in double, in
 * the order of the replicas, and each device goes on with the result. The backward exchanges Σdy and Σdy·xHat the same
 * way and divides by the global count; dGamma and dBeta stay the shard's own, to be summed with the other gradients.
 * Shards may be uneven or empty. Every replica gets the same bits of mean, invStd, variance and sums, and so, after a
 * commit of its own saved value each, of the running statistics.
 *
 * <p>One call takes all replicas, on one thread; the devices work side by side. The call waits for the statistics and
 * returns before the outputs are done. To turn synchronization off, call the layers themselves.
 */
public final class Replicas {
    private final List<BatchNorm> replicas;
    private final List<Exchange> exchanges = new ArrayList<>();

    private Replicas(List<BatchNorm> replicas) {
        this.replicas = List.copyOf(replicas);
        for (BatchNorm replica : this.replicas) {
            exchanges.add(new Exchange(replica.device()));
        }
    }

    /**
     * Takes replicas of one layer; they stay the caller's.
     *
     * @param replicas at least one, of one spec; retained
     * @return the group
     * @throws IllegalArgumentException if there is none, one appears twice, or a spec or a count of batches differs;
     *     the message names the replica
     */
    public static Replicas of(List<BatchNorm> replicas) {
        if (replicas.isEmpty()) {
            throw new IllegalArgumentException("synchronization needs at least one replica: replicas=0");
        }
        requireAlike(replicas);
        return new Replicas(replicas);
    }

    private static void requireAlike(List<BatchNorm> replicas) {
        BatchNorm first = replicas.get(0);
        for (int i = 1; i < replicas.size(); i++) {
            BatchNorm other = replicas.get(i);
            if (replicas.indexOf(other) != i) {
                throw new IllegalArgumentException("a replica must appear once: replica=" + i);
            }
            if (!other.spec().equals(first.spec())) {
                throw new IllegalArgumentException("replicas must have one spec: replica 0=" + first.spec()
                        + ", replica " + i + "=" + other.spec());
            }
            if (other.batchesTracked() != first.batchesTracked()) {
                throw new IllegalArgumentException("replicas must be at one step: replica 0 batches="
                        + first.batchesTracked() + ", replica " + i + " batches=" + other.batchesTracked());
            }
        }
    }

    /**
     * Normalizes in training over all shards together.
     *
     * @param xs one shard for each replica, on its device, uneven or empty; read
     * @param ys as xs; overwritten; each may be its x's memory where no backward follows
     * @return what backward and commit need, one for each replica; the caller closes each
     * @throws IllegalArgumentException if a shard does not fit its replica, layouts differ, the replicas are no longer
     *     alike, or there is one value per channel in all and the spec refuses that
     */
    public List<Saved> forward(List<Tensor> xs, List<Tensor> ys) {
        requireCount("xs", xs);
        requireCount("ys", ys);
        requireAlike(replicas);
        List<ChannelView> views = new ArrayList<>();
        long count = 0;
        for (int i = 0; i < replicas.size(); i++) {
            ChannelView view = replicas.get(i).view(xs.get(i), "y", ys.get(i));
            if (xs.get(i).layout() != xs.get(0).layout()) {
                throw new IllegalArgumentException(
                        "shards must have one layout: replica 0=" + xs.get(0).layout() + ", replica " + i + "="
                                + xs.get(i).layout());
            }
            views.add(view);
            count += view.m();
        }
        boolean batch = replicas.get(0).usesBatch(Mode.TRAINING, count, xs.get(0));
        List<Saved> saved = new ArrayList<>();
        try {
            for (int i = 0; i < replicas.size(); i++) {
                saved.add(
                        batch
                                ? replicas.get(i).save(Mode.TRAINING, views.get(i), true, count, true)
                                : replicas.get(i).forward(xs.get(i), ys.get(i)));
            }
            if (batch && count > 0) {
                normalizeTogether(saved, xs, ys);
            }
            return saved;
        } catch (RuntimeException e) {
            saved.forEach(Saved::close);
            throw e;
        }
    }

    private void normalizeTogether(List<Saved> saved, List<Tensor> xs, List<Tensor> ys) {
        List<@Nullable Plan> plans = new ArrayList<>();
        List<Map<Slot, Object>> slots = new ArrayList<>();
        for (int i = 0; i < replicas.size(); i++) {
            BatchNorm replica = replicas.get(i);
            slots.add(replica.slots(saved.get(i), xs.get(i)));
            slots.get(i).put(Slot.Y, ys.get(i).buffer());
            boolean empty = saved.get(i).view().elements() == 0;
            Plan plan = empty ? null : replica.plan(saved.get(i).view(), true);
            plans.add(plan);
            if (plan != null) {
                Buffer partials = replica.putWorkspace(plan, slots.get(i));
                replica.launch(plan.calls().get(0), slots.get(i));
                exchanges.get(i).enqueueRead(partials, plan.workspaceBytes());
            }
        }
        int channels = replicas.get(0).spec().channels();
        ChannelMoments all = new ChannelMoments(channels);
        for (int i = 0; i < replicas.size(); i++) {
            Plan plan = plans.get(i);
            replicas.get(i).device().finish();
            if (plan != null) {
                Exchange exchange = exchanges.get(i);
                for (int split = 0; split < plan.splits(); split++) {
                    for (int c = 0; c < channels; c++) {
                        int at = ChannelPlan.FORWARD_PARTIAL * (split * channels + c);
                        all.merge(c, exchange.real(at), exchange.real(at + 1), exchange.real(at + 2));
                    }
                }
            }
        }
        for (int i = 0; i < replicas.size(); i++) {
            ByteBuffer stats = exchanges.get(i).host(16 * channels);
            for (int c = 0; c < channels; c++) {
                putStatistics(
                        stats,
                        all.mean(c),
                        all.variance(c),
                        replicas.get(0).spec().eps());
            }
            saved.get(i).stats().enqueueWrite(0, stats.flip());
            Plan plan = plans.get(i);
            if (plan != null) {
                replicas.get(i).launch(plan.calls().get(2), slots.get(i));
            }
            replicas.get(i).device().flush();
        }
    }

    /** As {@code moments_statistics} in real.clh. */
    private static void putStatistics(ByteBuffer stats, double mean, double variance, double eps) {
        double spread = variance + eps;
        float high = (float) mean;
        stats.putFloat(high);
        stats.putFloat((float) (mean - high));
        stats.putFloat(spread == 0 ? 0 : (float) (1 / Math.sqrt(spread)));
        stats.putFloat((float) variance);
    }

    /**
     * Computes gradients of a forward of these replicas.
     *
     * @param saved what the forward returned
     * @param xs what the forward read
     * @param dys the gradients of ys
     * @param outs where to write, one for each replica; dGamma and dBeta are the shard's own share, not summed over
     *     the replicas; an empty shard's are 0
     * @throws IllegalArgumentException if a shape, device or saved value is not the forward's
     */
    public void backward(List<Saved> saved, List<Tensor> xs, List<Tensor> dys, List<Gradients> outs) {
        requireCount("saved", saved);
        requireCount("xs", xs);
        requireCount("dys", dys);
        requireCount("outs", outs);
        for (int i = 0; i < replicas.size(); i++) {
            replicas.get(i).checkBackward(saved.get(i), xs.get(i), dys.get(i), outs.get(i));
            if (saved.get(i).count() != saved.get(0).count()) {
                throw new IllegalArgumentException("saved values must be of one forward: replica 0 values="
                        + saved.get(0).count() + ", replica " + i + " values="
                        + saved.get(i).count());
            }
        }
        if (!saved.get(0).ofBatch()) {
            for (int i = 0; i < replicas.size(); i++) {
                replicas.get(i).backward(saved.get(i), xs.get(i), dys.get(i), outs.get(i));
            }
            return;
        }
        differentiateTogether(saved, xs, dys, outs);
    }

    private void differentiateTogether(List<Saved> saved, List<Tensor> xs, List<Tensor> dys, List<Gradients> outs) {
        List<@Nullable Plan> plans = new ArrayList<>();
        List<Map<Slot, Object>> slots = new ArrayList<>();
        for (int i = 0; i < replicas.size(); i++) {
            BatchNorm replica = replicas.get(i);
            slots.add(replica.backwardSlots(saved.get(i), xs.get(i), dys.get(i), outs.get(i)));
            boolean empty = saved.get(i).view().elements() == 0;
            Plan plan = empty ? null : replica.sumsPlan(saved.get(i), outs.get(i));
            plans.add(plan);
            if (plan == null) {
                replica.clear(outs.get(i));
            } else {
                Buffer partials = replica.putWorkspace(plan, slots.get(i));
                replica.launch(plan.calls().get(0), slots.get(i));
                exchanges.get(i).enqueueRead(partials, plan.workspaceBytes());
                replica.launch(plan.calls().get(1), slots.get(i));
            }
        }
        int channels = replicas.get(0).spec().channels();
        double[] dBeta = new double[channels];
        double[] dGamma = new double[channels];
        for (int i = 0; i < replicas.size(); i++) {
            Plan plan = plans.get(i);
            if (plan != null) {
                Exchange exchange = exchanges.get(i);
                replicas.get(i).device().finish();
                for (int split = 0; split < plan.splits(); split++) {
                    for (int c = 0; c < channels; c++) {
                        int at = ChannelPlan.BACKWARD_PARTIAL * (split * channels + c);
                        dBeta[c] += exchange.real(at);
                        dGamma[c] += exchange.real(at + 1);
                    }
                }
            }
        }
        long count = saved.get(0).count();
        for (int i = 0; i < replicas.size(); i++) {
            Plan plan = plans.get(i);
            if (plan != null && plan.calls().size() > 2) {
                ByteBuffer sums = exchanges.get(i).host(8 * channels);
                for (int c = 0; c < channels; c++) {
                    sums.putFloat((float) (dBeta[c] / count));
                    sums.putFloat((float) (dGamma[c] / count));
                }
                saved.get(i).sums().enqueueWrite(0, sums.flip());
                replicas.get(i).launch(plan.calls().get(2), slots.get(i));
                replicas.get(i).device().flush();
            }
        }
    }

    private void requireCount(String name, List<?> values) {
        if (values.size() != replicas.size()) {
            throw new IllegalArgumentException("there must be one for each replica: " + name + "=" + values.size()
                    + ", replicas=" + replicas.size());
        }
    }

    /** The host's side of one device: what it read from there and what it writes back. */
    private static final class Exchange {
        private final boolean doubles;
        private ByteBuffer partials = direct(0);
        private ByteBuffer result = direct(0);

        Exchange(Device device) {
            doubles = device.limits().fp64();
        }

        void enqueueRead(Buffer from, long bytes) {
            if (partials.capacity() < bytes) {
                partials = direct(Math.toIntExact(bytes));
            }
            partials.clear().limit((int) bytes);
            from.enqueueRead(0, partials);
            from.device().flush();
        }

        /** A real of the kernels: a double, or a high and a low float. */
        double real(int index) {
            return doubles
                    ? partials.getDouble(8 * index)
                    : (double) partials.getFloat(8 * index) + partials.getFloat(8 * index + 4);
        }

        /** Memory for a write; the last write from it is done, since a read was waited for in between. */
        ByteBuffer host(int bytes) {
            if (result.capacity() < bytes) {
                result = direct(bytes);
            }
            return result.clear();
        }

        private static ByteBuffer direct(int bytes) {
            return ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder());
        }
    }
}
