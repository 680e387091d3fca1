package io.normcl.verify;

import io.normcl.device.Device;
import io.normcl.exchange.Npy;
import io.normcl.plan.Family;
import io.normcl.plan.Tuning;
import io.normcl.verify.Verdict.Ending;
import java.io.IOException;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;

/** Runs cases on devices in every kernel family, and writes what was computed as a checker from outside reads it. */
public final class Verification {
    private static final String ERROR = "ERROR.txt";
    private static final String SKIP = "SKIP.txt";

    private final Map<Family, Judge> judges = new EnumMap<>(Family.class);
    private final boolean fp64;

    /**
     * Verifies these devices.
     *
     * @param devices as many as {@link ConformanceCases#mostReplicas}; they stay the caller's
     */
    public Verification(List<Device> devices) {
        for (Family family : Family.values()) {
            judges.put(family, new Judge(DevicePrograms.of(devices, Tuning.of(family)), true));
        }
        fp64 = devices.stream().allMatch(device -> device.limits().fp64());
    }

    /**
     * Runs a case in every family; waits for it. Whatever goes wrong is what came of it, not an exception.
     *
     * @param cases where it is
     * @param name its name
     * @return what came of it
     */
    public Finding run(ConformanceCases cases, String name) {
        Map<Family, Verdict> verdicts = new EnumMap<>(Family.class);
        boolean needsTight = true;
        try {
            ConformanceCase run = cases.get(name);
            judges.forEach((family, judge) -> verdicts.put(family, judge.judge(run)));
            needsTight = fp64 || !run.property("category", "").equals("overflow");
        } catch (IOException e) {
            judges.keySet().forEach(family -> verdicts.put(family, Judge.unreadable(name, e)));
        }
        return new Finding(name, verdicts, needsTight);
    }

    /**
     * Writes the outputs of the verdict that decides into a folder of the case's name: an npy file for each tensor that
     * the case names, {@code ERROR.txt} where the call was refused, {@code SKIP.txt} where it was not made, nothing
     * where it broke off. What an earlier run left there is deleted.
     *
     * @param finding what came of the case
     * @param out the folder of all cases' outputs
     * @throws IOException if it can't be written
     * @throws IllegalArgumentException if the folder holds the case itself
     */
    public static void write(Finding finding, Path out) throws IOException {
        Path folder = out.resolve(finding.name());
        if (Files.exists(folder.resolve("case.properties"))) {
            throw new IllegalArgumentException("a case is not overwritten: folder=" + folder);
        }
        Verdict verdict = finding.deciding();
        try {
            Files.createDirectories(folder);
            for (Path old : written(folder)) {
                Files.delete(old);
            }
            if (verdict.ending() == Ending.REFUSED || verdict.ending() == Ending.NOT_OFFERED) {
                String file = verdict.ending() == Ending.REFUSED ? ERROR : SKIP;
                Files.writeString(folder.resolve(file), verdict.told() + "\n");
            }
        } catch (FileSystemException e) {
            String reason = e.getReason() == null ? e.getClass().getSimpleName() : e.getReason();
            throw new IOException("can't be written: folder=" + folder + ", reason=" + reason, e);
        }
        for (Map.Entry<String, Npy> output : verdict.outputs().entrySet()) {
            output.getValue().write(folder.resolve(output.getKey() + ".npy"));
        }
    }

    private static List<Path> written(Path folder) throws IOException {
        try (Stream<Path> files = Files.list(folder)) {
            return files.filter(file -> file.endsWith(ERROR)
                            || file.endsWith(SKIP)
                            || file.toString().endsWith(".npy"))
                    .toList();
        }
    }
}
