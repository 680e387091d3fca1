package io.normcl.verify;

import java.io.IOException;
import java.util.Map;

/** What runs cases of some operations: the library on a device, or the reference. */
@FunctionalInterface
public interface Program {
    /**
     * Runs a case.
     *
     * @param conformanceCase the case, of an operation that this program offers
     * @return what was computed, by the names of the case's outputs in C order; of a seeded case the whole tensor
     *     {@code y} where the case names {@code y_sample} or block sums of it
     * @throws IOException if the case can't be read
     * @throws IllegalArgumentException if the call is refused
     */
    Map<String, double[]> run(ConformanceCase conformanceCase) throws IOException;
}
