package io.normcl.reference;

import java.util.Arrays;

/** A sum of a high part and the rounding errors of all its additions (Neumaier 1974). */
final class Sum {
    private double high;
    private double low;

    /** So many sums of nothing. */
    static Sum[] zeros(int count) {
        Sum[] sums = new Sum[count];
        Arrays.setAll(sums, i -> new Sum());
        return sums;
    }

    static double[] values(Sum[] sums) {
        return Arrays.stream(sums).mapToDouble(Sum::value).toArray();
    }

    void add(double value) {
        double sum = high + value;
        double added = sum - high;
        low += (high - (sum - added)) + (value - added);
        high = sum;
    }

    double value() {
        return Double.isFinite(high) ? high + low : high;
    }

    /** The sum less {@code quotient·count}, rounded once or twice. */
    double remainder(double quotient, long count) {
        return Double.isFinite(quotient) ? Math.fma(-quotient, (double) count, high) + low : 0;
    }
}
