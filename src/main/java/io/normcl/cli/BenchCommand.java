package io.normcl.cli;

import io.normcl.bench.BatchNormBench;
import io.normcl.device.Device;
import io.normcl.tensor.Layout;
import java.io.PrintWriter;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.stream.Stream;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** {@code normcl bench}: how long the passes of batch norm take, beside a copy of the same tensor. */
@Command(
        name = "bench",
        description = "Time training forward, evaluation forward and backward of batch norm, and in the same rounds a"
                + " streaming copy of the same tensor.",
        sortOptions = false)
final class BenchCommand implements Callable<Integer> {
    @Spec
    @SuppressWarnings("NullAway.Init") // picocli's
    private CommandSpec spec;

    @Option(
            names = "--device",
            paramLabel = "DEVICE",
            description = "As cpu, gpu, an index or a part of the name. Default: ${DEFAULT-VALUE}")
    private String device = "cpu";

    @Option(
            names = "--shape",
            paramLabel = "NxCxHxW",
            description = "As stored; channels last means NxHxWxC. Default: ${DEFAULT-VALUE}")
    private String shape = "32x64x112x112";

    @Option(
            names = "--layout",
            paramLabel = "LAYOUT",
            description = "channels_first or channels_last. Default: channels_first")
    private Layout layout = Layout.CHANNELS_FIRST;

    @Option(names = "--rounds", paramLabel = "N", description = "Default: ${DEFAULT-VALUE}")
    private int rounds = 21;

    @Override
    public Integer call() {
        long[] sizes;
        try {
            sizes = Stream.of(shape.split("x", -1)).mapToLong(Long::parseLong).toArray();
        } catch (NumberFormatException e) {
            throw new IllegalArgumentException("a shape must be numbers with x between: --shape=" + shape, e);
        }
        List<Device> opened = Device.open(device);
        try {
            PrintWriter out = spec.commandLine().getOut();
            out.println(opened.get(0).description());
            out.print(BatchNormBench.table(BatchNormBench.run(opened.get(0), layout, sizes, rounds)));
            out.flush();
        } finally {
            opened.forEach(Device::close);
        }
        return 0;
    }
}
