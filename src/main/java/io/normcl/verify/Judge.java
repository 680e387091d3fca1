package io.normcl.verify;

import io.normcl.exchange.Npy;
import io.normcl.verify.Verdict.Ending;
import io.normcl.verify.Verdict.Outcome;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.TreeMap;

/**
 * Runs cases and says what came of them. A value a passes against an expected b where |a − b| ≤ atol + rtol·|b|; NaN
 * equals NaN, infinities equal those of their sign. Where a case has a second accepted tensor, either will do.
 */
public final class Judge {
    private static final int BLOCKS = 64;

    private final Map<String, Program> programs;
    private final boolean single;

    /**
     * A judge of what these programs compute.
     *
     * @param programs the programs by the operation that they run
     * @param single whether they compute in float, so that cases in double have other tolerances, or can't be run
     */
    public Judge(Map<String, Program> programs, boolean single) {
        this.programs = Map.copyOf(programs);
        this.single = single;
    }

    /**
     * Runs a case. Whatever goes wrong, with the case or while it runs, is its verdict, not an exception.
     *
     * @param run the case
     * @return what came of it
     */
    public Verdict judge(ConformanceCase run) {
        try {
            return judgeReadable(run);
        } catch (IOException | RuntimeException e) {
            return unreadable(run.name(), e);
        }
    }

    /** The verdict on a case that can't be read. */
    static Verdict unreadable(String name, Exception e) {
        return whole(name, Outcome.FAILED, Ending.BROKEN, "can't be read: " + e.getMessage());
    }

    private Verdict judgeReadable(ConformanceCase run) throws IOException {
        boolean refusal = run.expectsRefusal();
        Program program = programs.get(run.operation());
        if (program == null) {
            String reason = "unknown operation " + run.operation();
            return whole(run.name(), Outcome.FAILED, Ending.NOT_OFFERED, reason);
        }
        if (inSingle(run) && run.property("f32", "").equals("not-applicable")) {
            return whole(run.name(), Outcome.SKIPPED, Ending.NOT_OFFERED, "can't be done in float");
        }
        for (String tensor : run.list("inputs")) {
            if (!run.has(tensor)) {
                throw new IOException("a case needs its inputs: missing=" + tensor);
            }
        }
        if (!refusal && run.list("outputs").isEmpty()) {
            throw new IOException("a case needs outputs: outputs=" + run.property("outputs"));
        }
        Map<String, double[]> outputs;
        try {
            outputs = program.run(run);
        } catch (NumberFormatException e) { // of a property
            throw new IOException("a number was expected: " + e.getMessage(), e);
        } catch (IllegalArgumentException e) {
            Outcome outcome = refusal ? Outcome.PASSED : Outcome.FAILED;
            return whole(run.name(), outcome, Ending.REFUSED, "refused: " + e.getMessage());
        } catch (RuntimeException e) {
            return whole(run.name(), Outcome.FAILED, Ending.BROKEN, "broke off: " + e);
        }
        if (refusal) {
            return whole(run.name(), Outcome.FAILED, Ending.COMPUTED, "should have been refused");
        }
        return compare(run, outputs);
    }

    private static Verdict whole(String name, Outcome outcome, Ending ending, String reason) {
        return new Verdict(name, outcome, ending, reason, List.of(), Map.of());
    }

    private boolean inSingle(ConformanceCase run) {
        return single && run.property("dtype").equals("float64");
    }

    private Verdict compare(ConformanceCase run, Map<String, double[]> outputs) throws IOException {
        Map<String, double[]> all = new HashMap<>(outputs);
        for (Map.Entry<String, double[]> output : outputs.entrySet()) {
            if (run.has(output.getKey() + "_sample")) {
                summarize(output.getKey(), output.getValue(), run.values("sample_index"), all);
            }
        }
        List<Verdict.Comparison> comparisons = new ArrayList<>();
        Map<String, Npy> named = new TreeMap<>();
        for (String tensor : run.list("outputs")) {
            double[] got = all.get(tensor);
            if (got == null) {
                comparisons.add(failed(tensor, tensor + " is missing"));
            } else {
                comparisons.add(compare(run, tensor, got));
                named.put(tensor, run.like(tensor, got));
            }
        }
        for (String tensor : run.list("optional_outputs")) {
            double[] got = all.get(tensor);
            if (got != null) {
                comparisons.add(compare(run, tensor, got));
                named.put(tensor, run.like(tensor, got));
            }
        }
        boolean passed = comparisons.stream().allMatch(Verdict.Comparison::passed);
        return new Verdict(
                run.name(),
                passed ? Outcome.PASSED : Outcome.FAILED,
                Ending.COMPUTED,
                "",
                List.copyOf(comparisons),
                named);
    }

    /** What a seeded case keeps of a large tensor: some of its values, and sums over 64 blocks of it. */
    private static void summarize(String tensor, double[] values, double[] indices, Map<String, double[]> all) {
        double[] sums = new double[BLOCKS];
        double[] squares = new double[BLOCKS];
        for (int block = 0; block < BLOCKS; block++) {
            int end = (int) ((block + 1L) * values.length / BLOCKS);
            for (int i = (int) ((long) block * values.length / BLOCKS); i < end; i++) {
                sums[block] += values[i];
                squares[block] += values[i] * values[i];
            }
        }
        all.put(
                tensor + "_sample",
                Arrays.stream(indices).map(i -> values[(int) i]).toArray());
        all.put(tensor + "_blocksum", sums);
        all.put(tensor + "_blocksumsq", squares);
    }

    private Verdict.Comparison compare(ConformanceCase run, String tensor, double[] got) throws IOException {
        double[] expected = run.values(tensor);
        if (got.length != expected.length) {
            return failed(tensor, tensor + " has " + got.length + " values, not " + expected.length);
        }
        boolean nonFiniteEqual = run.list("nonfinite_equal").contains(tensor);
        String prefix = inSingle(run) ? "f32." : "";
        Misses misses = misses(run, prefix, tensor, got, expected, nonFiniteEqual);
        boolean passed = misses.count() == 0;
        if (!passed && run.has("alt_" + tensor)) {
            double[] second = run.values("alt_" + tensor);
            passed = misses(run, prefix, tensor, got, second, nonFiniteEqual).count() == 0;
        }
        String told = passed ? "" : tensor + " is off in " + misses.told(got, expected);
        boolean tight = passed;
        boolean hasTight = !inSingle(run) && run.number("tier2.atol." + tensor) != null;
        if (passed && hasTight) {
            Misses tighter = misses(run, "tier2.", tensor, got, expected, nonFiniteEqual);
            tight = tighter.count() == 0;
            told = tight ? "" : tensor + " misses the tight tolerance in " + tighter.told(got, expected);
        }
        double error = 0;
        double largest = 0;
        for (int i = 0; i < got.length; i++) {
            error = Math.max(error, finite(got[i], expected[i]) ? Math.abs(got[i] - expected[i]) : 0);
            largest = Math.max(largest, Double.isFinite(expected[i]) ? Math.abs(expected[i]) : 0);
        }
        double ulp = Math.ulp((float) Math.min(largest, Float.MAX_VALUE));
        double pyTorchError = Objects.requireNonNullElse(run.number("torch32.maxabs." + tensor), Double.NaN);
        return new Verdict.Comparison(tensor, passed, hasTight, tight, error, pyTorchError, ulp, told);
    }

    private static Misses misses(
            ConformanceCase run,
            String prefix,
            String tensor,
            double[] got,
            double[] expected,
            boolean nonFiniteEqual) {
        double relative = Double.parseDouble(run.property(prefix + "rtol." + tensor));
        double absolute = Double.parseDouble(run.property(prefix + "atol." + tensor));
        int count = 0;
        int worst = -1;
        double largest = -1;
        for (int i = 0; i < got.length; i++) {
            double a = got[i];
            double b = expected[i];
            double distance = finite(a, b) ? Math.abs(a - b) : Double.POSITIVE_INFINITY;
            boolean held = finite(a, b)
                    ? distance <= absolute + relative * Math.abs(b)
                    : Double.compare(a, b) == 0 || (nonFiniteEqual && !Double.isFinite(a) && !Double.isFinite(b));
            if (!held) {
                count++;
                worst = distance > largest ? i : worst;
                largest = Math.max(distance, largest);
            }
        }
        return new Misses(count, worst);
    }

    private static boolean finite(double a, double b) {
        return Double.isFinite(a) && Double.isFinite(b);
    }

    private static Verdict.Comparison failed(String tensor, String told) {
        return new Verdict.Comparison(tensor, false, false, false, Double.NaN, Double.NaN, Double.NaN, told);
    }

    private record Misses(int count, int worst) {
        String told(double[] got, double[] expected) {
            return count + " of " + got.length + " values, worst at " + worst + ": " + got[worst] + ", not "
                    + expected[worst];
        }
    }
}
