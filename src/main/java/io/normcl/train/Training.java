package io.normcl.train;

import io.normcl.train.Trainer.Score;
import java.io.IOException;
import java.nio.file.Path;

/** Runs a trainer over epochs and keeps a checkpoint. */
public final class Training {
    /** What a watcher is told is being trained. */
    public static final String RUN = "training";

    private Training() {}

    /**
     * Trains from where the trainer stands to the end of the last epoch. After each epoch, and where it is stopped,
     * the checkpoint is replaced.
     *
     * @param trainer at its start or at a checkpoint
     * @param pictures what to train on and judge by
     * @param epochs epochs in all, those before the checkpoint included
     * @param checkpoint the file to write
     * @param watcher looks on
     * @return whether it got to the end, rather than being stopped
     * @throws IllegalArgumentException if the settings ask for more pictures than there are
     * @throws ArithmeticException if the loss is no longer finite; the last checkpoint stays
     * @throws IOException if a checkpoint can't be written
     */
    public static boolean run(Trainer trainer, FashionMnist pictures, int epochs, Path checkpoint, Watcher watcher)
            throws IOException {
        trainer.settings().requireSamplesOf(pictures);
        long perEpoch = trainer.settings().stepsPerEpoch();
        long steps = epochs * perEpoch;
        while (trainer.step() < steps) {
            Score score = trainer.learn(pictures.train(), trainer.batch());
            if (!Double.isFinite(score.loss())) {
                throw new ArithmeticException(
                        "the loss must stay finite: step=" + trainer.step() + ", loss=" + score.loss());
            }
            watcher.trained(RUN, trainer.step(), steps, score.loss());
            boolean stopped = watcher.stopped();
            if (stopped || trainer.step() % perEpoch == 0) {
                Checkpoint.of(trainer).write(checkpoint);
            }
            if (stopped) {
                return trainer.step() == steps;
            }
            if (trainer.step() % perEpoch == 0) {
                Score test = trainer.evaluate(pictures.test(), pictures.test().size());
                watcher.judged(RUN, trainer.step(), test);
            }
        }
        return true;
    }
}
