package io.normcl.verify;

import io.normcl.plan.Family;

/** The kernels that GPUs get. */
class CooperativeConformanceTest extends DeviceConformance {
    CooperativeConformanceTest() {
        super(Family.COOPERATIVE);
    }
}
