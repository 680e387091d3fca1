package io.normcl.device;

/** A device under limits that are not its own, so that plans for other devices can run on it. */
public final class OtherLimits {
    private OtherLimits() {}

    /** The device, which stays open longer and is not used meanwhile; no limit may be beyond its own. */
    public static Device of(Device device, Limits limits) {
        Description own = device.description();
        Description other = new Description(
                own.index(), own.platform(), own.name(), own.vendor(), own.type(), own.driver(), own.version(), limits);
        return new Device(other, device.name(), device.id(), false, device.context(), device.queue(), false);
    }
}
