package io.normcl.verify;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

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
     * Runs a case. Whatever goes wrong while it runs is its verdict, not an exception.
     *
     * @param run the case
     * @return what came of it
     * @throws IOException if the case can't be read
     */
    public Verdict judge(ConformanceCase run) throws IOException {
        Program program = programs.get(run.operation());
        if (program == null) {
            return whole(run, Verdict.Outcome.FAILED, "unknown operation " + run.operation());
        }
        if (inSingle(run) && run.list("f32").contains("not-applicable")) {
            return whole(run, Verdict.Outcome.SKIPPED, "can't be done in float");
        }
        Map<String, double[]> outputs;
        try {
            outputs = program.run(run);
        } catch (IllegalArgumentException e) {
            return whole(
                    run,
                    run.expectsRefusal() ? Verdict.Outcome.PASSED : Verdict.Outcome.FAILED,
                    "refused: " + e.getMessage());
        } catch (RuntimeException e) {
            return whole(run, Verdict.Outcome.FAILED, "broke off: " + e);
        }
        if (run.expectsRefusal()) {
            return whole(run, Verdict.Outcome.FAILED, "should have been refused");
        }
        return compare(run, outputs);
    }

    private static Verdict whole(ConformanceCase run, Verdict.Outcome outcome, String reason) {
        return new Verdict(run.name(), outcome, reason, List.of());
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
        for (String tensor : run.list("outputs")) {
            double[] got = all.get(tensor);
            comparisons.add(got == null ? failed(tensor, tensor + " is missing") : compare(run, tensor, got));
        }
        for (String tensor : run.list("optional_outputs")) {
            double[] got = all.get(tensor);
            if (got != null) {
                comparisons.add(compare(run, tensor, got));
            }
        }
        boolean passed = comparisons.stream().allMatch(Verdict.Comparison::passed);
        return new Verdict(
                run.name(), passed ? Verdict.Outcome.PASSED : Verdict.Outcome.FAILED, "", List.copyOf(comparisons));
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
        if (passed && !inSingle(run) && run.number("tier2.atol." + tensor) != null) {
            Misses tighter = misses(run, "tier2.", tensor, got, expected, nonFiniteEqual);
            tight = tighter.count() == 0;
            told = tight ? "" : tensor + " misses the tight tolerance in " + tighter.told(got, expected);
        }
        double error = 0;
        for (int i = 0; i < got.length; i++) {
            error = Math.max(error, finite(got[i], expected[i]) ? Math.abs(got[i] - expected[i]) : 0);
        }
        return new Verdict.Comparison(tensor, passed, tight, error, told);
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
        return new Verdict.Comparison(tensor, false, false, Double.NaN, told);
    }

    private record Misses(int count, int worst) {
        String told(double[] got, double[] expected) {
            return count + " of " + got.length + " values, worst at " + worst + ": " + got[worst] + ", not "
                    + expected[worst];
        }
    }
}
