package io.normcl.device;

/**
 * A kernel argument that asks for local memory.
 *
 * @param bytes how much of it each work-group gets
 */
public record LocalMemory(long bytes) {}
