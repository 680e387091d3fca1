package io.normcl.verify;

import io.normcl.plan.Family;

/** The kernels that CPUs get. */
class WideConformanceTest extends DeviceConformance {
    WideConformanceTest() {
        super(Family.WIDE);
    }
}
