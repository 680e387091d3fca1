package io.normcl.verify;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.normcl.Rig;
import io.normcl.device.Device;
import io.normcl.plan.Family;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** Every case, of every operation, as the library does it on the device: at its tight tolerance in both kernel families. */
@Tag("llvmpipe")
class DeviceConformanceTest {
    /** Those that a device without double precision can't do: it has no denormals either, and its sums overflow. */
    private static final List<String> NEED_DOUBLE = List.of("bn_denormal_inputs");

    @Test
    void everyCase() throws Exception {
        Path archive = Path.of(Objects.requireNonNull(DeviceConformanceTest.class.getResource("/conformance.zip"))
                .toURI());
        List<String> others = new ArrayList<>();
        List<Device> devices = Device.open(Rig.SELECTOR + ":4");
        try (ConformanceCases all = ConformanceCases.open(archive)) {
            assertEquals(185, all.names().size());
            Verification verification = new Verification(devices);
            for (String name : all.names()) {
                long start = System.nanoTime();
                Finding finding = verification.run(all, name);
                System.out.println((System.nanoTime() - start) / 1000000 + " ms " + name);
                for (Map.Entry<Family, Verdict> verdict : finding.verdicts().entrySet()) {
                    if (!verdict.getValue().tight()) {
                        others.add(verdict.getKey() + " " + verdict.getValue());
                    }
                }
            }
        } finally {
            devices.forEach(Device::close);
        }
        assertEquals(NEED_DOUBLE, others);
    }
}
