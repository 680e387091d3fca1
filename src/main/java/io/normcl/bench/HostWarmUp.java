package io.normcl.bench;

import io.normcl.bench.BenchCase.Op;
import io.normcl.bench.BenchCase.Pass;
import io.normcl.device.Device;
import io.normcl.plan.Tuning;
import io.normcl.tensor.Layout;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;

/**
 * Lets the JVM compile what a call runs through on the host, as it does in the first steps of a training: before, each
 * pass takes some tenth of a millisecond longer.
 */
public final class HostWarmUp {
    /** Until the JVM's better compiler has had its turn, where calls are as short as they should be. */
    private static final int CALLS = 3000;

    private static final long MOST_NANOS = 2_000_000_000L;

    private final Set<Op> warm = EnumSet.noneOf(Op.class);
    private boolean warmSynchronized;

    /**
     * Calls the passes of a case's layer on a tensor of few values; each layer once.
     *
     * @param device where
     * @param timed what is to be timed
     */
    public void of(Device device, BenchCase timed) {
        if (!warm.add(timed.op())) {
            return;
        }
        BenchCase small = small(timed.op(), 2);
        try (BenchLayer layer = BenchLayer.open(device, small, Tuning.NONE);
                TensorSets sets = TensorSets.allocate(device, small, 1)) {
            layer.prepare(sets.get(0));
            long start = System.nanoTime();
            for (int i = 0; i < CALLS && System.nanoTime() - start < MOST_NANOS; i++) {
                for (Pass pass : Pass.values()) {
                    layer.enqueue(pass, sets.get(0));
                }
                device.finish();
            }
        }
    }

    /**
     * Does the same with steps of synchronized batch norm; once.
     *
     * @param devices one for each shard
     */
    public void ofSynchronized(List<Device> devices) {
        if (!warmSynchronized) {
            warmSynchronized = true;
            LayerBench.Settings settings = new LayerBench.Settings(List.of(), CALLS / 2, true, Tuning.NONE);
            SyncBench.run(devices, small(Op.BATCH_NORM, devices.size()), settings, row -> {}, line -> {});
        }
    }

    private static BenchCase small(Op op, int samples) {
        return BenchCase.of(op, Layout.CHANNELS_LAST, samples + "x" + BenchCase.GROUPS + "x2");
    }
}
