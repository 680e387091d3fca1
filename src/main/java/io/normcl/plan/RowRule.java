package io.normcl.plan;

import java.util.Map;

/**
 * What tells the row norms apart, beside their view.
 *
 * @param centered whether values are taken about their mean; RMS norm takes them as they are
 * @param onePlusGamma whether values are multiplied by 1 + gamma
 * @param flatIsBeta what a row of variance and eps 0 gives: beta, or else NaN
 */
public record RowRule(boolean centered, boolean onePlusGamma, boolean flatIsBeta) {
    /** Layer norm's and group norm's. */
    public static final RowRule STANDARD = new RowRule(true, false, false);

    Map<String, String> defines() {
        return Map.of(
                "ROW_STATS",
                "1",
                "CENTERED",
                centered ? "1" : "0",
                "GAMMA_PLUS",
                onePlusGamma ? "1.0f" : "0.0f",
                "FLAT_INV_STD",
                flatIsBeta ? "0.0f" : "INFINITY");
    }
}
