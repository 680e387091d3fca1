package io.normcl.train;

import java.util.Map;

/**
 * All that a run has learned, at rest.
 *
 * @param step steps done
 * @param tensors by PyTorch's names the parameters and the first replica's running statistics; after
 *     {@code momentum.} the velocities; after {@code replica1.} and so on the running statistics of further replicas
 *     where each has its own
 */
public record State(long step, Map<String, float[]> tensors) {}
