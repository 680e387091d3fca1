package io.normcl.cli;

import io.normcl.device.Device;
import io.normcl.train.Checkpoint;
import io.normcl.train.FashionMnist;
import io.normcl.train.Norm;
import io.normcl.train.Settings;
import io.normcl.train.Trainer;
import io.normcl.train.Training;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.Callable;
import java.util.concurrent.CancellationException;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParentCommand;
import picocli.CommandLine.Spec;

/** {@code normcl train}: trains, checkpoints and resumes. */
@Command(
        name = "train",
        description = "Train a small convolutional network on Fashion-MNIST over one or more devices.",
        sortOptions = false)
final class TrainCommand implements Callable<Integer> {
    private static final String CHECKPOINT = "checkpoint.safetensors";

    @ParentCommand
    @SuppressWarnings("NullAway.Init") // picocli's
    private Main main;

    @Spec
    @SuppressWarnings("NullAway.Init") // picocli's
    private CommandSpec spec;

    @Option(names = "--data", paramLabel = "FOLDER", description = "The four IDX files. Default: ${DEFAULT-VALUE}")
    private Path data = FashionMnist.DEBIAN;

    @Option(
            names = "--devices",
            paramLabel = "DEVICES",
            description = "As cpu, gpu, an index, a part of the name; cpu:4 for four; a comma between several."
                    + " Default: cpu:2, or as many as the checkpoint is of")
    private @Nullable String devices;

    @Option(
            names = "--batch-per-device",
            paramLabel = "N",
            description = "Samples of a batch on each device. Default: 32, or the checkpoint's")
    private @Nullable Integer batchPerDevice;

    @Option(names = "--epochs", paramLabel = "N", description = "Epochs in all. Default: ${DEFAULT-VALUE}")
    private int epochs = 1;

    @Option(
            names = "--norm",
            paramLabel = "NORM",
            description = "local or sync: batch norm over each device's samples or over the whole batch."
                    + " Default: sync, or the checkpoint's")
    private @Nullable Norm norm;

    @Option(
            names = "--samples",
            paramLabel = "N",
            description = "How many pictures to train on. Default: 60000, or the checkpoint's")
    private @Nullable Integer samples;

    @Option(
            names = "--seed",
            paramLabel = "N",
            description = "Of the initial weights and the order of the samples. Default: 1, or the checkpoint's")
    private @Nullable Long seed;

    @Option(
            names = "--out",
            paramLabel = "FOLDER",
            description = "Where the checkpoint is written. Default: out/train, or the checkpoint's folder")
    private @Nullable Path out;

    @Option(names = "--resume", paramLabel = "FILE", description = "Go on from this checkpoint.")
    private @Nullable Path resume;

    @Override
    public Integer call() throws IOException {
        PrintWriter print = spec.commandLine().getOut();
        if (epochs < 1) {
            throw new IllegalArgumentException("there must be at least one epoch: --epochs=" + epochs);
        }
        Checkpoint checkpoint = resume == null ? null : Checkpoint.read(resume);
        Settings given = checkpoint == null ? Settings.of(Norm.SYNC, 2, 32, 60_000, 1) : checkpoint.settings();
        Path file = folder().resolve(CHECKPOINT);
        OutputFolder.prepare(folder());
        if (Files.exists(file) && (resume == null || !Files.isSameFile(file, resume))) {
            throw new IllegalArgumentException(
                    "a checkpoint is not overwritten: choose another --out, or go on with --resume " + file);
        }
        FashionMnist pictures = FashionMnist.read(data);
        List<Device> opened = Device.open(Objects.requireNonNullElse(devices, "cpu:" + given.devices()));
        try (Progress progress = main.progress(print)) {
            Settings settings = Settings.of(
                    Objects.requireNonNullElse(norm, given.norm()),
                    opened.size(),
                    Objects.requireNonNullElse(batchPerDevice, given.batchPerDevice()),
                    Objects.requireNonNullElse(samples, given.samples()),
                    Objects.requireNonNullElse(seed, given.seed()));
            settings.requireSamplesOf(pictures);
            try (Trainer trainer = new Trainer(opened, settings)) {
                if (checkpoint != null) {
                    checkpoint.restore(trainer);
                }
                print.println("training on " + opened + ", " + settings);
                if (!Training.run(trainer, pictures, epochs, file, progress)) {
                    throw new CancellationException(
                            "stopped after step " + trainer.step() + ": go on with --resume " + file);
                }
                print.println("checkpoint: " + (Files.exists(file) ? file : resume));
            }
        } finally {
            opened.forEach(Device::close);
        }
        return 0;
    }

    private Path folder() {
        if (out != null) {
            return out;
        }
        return resume == null
                ? Path.of("out", "train")
                : Objects.requireNonNullElse(resume.toAbsolutePath().getParent(), Path.of("."));
    }
}
