package io.normcl.cli;

import io.normcl.device.Description;
import io.normcl.device.Device;
import io.normcl.device.DeviceException;
import io.normcl.device.Limits;
import io.normcl.verify.SelfTest;
import java.io.PrintWriter;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Spec;

/** {@code normcl devices}: what there is, what it can do, and whether it computes rightly. */
@Command(
        name = "devices",
        description = "List every OpenCL device, what it can do, and whether it computes small batch norms rightly.",
        exitCodeListHeading = "Exit code: ",
        exitCodeList = {"0:every device computes rightly", "1:one does not, or there is none"})
final class DevicesCommand implements Callable<Integer> {
    @Spec
    @SuppressWarnings("NullAway.Init") // picocli's
    private CommandSpec spec;

    @Override
    public Integer call() {
        PrintWriter out = spec.commandLine().getOut();
        boolean right = true;
        for (Description description : Device.list()) {
            describe(out, description);
            right &= test(out, spec.commandLine().getErr(), description);
        }
        return right ? 0 : Main.FAILED;
    }

    private static void describe(PrintWriter out, Description description) {
        Limits limits = description.limits();
        out.println(description);
        out.println("   " + description.version() + ", driver " + description.driver() + ", vendor "
                + description.vendor());
        out.println(String.format(
                Locale.ROOT,
                "   %d compute units, work-groups of up to %d, %s of memory, buffers of up to %s,"
                        + " %s of local memory, %s",
                limits.computeUnits(),
                limits.maxWorkGroupSize(),
                bytes(limits.globalMemoryBytes()),
                bytes(limits.maxAllocationBytes()),
                bytes(limits.localMemoryBytes()),
                limits.fp64() ? "double precision" : "no double precision"));
    }

    private static String bytes(long bytes) {
        return bytes >= 1L << 30
                ? String.format(Locale.ROOT, "%.1f GiB", bytes / (double) (1L << 30))
                : String.format(Locale.ROOT, "%.0f KiB", bytes / (double) (1L << 10));
    }

    private static boolean test(PrintWriter out, PrintWriter err, Description description) {
        SelfTest.Result result;
        List<Device> devices = List.of();
        try {
            devices = Device.open(Integer.toString(description.index()));
            result = SelfTest.run(devices.get(0));
        } catch (DeviceException e) {
            result = new SelfTest.Result(Double.NaN, List.of(String.valueOf(e.getMessage())));
        } finally {
            devices.forEach(Device::close);
        }
        if (result.passed()) {
            out.println(String.format(Locale.ROOT, "   self-test passed, largest error %.1e", result.worst()));
        } else {
            out.println("   self-test FAILED");
            result.faults().forEach(fault -> out.println("   " + fault));
            err.println("normcl: a device computes wrongly: device=" + description + ", "
                    + result.faults().get(0));
        }
        return result.passed();
    }
}
