package io.normcl.verify;

import java.util.List;
import java.util.stream.Collectors;

/**
 * What came of a case.
 *
 * @param name the case
 * @param outcome passed, failed or skipped
 * @param reason why it was refused, failed or skipped as a whole; empty where the tensors say it all
 * @param tensors each tensor compared
 */
public record Verdict(String name, Outcome outcome, String reason, List<Comparison> tensors) {
    /** The three ends of a case. */
    public enum Outcome {
        /** Every required tensor is within its tolerance, or the call was refused as it had to be. */
        PASSED,
        /** Anything else. */
        FAILED,
        /** A case in double precision that can't be done in float. */
        SKIPPED
    }

    /**
     * One tensor held against what is expected of it.
     *
     * @param tensor its name
     * @param passed whether every value is within the tolerance
     * @param tight whether every value is within the tight tolerance, where there is one, else as {@code passed}
     * @param error the largest absolute error of the finite values
     * @param told what is wrong; empty where it is within both tolerances
     */
    public record Comparison(String tensor, boolean passed, boolean tight, double error, String told) {}

    /**
     * Whether the case passed and each of its tensors reached the tight tolerance.
     *
     * @return true also for a refusal that had to be
     */
    public boolean tight() {
        return outcome == Outcome.PASSED && tensors.stream().allMatch(Comparison::tight);
    }

    /** The outcome, the case and what is wrong with it, in one line. */
    @Override
    public String toString() {
        String told = tensors.stream()
                .map(Comparison::told)
                .filter(part -> !part.isEmpty())
                .collect(Collectors.joining("; "));
        return outcome + " " + name + (reason.isEmpty() ? "" : ": " + reason) + (told.isEmpty() ? "" : ": " + told);
    }
}
