package io.normcl.cli;

import io.normcl.train.Trainer.Score;
import io.normcl.train.Watcher;
import java.io.PrintWriter;
import java.util.Locale;
import java.util.function.BooleanSupplier;
import me.tongfei.progressbar.ProgressBar;
import me.tongfei.progressbar.ProgressBarBuilder;
import me.tongfei.progressbar.ProgressBarStyle;
import org.jspecify.annotations.Nullable;

/** Shows how training goes, as a bar on a terminal and in plain lines elsewhere. */
final class Progress implements Watcher, AutoCloseable {
    private static final int LINES = 20;

    private final PrintWriter out;
    private final boolean terminal = isTerminal();
    private final BooleanSupplier stopped;
    private @Nullable ProgressBar bar;
    private double loss;
    private long losses;

    Progress(PrintWriter out, BooleanSupplier stopped) {
        this.out = out;
        this.stopped = stopped;
    }

    @SuppressWarnings("SystemConsoleNull") // Main sees to it that from Java 22 on it still is null elsewhere
    static boolean isTerminal() {
        return System.console() != null;
    }

    @Override
    public boolean stopped() {
        return stopped.getAsBoolean();
    }

    @Override
    public void trained(String run, long step, long steps, double stepLoss) {
        loss += stepLoss;
        losses++;
        if (terminal) {
            if (bar == null) {
                bar = new ProgressBarBuilder()
                        .setTaskName(run)
                        .setInitialMax(steps)
                        .setStyle(ProgressBarStyle.ASCII)
                        .build();
            }
            bar.stepTo(step);
            bar.setExtraMessage(String.format(Locale.ROOT, "loss %.3f", loss / losses));
        }
        if (step % Math.max(1, steps / LINES) == 0 || step == steps) {
            if (!terminal) {
                out.println(
                        String.format(Locale.ROOT, "%s: step %d of %d, loss %.3f", run, step, steps, loss / losses));
            }
            loss = 0;
            losses = 0;
        }
        if (step == steps) {
            close();
        }
    }

    @Override
    public void judged(String run, long step, Score score) {
        close();
        out.println(String.format(
                Locale.ROOT,
                "%s: step %d, test accuracy %.2f %%, test loss %.3f",
                run,
                step,
                100 * score.accuracy(),
                score.loss()));
    }

    @Override
    public void close() {
        if (bar != null) {
            bar.close();
            bar = null;
        }
    }
}
