package io.normcl.device;

/**
 * How long one launch took on the device.
 *
 * @param kernel the kernel's name
 * @param range its index space
 * @param nanos from start to end by the device's own clock
 */
public record KernelTime(String kernel, Range range, long nanos) {}
