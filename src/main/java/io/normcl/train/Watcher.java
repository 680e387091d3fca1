package io.normcl.train;

import io.normcl.train.Trainer.Score;

/** Looks on while something is trained, and may stop it. */
public interface Watcher {
    /**
     * A step is done.
     *
     * @param run what is being trained
     * @param step steps done, from 1
     * @param steps steps in all
     * @param loss the batch's loss before the step
     */
    void trained(String run, long step, long steps, double loss);

    /**
     * The test pictures were judged.
     *
     * @param run what is being trained
     * @param step steps done
     * @param score what came of it
     */
    void judged(String run, long step, Score score);

    /**
     * Whether to stop after this step; asked after each.
     *
     * @return true to stop
     */
    boolean stopped();
}
