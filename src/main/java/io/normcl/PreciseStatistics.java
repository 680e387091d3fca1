package io.normcl;

import io.normcl.sync.ChannelAverages;
import io.normcl.sync.ChannelMoments;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * Re-estimates the running statistics of a whole network with fixed weights, or precise batch norm (Wu and Johnson 2021,
 * section 3): batch norms' from the moments of many batches, pooled by count, instance norms' from the averages over all
 * instances.
 *
 * <pre>{@code
 * PreciseStatistics precise = new PreciseStatistics();
 * for (each batch) {
 *     // forward in training, each norm's saved value kept; no backward, no commit
 *     precise.add(saved);
 *     saved.forEach(Saved::close);
 * }
 * precise.replace();
 * }</pre>
 *
 * <p>Everything is merged in the order it is added in. Nothing moves before {@link #replace}, and the counts of batches
 * not even then.
 */
public final class PreciseStatistics {
    private final Map<BatchNorm, ChannelMoments> moments = new LinkedHashMap<>();
    private final Map<InstanceNorm, ChannelAverages> averages = new LinkedHashMap<>();

    /** Starts with nothing. */
    public PreciseStatistics() {}

    /**
     * Adds a batch to the layers it went through; waits for the device. An empty batch adds nothing.
     *
     * @param batch what the norms' training forwards returned, of any devices; each is read, and stays the caller's
     * @throws ArithmeticException if a statistic is not finite; nothing of the batch was added, so that it can be left
     *     out
     * @throws IllegalArgumentException if one is of no norm with running statistics, or not of the batch: of an
     *     evaluation or a frozen layer; nothing of the batch was added
     */
    public void add(Collection<Saved> batch) {
        Map<Saved, ChannelMoments> newMoments = new LinkedHashMap<>();
        Map<Saved, ChannelAverages> newAverages = new LinkedHashMap<>();
        for (Saved saved : batch) {
            if (saved.layer() instanceof BatchNorm norm && norm.spec().runningStatistics()) {
                ChannelMoments of = saved.moments();
                if (of.count(0) > 0) {
                    Running.requireFinite(of.means(), of.variances());
                }
                newMoments.put(saved, of);
            } else if (saved.layer() instanceof InstanceNorm norm && norm.spec().runningStatistics()) {
                ChannelAverages of = norm.averages(saved);
                if (of.count(0) > 0) {
                    Running.requireFinite(of.means(), of.variances());
                }
                newAverages.put(saved, of);
            } else {
                throw new IllegalArgumentException(
                        "a re-estimation is of norms with running statistics: layer=" + saved.layer());
            }
        }
        newMoments.forEach((saved, of) -> moments.computeIfAbsent(
                        (BatchNorm) saved.layer(), norm -> new ChannelMoments(of.channels()))
                .merge(of));
        newAverages.forEach((saved, of) -> averages.computeIfAbsent(
                        (InstanceNorm) saved.layer(), norm -> new ChannelAverages(of.channels()))
                .add(of));
    }

    /**
     * Replaces the running statistics of every layer that was added to, whatever they were; waits for the devices.
     *
     * @throws IllegalArgumentException if there is a layer with no more than one value per channel, or no instance; those
     *     added to before it are replaced
     */
    public void replace() {
        moments.forEach(BatchNorm::replaceRunning);
        averages.forEach(InstanceNorm::replaceRunning);
    }
}
