package io.normcl.verify;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.normcl.Rig;
import io.normcl.device.Device;
import org.junit.jupiter.api.Test;

/** That a right device passes and a wrong value is seen. */
class SelfTestTest {
    @Test
    void passes() {
        try (Device device = Rig.open()) {
            SelfTest.Result result = SelfTest.run(device);
            assertTrue(result.passed(), result.toString());
            assertTrue(result.worst() < 1e-6, result.toString());
        }
        assertEquals(0, Device.liveHandles());
    }

    @Test
    void namesWhatFails() {
        try (Device device = Rig.open()) {
            device.budget(1000);
            SelfTest.Result result = SelfTest.run(device);
            assertEquals(6, result.faults().size());
            assertTrue(result.faults().get(0).startsWith("channels first, one launch: out of device memory"));
        }
    }

    @Test
    void seesAWrongValue() {
        double[] expected = {1, -4, 2};
        assertEquals(0, SelfTest.error(expected, new float[] {1, -4, 2}));
        assertEquals(0.25, SelfTest.error(expected, new float[] {1, -4, 3}));
        assertEquals(Double.NaN, SelfTest.error(expected, new float[] {1, Float.NaN, 2}));
    }
}
