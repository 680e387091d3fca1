package io.normcl.lab;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.normcl.device.Device;
import io.normcl.lab.Findings.Check;
import io.normcl.lab.Findings.Point;
import io.normcl.lab.Findings.Run;
import io.normcl.train.FashionMnist;
import io.normcl.train.TinyPictures;
import io.normcl.train.Trainer;
import io.normcl.train.Watcher;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.CancellationException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The comparison on made-up pictures, and what the report says of good and of bad findings. */
class SyncComparisonTest {
    @TempDir
    Path folder;

    /** Stops at once, or never. */
    private record Onlooker(boolean stopped) implements Watcher {
        @Override
        public void trained(String run, long step, long steps, double loss) {}

        @Override
        public void judged(String run, long step, Trainer.Score score) {}
    }

    private static Findings compare(Path pictures, String selector, SyncComparison.Setup setup, boolean stop) {
        List<Device> devices = Device.open(selector);
        try {
            return SyncComparison.run(devices, FashionMnist.read(pictures), setup, new Onlooker(stop));
        } finally {
            devices.forEach(Device::close);
            assertEquals(0, Device.liveHandles());
        }
    }

    @Test
    void synchronizedAgreesAndLocalDoesNot() throws IOException {
        Path pictures = TinyPictures.write(folder.resolve("pictures"), 120, 30);
        Findings findings = compare(pictures, "cpu:2", new SyncComparison.Setup(2, 2, 120, 1), false);
        assertEquals(60, findings.steps());
        assertEquals(2, findings.sync().checks().size());
        assertTrue(findings.passed(), Report.table(findings));
        assertTrue(findings.local().worst() > 1e-2, Report.table(findings));
        assertEquals(0, findings.one().weightDistance());

        Path out = folder.resolve("out");
        Report.write(out, findings);
        String page = Files.readString(out.resolve("report.html"));
        assertTrue(page.contains("Both checks passed") && page.contains("data:image/png;base64,"));
        assertFalse(page.contains("src=\"http"));
        assertEquals(1 + 4 * 15, Files.readAllLines(out.resolve("curves.csv")).size());
        assertEquals(1 + 3 * 2, Files.readAllLines(out.resolve("checks.csv")).size());
        assertEquals(5, Files.readAllLines(out.resolve("runs.csv")).size());
        for (String picture : List.of("loss.png", "accuracy.png", "agreement.png")) {
            assertEquals((byte) 'P', Files.readAllBytes(out.resolve(picture))[1]);
        }
    }

    @Test
    void refusesAndStops() {
        Path pictures = TinyPictures.write(folder, 20, 5);
        SyncComparison.Setup setup = new SyncComparison.Setup(2, 1, 20, 1);
        assertThrows(IllegalArgumentException.class, () -> compare(pictures, "cpu", setup, false));
        assertThrows(CancellationException.class, () -> compare(pictures, "cpu:2", setup, true));
        SyncComparison.Setup more = new SyncComparison.Setup(2, 1, 21, 1);
        assertThrows(IllegalArgumentException.class, () -> compare(pictures, "cpu:2", more, false));
    }

    private static Run run(String name, double accuracy, double difference, double distance) {
        List<Point> curve = List.of(new Point(10, 1, accuracy), new Point(20, 0.5, accuracy));
        List<Check> checks = List.of(new Check(0, 1e-9, difference, 1e-9), new Check(50, 0, 0, 0));
        return new Run(name, curve, checks, 0.5, 0.5, accuracy, distance, distance, 100);
    }

    private static Findings findings(Run local, Run sync) {
        return new Findings(
                new SyncComparison.Setup(2, 1, 40, 1),
                List.of("a", "b"),
                20,
                run("one device", 0.8, 0, 0),
                local,
                sync,
                run("control", 0.8, 1e-6, 1));
    }

    @Test
    void theReportIsHonest() throws IOException {
        Run badLocal = run("local", 0.3, 10, 50);
        Findings good = findings(badLocal, run("synchronized", 0.79, 9e-6, 2.9));
        assertTrue(good.passed());
        assertTrue(Report.summary(good).contains("Local batch norm stands apart"));

        Findings steps = findings(badLocal, run("synchronized", 0.79, 1.1e-5, 1));
        assertFalse(steps.passed());
        assertTrue(Report.summary(steps).contains("BREAKS")
                && Report.summary(steps).contains("FAILED"));
        assertTrue(Report.verdict(steps).get(0).startsWith("FAILED"));

        Findings distance = findings(badLocal, run("synchronized", 0.79, 1e-6, 3.1));
        assertFalse(distance.passed());
        assertTrue(Report.verdict(distance).get(1).startsWith("FAILED"));

        Findings broken = findings(badLocal, run("synchronized", Double.NaN, Double.NaN, Double.NaN));
        assertFalse(broken.passed());
        assertFalse(broken.stepsAgree());
        assertFalse(broken.endsNear());
        Report.write(folder, broken);

        Findings alike = findings(run("local", 0.8, 10, 2), run("synchronized", 0.8, 1e-6, 1));
        assertTrue(Report.summary(alike).contains("does not stand apart"));
    }
}
