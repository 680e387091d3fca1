package io.normcl.device;

/**
 * An OpenCL device as found, before it is opened.
 *
 * @param index its number in {@link Device#list()}, which a selector may name
 * @param platform the platform's name
 * @param name the device's name
 * @param vendor the device's vendor
 * @param type {@code cpu}, {@code gpu} or {@code accelerator}
 * @param driver the driver's version
 * @param version the OpenCL version the device offers
 * @param limits its limits
 */
public record Description(
        int index,
        String platform,
        String name,
        String vendor,
        String type,
        String driver,
        String version,
        Limits limits) {
    @Override
    public String toString() {
        return index + ": " + type + " " + name + " (" + platform + ")";
    }
}
