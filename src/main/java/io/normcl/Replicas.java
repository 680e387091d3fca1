package io.normcl;

import io.normcl.sync.ChannelMoments;
import io.normcl.sync.ChannelSums;
import io.normcl.tensor.Tensor;
import java.util.ArrayList;
import java.util.List;

/**
 * Synchronized batch norm: the same batch norm on several devices, normalizing over the concatenation of their shards.
 *
 * <p>Each device computes the partial statistics of its shard by its ordinary plan; the host merges them in double, in
 * the order of the replicas, and each device goes on with the result. The backward exchanges Σg and Σg·xHat the same
 * way and divides by the global count; dGamma and dBeta stay the shard's own, to be summed with the other gradients.
 * Shards may be uneven or empty. Every replica gets the same bits of mean, invStd, variance and sums, and so, after a
 * commit of its own saved value each, of the running statistics.
 *
 * <p>One call takes all replicas, on one thread; the devices work side by side. The call waits for the statistics and
 * returns before the outputs are done. To turn synchronization off, call the layers themselves.
 */
public final class Replicas {
    private final List<BatchNorm> replicas;

    private Replicas(List<BatchNorm> replicas) {
        this.replicas = List.copyOf(replicas);
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
     * @param xs one shard for each replica, on its device, uneven or empty, each with or without lengths; read
     * @param ys as xs; overwritten; each may be its x's memory where no backward follows
     * @return what backward and commit need, one for each replica; the caller closes each
     * @throws IllegalArgumentException if a shard does not fit its replica, layouts or types differ, the replicas are no
     *     longer alike, or there is one value per channel in all and the spec refuses that
     */
    public List<Saved> forward(List<Input> xs, List<Tensor> ys) {
        requireCount("xs", xs);
        requireCount("ys", ys);
        requireAlike(replicas);
        long count = 0;
        Tensor first = xs.get(0).x();
        for (int i = 0; i < replicas.size(); i++) {
            replicas.get(i).view(xs.get(i), ys.get(i));
            Tensor x = xs.get(i).x();
            if (x.layout() != first.layout() || x.type() != first.type()) {
                throw new IllegalArgumentException(
                        "shards must have one layout and type: replica 0=" + first + ", replica " + i + "=" + x);
            }
            count += replicas.get(i).count(xs.get(i));
        }
        boolean batch = replicas.get(0).usesBatch(Mode.TRAINING, count, first);
        ChannelMoments all = batch ? moments(xs) : null;
        List<Saved> saved = new ArrayList<>();
        try {
            for (int i = 0; i < replicas.size(); i++) {
                BatchNorm replica = replicas.get(i);
                saved.add(
                        all == null
                                ? replica.forward(Mode.TRAINING, xs.get(i), ys.get(i), false, count)
                                : replica.forward(xs.get(i), ys.get(i), all));
                replica.device().flush();
            }
            return saved;
        } catch (RuntimeException e) {
            saved.forEach(Saved::close);
            throw e;
        }
    }

    /** The statistics of all shards, started on every device before the first is waited for. */
    private ChannelMoments moments(List<Input> xs) {
        List<Saved> started = new ArrayList<>();
        try {
            for (int i = 0; i < replicas.size(); i++) {
                started.add(replicas.get(i).start(xs.get(i)));
            }
            ChannelMoments all = new ChannelMoments(replicas.get(0).spec().channels());
            for (int i = 0; i < replicas.size(); i++) {
                replicas.get(i).finish(started.get(i), all);
            }
            return all;
        } finally {
            started.forEach(Saved::close);
        }
    }

    /**
     * Computes gradients of a forward of these replicas.
     *
     * @param saved what the forward returned
     * @param xs what the forward read
     * @param dys the gradients of ys
     * @param outs where to write, one for each replica; dGamma and dBeta are the shard's own share, not summed over
     *     the replicas; an empty shard's are 0
     * @throws IllegalArgumentException if a shape, type, device or saved value is not the forward's
     */
    public void backward(List<Saved> saved, List<Input> xs, List<Tensor> dys, List<Gradients> outs) {
        requireCount("saved", saved);
        requireCount("xs", xs);
        requireCount("dys", dys);
        requireCount("outs", outs);
        for (int i = 0; i < replicas.size(); i++) {
            replicas.get(i).requireBackward(saved.get(i), xs.get(i), dys.get(i), outs.get(i));
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
        for (int i = 0; i < replicas.size(); i++) {
            replicas.get(i).startSums(saved.get(i), xs.get(i), dys.get(i), outs.get(i));
        }
        ChannelSums all = new ChannelSums(replicas.get(0).spec().channels());
        for (int i = 0; i < replicas.size(); i++) {
            replicas.get(i).finishSums(saved.get(i), all);
        }
        for (int i = 0; i < replicas.size(); i++) {
            replicas.get(i).backward(saved.get(i), xs.get(i), dys.get(i), outs.get(i), all);
            replicas.get(i).device().flush();
        }
    }

    private void requireCount(String name, List<?> values) {
        if (values.size() != replicas.size()) {
            throw new IllegalArgumentException("there must be one for each replica: " + name + "=" + values.size()
                    + ", replicas=" + replicas.size());
        }
    }
}
