package io.normcl.verify;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.normcl.plan.Family;
import io.normcl.verify.Verdict.Comparison;
import io.normcl.verify.Verdict.Ending;
import io.normcl.verify.Verdict.Outcome;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.junit.jupiter.api.Test;

/** What is told of a case that was run in two families. */
class FindingTest {
    private static final Verdict RIGHT = verdict(new Comparison("y", true, true, true, 0.5, 1, 0.25, ""));
    private static final Verdict LOOSE = verdict(new Comparison("y", true, true, false, 0.75, 1, 0.25, "y misses"));
    private static final Verdict WRONG = verdict(new Comparison("y", false, true, false, 2, 1, 0.25, "y is off"));

    private static Verdict verdict(Comparison... tensors) {
        Outcome outcome = List.of(tensors).stream().allMatch(Comparison::passed) ? Outcome.PASSED : Outcome.FAILED;
        return new Verdict("a", outcome, Ending.COMPUTED, "", List.of(tensors), Map.of());
    }

    private static Finding finding(Verdict wide, Verdict cooperative, boolean needsTight) {
        return new Finding("a", new TreeMap<>(Map.of(Family.WIDE, wide, Family.COOPERATIVE, cooperative)), needsTight);
    }

    @Test
    void aCasePassesOnlyInBothFamilies() {
        assertEquals(List.of(), finding(RIGHT, RIGHT, true).lines());
        Finding half = finding(RIGHT, WRONG, true);
        assertEquals(WRONG, half.deciding());
        assertEquals(
                List.of(
                        "FAILED a in COOPERATIVE, largest error 2.00e+00: y is off",
                        "NOT TIGHT a in COOPERATIVE: y is off",
                        "LESS EXACT THAN PYTORCH a in COOPERATIVE: y, error 2.00e+00, PyTorch's 1.00e+00, two units in"
                                + " the last place 5.00e-01"),
                half.lines());
        assertEquals(
                "FAILED a in WIDE and COOPERATIVE, largest error 2.00e+00: y is off",
                finding(WRONG, WRONG, true).lines().get(0));
    }

    @Test
    void aTightToleranceMayBeOutOfReach() {
        assertEquals(
                List.of("NOT TIGHT a in WIDE: y misses"),
                finding(LOOSE, RIGHT, true).lines());
        assertEquals(List.of(), finding(LOOSE, LOOSE, false).lines());
    }

    @Test
    void eachCaseCountsOnce() {
        Verdict skipped = new Verdict("a", Outcome.SKIPPED, Ending.NOT_OFFERED, "not in float", List.of(), Map.of());
        Finding skip = finding(skipped, skipped, true);
        assertEquals(List.of("SKIPPED a: not in float"), skip.lines());
        assertEquals(
                List.of(
                        "2 of 2 cases with a tight tolerance miss it",
                        "1 of 3 tensors are off by more than PyTorch's in float and than two units in the last place",
                        "2 passed, 1 failed, 1 skipped"),
                Finding.totals(List.of(
                        finding(WRONG, RIGHT, true), finding(RIGHT, LOOSE, true), finding(LOOSE, RIGHT, false), skip)));
    }
}
