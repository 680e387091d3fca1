package io.normcl.verify;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.normcl.Rig;
import io.normcl.device.Device;
import io.normcl.plan.Family;
import io.normcl.plan.Tuning;
import java.net.URISyntaxException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Every case of every operation on a device at its tight tolerance, in both kernel families and every form of plan. */
class DeviceConformanceTest {
    private static List<Device> devices = List.of();

    @BeforeAll
    static void open() {
        devices = Device.open(Rig.SELECTOR + ":4");
    }

    @AfterAll
    static void close() {
        devices.forEach(Device::close);
        assertEquals(0, Device.liveHandles());
    }

    @ParameterizedTest
    @CsvSource({"WIDE,true", "WIDE,false", "WIDE,own", "COOPERATIVE,true", "COOPERATIVE,false", "COOPERATIVE,own"})
    void everyCase(Family family, String fused) throws Exception {
        Tuning tuning = Tuning.of(family);
        tuning = fused.equals("own") ? tuning : tuning.withFused(Boolean.parseBoolean(fused));
        Judge judge = new Judge(DevicePrograms.of(devices, tuning), true);
        List<String> others = new ArrayList<>();
        try (ConformanceCases all = ConformanceCases.open(archive())) {
            assertEquals(185, all.names().size());
            for (String name : all.names()) {
                Verdict verdict = judge.judge(all.get(name));
                if (!verdict.tight()) {
                    others.add(verdict.toString());
                }
            }
        }
        assertEquals(
                List.of(
                        "SKIPPED bn_train_f64_mean1e8_std1e-4: can't be done in float",
                        "SKIPPED ln_f64_mean1e8: can't be done in float"),
                others);
    }

    private static Path archive() throws URISyntaxException {
        return Path.of(Objects.requireNonNull(DeviceConformanceTest.class.getResource("/conformance.zip"))
                .toURI());
    }
}
