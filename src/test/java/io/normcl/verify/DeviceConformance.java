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
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Every case of every operation on a device at its tight tolerance, in a family of kernels and every form of plan. Each
 * family is a class of its own, since classes are what is shared out among the processes that test.
 */
abstract class DeviceConformance {
    private static final List<String> SKIPPED =
            List.of("SKIPPED bn_train_f64_mean1e8_std1e-4", "SKIPPED ln_f64_mean1e8");

    /**
     * Without double: no denormals either, and of two cases of overflow, whose variance no float holds, the values that
     * PyTorch's float gives, which the case accepts beside the exact ones of its tight tolerance.
     */
    private static final List<String> WITHOUT_DOUBLE = List.of(
            "FAILED bn_denormal_inputs",
            "PASSED bn_huge_8e37",
            "SKIPPED bn_train_f64_mean1e8_std1e-4",
            "SKIPPED ln_f64_mean1e8",
            "PASSED rms_huge_1e25");

    private static List<Device> devices = List.of();

    private final Family family;

    DeviceConformance(Family family) {
        this.family = family;
    }

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
    @ValueSource(booleans = {true, false})
    void everyForm(boolean fused) throws Exception {
        check(Tuning.of(family).withFused(fused));
    }

    /** The plan's own choice. */
    @Tag("llvmpipe")
    @Test
    void everyCase() throws Exception {
        check(Tuning.of(family));
    }

    /** Every case is tight but those named. */
    private static void check(Tuning tuning) throws Exception {
        Judge judge = new Judge(DevicePrograms.of(devices, tuning), true);
        List<String> others = new ArrayList<>();
        List<String> told = new ArrayList<>();
        try (ConformanceCases all = ConformanceCases.open(archive())) {
            assertEquals(185, all.names().size());
            for (String name : all.names()) {
                Verdict verdict = judge.judge(all.get(name));
                if (!verdict.tight()) {
                    others.add(verdict.outcome() + " " + name);
                    told.add(verdict.toString());
                }
            }
        }
        boolean fp64 = devices.get(0).limits().fp64();
        assertEquals(fp64 ? SKIPPED : WITHOUT_DOUBLE, others, () -> String.join("\n", told));
    }

    private static Path archive() throws URISyntaxException {
        return Path.of(Objects.requireNonNull(DeviceConformance.class.getResource("/conformance.zip"))
                .toURI());
    }
}
