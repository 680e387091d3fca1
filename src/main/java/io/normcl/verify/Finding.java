package io.normcl.verify;

import io.normcl.plan.Family;
import io.normcl.verify.Verdict.Comparison;
import io.normcl.verify.Verdict.Outcome;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.function.BinaryOperator;
import java.util.function.Predicate;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/**
 * What came of a case in every kernel family.
 *
 * @param name the case
 * @param verdicts by family, at least one, in the families' order
 * @param needsTight whether the tight tolerance, where the case has one, is to be reached: a device without double
 *     precision can't where sums overflow a float
 */
public record Finding(String name, Map<Family, Verdict> verdicts, boolean needsTight) {
    /**
     * The verdict that decides: a case fails if it fails in one family.
     *
     * @return the first that failed, else the first
     */
    public Verdict deciding() {
        return verdicts.values().stream()
                .filter(verdict -> verdict.outcome() == Outcome.FAILED)
                .findFirst()
                .orElseGet(() -> verdicts.values().iterator().next());
    }

    /**
     * The case's outcome.
     *
     * @return that of the verdict that decides
     */
    public Outcome outcome() {
        return deciding().outcome();
    }

    /**
     * Whether a tight tolerance that is to be reached is missed in a family.
     *
     * @return false where there is none
     */
    public boolean missesTight() {
        return needsTight && verdicts.values().stream().anyMatch(Verdict::missesTight);
    }

    /**
     * The tensors that are less exact than PyTorch in float where that shows.
     *
     * @return each of which {@link Comparison#lessExact} is true in a family, as in its worst
     */
    public List<Comparison> lessExact() {
        return tensors().filter(Comparison::lessExact).toList();
    }

    /** Each tensor compared, as in the family that has the largest error. */
    private Stream<Comparison> tensors() {
        return verdicts.values().stream()
                .flatMap(verdict -> verdict.tensors().stream())
                .collect(Collectors.toMap(
                        Comparison::tensor,
                        tensor -> tensor,
                        BinaryOperator.maxBy(Comparator.comparingDouble(Comparison::error)),
                        LinkedHashMap::new))
                .values()
                .stream();
    }

    /**
     * What there is to tell: that the case failed or was skipped, that it misses its tight tolerance, and which tensors
     * are less exact than PyTorch in float.
     *
     * @return lines, none where all is well
     */
    public List<String> lines() {
        List<String> lines = new ArrayList<>();
        Verdict deciding = deciding();
        if (outcome() == Outcome.FAILED) {
            double error = deciding.tensors().stream()
                    .mapToDouble(Comparison::error)
                    .filter(e -> !Double.isNaN(e))
                    .max()
                    .orElse(Double.NaN);
            String largest = Double.isNaN(error) ? "" : String.format(Locale.ROOT, ", largest error %.2e", error);
            lines.add("FAILED " + name + in(verdict -> verdict.outcome() == Outcome.FAILED) + largest + ": "
                    + deciding.told());
        } else if (outcome() == Outcome.SKIPPED) {
            lines.add("SKIPPED " + name + ": " + deciding.told());
        }
        if (missesTight()) {
            verdicts.values().stream()
                    .filter(Verdict::missesTight)
                    .findFirst()
                    .ifPresent(verdict ->
                            lines.add("NOT TIGHT " + name + in(Verdict::missesTight) + ": " + verdict.told()));
        }
        for (Comparison tensor : lessExact()) {
            Predicate<Verdict> same = verdict -> verdict.lessExact().stream()
                    .anyMatch(other -> other.tensor().equals(tensor.tensor()));
            lines.add(String.format(
                    Locale.ROOT,
                    "LESS EXACT THAN PYTORCH %s%s: %s, error %.2e, PyTorch's %.2e, two units in the last place %.2e",
                    name,
                    in(same),
                    tensor.tensor(),
                    tensor.error(),
                    tensor.pyTorchError(),
                    2 * tensor.ulp()));
        }
        return lines;
    }

    /** The families of which this is true. */
    private String in(Predicate<Verdict> which) {
        return verdicts.entrySet().stream()
                .filter(entry -> which.test(entry.getValue()))
                .map(Map.Entry::getKey)
                .map(Family::name)
                .collect(Collectors.joining(" and ", " in ", ""));
    }

    /**
     * What came of all cases, in numbers.
     *
     * @param findings one per case
     * @return lines, of which the last is {@code N passed, N failed, N skipped}
     */
    public static List<String> totals(List<Finding> findings) {
        long tight = count(
                findings,
                finding -> finding.needsTight()
                        && finding.deciding().tensors().stream().anyMatch(Comparison::hasTight));
        long compared = findings.stream()
                .flatMap(Finding::tensors)
                .filter(tensor -> !Double.isNaN(tensor.pyTorchError()))
                .count();
        long lessExact = findings.stream()
                .mapToLong(finding -> finding.lessExact().size())
                .sum();
        return List.of(
                String.format(
                        Locale.ROOT,
                        "%d of %d cases with a tight tolerance miss it",
                        count(findings, Finding::missesTight),
                        tight),
                String.format(
                        Locale.ROOT,
                        "%d of %d tensors are off by more than PyTorch's in float and than two units in the last place",
                        lessExact,
                        compared),
                String.format(
                        Locale.ROOT,
                        "%d passed, %d failed, %d skipped",
                        count(findings, finding -> finding.outcome() == Outcome.PASSED),
                        count(findings, finding -> finding.outcome() == Outcome.FAILED),
                        count(findings, finding -> finding.outcome() == Outcome.SKIPPED)));
    }

    private static long count(List<Finding> findings, Predicate<Finding> which) {
        return findings.stream().filter(which).count();
    }
}
