package io.normcl.verify;

import io.normcl.exchange.Npy;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;

/**
 * What came of a case.
 *
 * @param name the case
 * @param outcome passed, failed or skipped
 * @param ending how the program ended
 * @param reason why it was refused, failed or skipped as a whole; empty where the tensors say it all
 * @param tensors each tensor compared
 * @param outputs what was computed of that which the case names, by its names; empty unless it was computed
 */
public record Verdict(
        String name,
        Outcome outcome,
        Ending ending,
        String reason,
        List<Comparison> tensors,
        Map<String, Npy> outputs) {
    /** The three ends of a case. */
    public enum Outcome {
        /** Every required tensor is within its tolerance, or the call was refused as it had to be. */
        PASSED,
        /** Anything else. */
        FAILED,
        /** A case in double precision that can't be done in float. */
        SKIPPED
    }

    /** How a program ends. */
    public enum Ending {
        /** It gave its outputs. */
        COMPUTED,
        /** It refused the call. */
        REFUSED,
        /** It was not asked: nothing offers the operation, or it can't be done in float. */
        NOT_OFFERED,
        /** It broke off, or the case can't be read. */
        BROKEN
    }

    /**
     * One tensor held against what is expected of it.
     *
     * @param tensor its name
     * @param passed whether every value is within the tolerance
     * @param hasTight whether there is a tight tolerance
     * @param tight whether every value is within the tight tolerance, where there is one, else as {@code passed}
     * @param error the largest absolute error of the finite values
     * @param pyTorchError the same of PyTorch in float, NaN where the case does not say
     * @param ulp the unit in the last place, in float, of the largest expected value
     * @param told what is wrong; empty where it is within both tolerances
     */
    public record Comparison(
            String tensor,
            boolean passed,
            boolean hasTight,
            boolean tight,
            double error,
            double pyTorchError,
            double ulp,
            String told) {
        /**
         * Whether it is less exact than PyTorch in float where that shows.
         *
         * @return true if the error is larger than PyTorch's, which the case names, and than two units in the last
         *     place of the largest value
         */
        public boolean lessExact() {
            return error > Math.max(pyTorchError, 2 * ulp); // false where one is NaN
        }
    }

    /**
     * Whether the case passed and each of its tensors reached the tight tolerance.
     *
     * @return true also for a refusal that had to be
     */
    public boolean tight() {
        return outcome == Outcome.PASSED && tensors.stream().allMatch(Comparison::tight);
    }

    /**
     * Whether the case has a tight tolerance that one of its tensors does not reach.
     *
     * @return false also where no tensor was compared
     */
    public boolean missesTight() {
        return tensors.stream().anyMatch(tensor -> tensor.hasTight() && !tensor.tight());
    }

    /**
     * The tensors that are less exact than PyTorch in float where that shows.
     *
     * @return each of which {@link Comparison#lessExact} is true
     */
    public List<Comparison> lessExact() {
        return tensors.stream().filter(Comparison::lessExact).toList();
    }

    /**
     * What is wrong with the case, or why it was refused or skipped.
     *
     * @return one line, empty where every tensor reached the tight tolerance
     */
    public String told() {
        return reason
                + tensors.stream()
                        .map(Comparison::told)
                        .filter(part -> !part.isEmpty())
                        .collect(Collectors.joining("; "));
    }

    /** The outcome, the case and what is wrong with it, in one line. */
    @Override
    public String toString() {
        return outcome + " " + name + (told().isEmpty() ? "" : ": " + told());
    }
}
