package io.normcl.verify;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.normcl.exchange.Npy;
import io.normcl.verify.Verdict.Outcome;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** What passes, what fails and what is only loose, on cases made for it. */
class JudgeTest {
    private static final String VALUES = """
            op=double
            dtype=float32
            expect=values
            outputs=y
            optional_outputs=mean
            rtol.y=0.1
            atol.y=1
            tier2.rtol.y=0
            tier2.atol.y=0.5
            rtol.mean=0
            atol.mean=0
            """;

    @TempDir
    Path folder;

    @BeforeEach
    void expectations() throws IOException {
        double[] y = {10, Double.NaN, Double.POSITIVE_INFINITY};
        Npy.of(y, 3).write(folder.resolve("y.npy"));
        Npy.of(new double[] {4}, 1).write(folder.resolve("mean.npy"));
    }

    @ParameterizedTest
    @CsvSource({
        "10.5,      NaN,       Infinity,  PASSED, true",
        "12,        NaN,       Infinity,  PASSED, false",
        "8,         NaN,       Infinity,  PASSED, false",
        "12.01,     NaN,       Infinity,  FAILED, false",
        "NaN,       NaN,       Infinity,  FAILED, false",
        "Infinity,  NaN,       Infinity,  FAILED, false",
        "10,        0,         Infinity,  FAILED, false",
        "10,        NaN,       NaN,       FAILED, false",
        "10,        NaN,       -Infinity, FAILED, false",
        "10,        NaN,       3e38,      FAILED, false",
    })
    void eachValueIsHeldToItsTolerance(double first, double second, double third, Outcome outcome, boolean tight)
            throws IOException {
        Verdict verdict = judge(VALUES, Map.of("y", new double[] {first, second, third}), true);
        assertEquals(outcome, verdict.outcome(), verdict::toString);
        assertEquals(tight, verdict.tight(), verdict::toString);
    }

    @Test
    void aVerdictTellsWhatIsWrong() throws IOException {
        String name = folder.getFileName().toString();
        Verdict off = judge(VALUES, Map.of("y", new double[] {14, Double.NaN, 0}), true);
        assertEquals("FAILED " + name + ": y is off in 2 of 3 values, worst at 2: 0.0, not Infinity", off.toString());
        assertEquals(4, off.tensors().get(0).error());
        Verdict loose = judge(VALUES, Map.of("y", new double[] {11, Double.NaN, Double.POSITIVE_INFINITY}), true);
        assertEquals(
                "PASSED " + name + ": y misses the tight tolerance in 1 of 3 values, worst at 0: 11.0, not 10.0",
                loose.toString());
    }

    @Test
    void aTensorIsLessExactThanPyTorchBeyondItsErrorAndTwoUnitsInTheLastPlace() throws IOException {
        double ulp = Math.ulp(10f);
        double[] near = {10 + 2 * ulp, Double.NaN, Double.POSITIVE_INFINITY};
        double[] off = {10 + 3 * ulp, Double.NaN, Double.POSITIVE_INFINITY};
        assertEquals(0, judge(VALUES, Map.of("y", off), true).lessExact().size());
        String smaller = VALUES + "torch32.maxabs.y=0\n";
        assertEquals(0, judge(smaller, Map.of("y", near), true).lessExact().size());
        assertEquals(
                List.of("y"),
                judge(smaller, Map.of("y", off), true).lessExact().stream()
                        .map(Verdict.Comparison::tensor)
                        .toList());
        String larger = VALUES + "torch32.maxabs.y=" + 3 * ulp + "\n";
        assertEquals(0, judge(larger, Map.of("y", off), true).lessExact().size());
    }

    @Test
    void aDamagedCaseFailsAndNeverPassesAsARefusal() throws IOException {
        Map<String, double[]> right = Map.of("y", new double[] {10, Double.NaN, Double.POSITIVE_INFINITY});
        assertEquals(Outcome.PASSED, judge(VALUES, right, true).outcome());
        damaged("missing=op", VALUES.replace("op=", "was="), run -> right);
        damaged("missing=expect", VALUES.replace("expect=", "was="), run -> right);
        damaged("missing=atol.y", VALUES.replace("atol.y", "was"), run -> right);
        damaged("missing=x", VALUES + "inputs=x\n", run -> right);
        damaged("outputs=", VALUES.replace("outputs=y", "outputs="), run -> right);
        damaged(
                "y2.npy",
                VALUES.replace("outputs=y", "outputs=y2") + "rtol.y2=0\natol.y2=0\n",
                run -> Map.of("y2", new double[1]));
        String refusal = VALUES.replace("expect=values", "expect=error");
        damaged("\"many\"", refusal, run -> Map.of("y", new double[Integer.parseInt("many")]));
    }

    private void damaged(String part, String properties, Program program) throws IOException {
        Verdict verdict = judge(conformanceCase(properties), program);
        assertEquals(Outcome.FAILED, verdict.outcome(), verdict::toString);
        assertEquals(Verdict.Ending.BROKEN, verdict.ending(), verdict::toString);
        assertTrue(
                verdict.told().startsWith("can't be read: ") && verdict.told().contains(part), verdict::toString);
    }

    @Test
    void requiredTensorsMustBeThereAndOptionalOnesRight() throws IOException {
        double[] y = {10, Double.NaN, Double.POSITIVE_INFINITY};
        assertEquals(Outcome.FAILED, judge(VALUES, Map.of(), true).outcome());
        assertEquals(
                Outcome.FAILED, judge(VALUES, Map.of("y", new double[2]), true).outcome());
        assertEquals(
                Outcome.PASSED,
                judge(VALUES, Map.of("y", y, "mean", new double[] {4}), true).outcome());
        assertEquals(
                Outcome.FAILED,
                judge(VALUES, Map.of("y", y, "mean", new double[] {5}), true).outcome());
    }

    @Test
    void nonFiniteValuesMayBeInterchangeable() throws IOException {
        double[] y = {10, Double.NEGATIVE_INFINITY, Double.NaN};
        assertEquals(Outcome.FAILED, judge(VALUES, Map.of("y", y), true).outcome());
        assertEquals(
                Outcome.PASSED,
                judge(VALUES + "nonfinite_equal=y\n", Map.of("y", y), true).outcome());
    }

    @Test
    void aSecondTensorMayBeAcceptedButIsNotTight() throws IOException {
        Npy.of(new double[] {0, 0, 0}, 3).write(folder.resolve("alt_y.npy"));
        Verdict verdict = judge(VALUES, Map.of("y", new double[3]), true);
        assertEquals(Outcome.PASSED, verdict.outcome());
        assertFalse(verdict.tight());
    }

    @Test
    void casesInDoubleHaveTolerancesOfTheirOwnInFloat() throws IOException {
        String inDouble = VALUES.replace("float32", "float64");
        Map<String, double[]> got = Map.of("y", new double[] {15, Double.NaN, Double.POSITIVE_INFINITY});
        String tolerances = "f32.rtol.y=0\nf32.atol.y=5\n";
        assertEquals(Outcome.PASSED, judge(inDouble + tolerances, got, true).outcome());
        assertEquals(Outcome.FAILED, judge(inDouble + tolerances, got, false).outcome());
        assertEquals(
                Outcome.SKIPPED,
                judge(inDouble + "f32=not-applicable\n", got, true).outcome());
        assertEquals(
                Outcome.FAILED,
                judge(inDouble + "f32=not-applicable\n", got, false).outcome());
    }

    @Test
    void refusalsAreWantedOrNot() throws IOException {
        String refusal = VALUES.replace("expect=values", "expect=error");
        ConformanceCase wanted = conformanceCase(refusal);
        Program refuses = run -> {
            throw new IllegalArgumentException("no");
        };
        Program breaks = run -> {
            throw new IllegalStateException("broken");
        };
        assertEquals(Outcome.PASSED, judge(wanted, refuses).outcome());
        assertEquals(Outcome.FAILED, judge(wanted, breaks).outcome());
        assertEquals(Outcome.FAILED, judge(wanted, run -> Map.of()).outcome());
        ConformanceCase unwanted = conformanceCase(VALUES);
        assertEquals(Outcome.FAILED, judge(unwanted, refuses).outcome());
        assertTrue(judge(unwanted, breaks).toString().endsWith("broke off: java.lang.IllegalStateException: broken"));
        assertTrue(new Judge(Map.of(), true).judge(wanted).toString().endsWith("unknown operation double"));
    }

    @Test
    void madeTensorsAreCheckedAgainstTheirCase() throws IOException {
        String made = VALUES + """
                shape=2,3
                generated_inputs=x
                gen.x.seed=1
                gen.x.dist=uniform
                gen.x.lo=-1
                gen.x.hi=1
                gen.x.first=FIRST
                gen.x.crc32=CRC
                """;
        ConformanceCase first = conformanceCase(made.replace("FIRST", "0.25").replace("CRC", "0"));
        assertTrue(assertThrows(IOException.class, () -> first.values("x"))
                .getMessage()
                .contains("other values"));
        ConformanceCase checksum = conformanceCase(made.replace("FIRST", "").replace("CRC", "0"));
        assertTrue(assertThrows(IOException.class, () -> checksum.values("x"))
                .getMessage()
                .contains("another checksum"));
    }

    @Test
    void casesAreFoundInAFolderAndNotElsewhere() throws IOException {
        conformanceCase(VALUES);
        try (ConformanceCases cases = ConformanceCases.open(folder)) {
            assertEquals(List.of(folder.getFileName().toString()), cases.names());
            assertEquals(1, cases.of("double").size());
            assertEquals(0, cases.of("triple").size());
            assertEquals("double", cases.get(cases.names().get(0)).operation());
            assertThrows(IllegalArgumentException.class, () -> cases.get("missing"));
        }
        Path empty = Files.createDirectory(folder.resolve("empty"));
        assertThrows(IOException.class, () -> ConformanceCases.open(empty));
        assertThrows(IOException.class, () -> ConformanceCases.open(folder.resolve("missing")));
        assertThrows(IOException.class, () -> ConformanceCases.open(folder.resolve("y.npy")));
    }

    private Verdict judge(String properties, Map<String, double[]> outputs, boolean single) throws IOException {
        return new Judge(Map.of("double", run -> outputs), single).judge(conformanceCase(properties));
    }

    private static Verdict judge(ConformanceCase run, Program program) throws IOException {
        return new Judge(Map.of("double", program), true).judge(run);
    }

    private ConformanceCase conformanceCase(String properties) throws IOException {
        Files.writeString(folder.resolve("case.properties"), properties);
        return ConformanceCase.read(folder);
    }
}
