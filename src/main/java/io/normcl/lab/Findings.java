package io.normcl.lab;

import java.util.List;
import java.util.function.ToDoubleFunction;

/**
 * What the comparison of local and synchronized batch norm found.
 *
 * @param setup what was asked
 * @param devices the devices' names
 * @param steps steps of each run
 * @param one one device with the whole batch, to which the others are held
 * @param local the devices with their share each, and statistics of their share
 * @param sync the devices with their share each, and statistics of the whole batch
 * @param control as one, with the samples of each batch in reverse order
 */
public record Findings(
        SyncComparison.Setup setup, List<String> devices, long steps, Run one, Run local, Run sync, Run control) {
    /** The most that a single synchronized step may differ, relative to its length. */
    public static final double STEP_LIMIT = 1e-5;

    /** How many times the control's distance the synchronized run may end from the one device's. */
    public static final double DISTANCE_LIMIT = 3;

    /** How many points of a hundred local must be behind for it to be said that it stands apart. */
    private static final double APART = 0.05;

    /**
     * One way to train.
     *
     * @param name what it is called
     * @param curve how it went
     * @param checks its single steps, held to the one device's
     * @param loss the mean training loss of the last point of the curve
     * @param testLoss the loss on all test pictures at the end, in evaluation mode
     * @param accuracy the share of hits among them
     * @param weightDistance L2 distance of all parameters from the one device's at the end
     * @param statisticsDistance the same of the (first replica's) running statistics
     * @param samplesPerSecond over all steps but the first
     */
    public record Run(
            String name,
            List<Point> curve,
            List<Check> checks,
            double loss,
            double testLoss,
            double accuracy,
            double weightDistance,
            double statisticsDistance,
            double samplesPerSecond) {
        /**
         * The worst single step.
         *
         * @return the largest {@link Check#worst}
         */
        public double worst() {
            return worst(Check::worst);
        }

        /**
         * The worst of one side of the single steps.
         *
         * @param side which
         * @return its largest value, or NaN where there is one
         */
        public double worst(ToDoubleFunction<Check> side) {
            return checks.stream().mapToDouble(side).reduce(0, Math::max);
        }
    }

    /**
     * A point of a run's curve.
     *
     * @param step steps done
     * @param loss mean training loss since the last point
     * @param accuracy share of hits among the first test pictures, in evaluation mode
     */
    public record Point(long step, double loss, double accuracy) {}

    /**
     * One step from the one device's weights and batch: L2 distances relative to the length of the one device's.
     *
     * @param step steps before it
     * @param output of the logits
     * @param gradients of all gradients together
     * @param statistics of the running statistics after it, the worst replica's
     */
    public record Check(long step, double output, double gradients, double statistics) {
        /**
         * The worst of the three.
         *
         * @return the largest, or NaN where there is one
         */
        public double worst() {
            return Math.max(output, Math.max(gradients, statistics));
        }
    }

    /**
     * All runs.
     *
     * @return one, local, sync, control
     */
    public List<Run> runs() {
        return List.of(one, local, sync, control);
    }

    /**
     * Whether each synchronized step is the one device's, but for rounding.
     *
     * @return true if so
     */
    public boolean stepsAgree() {
        return sync.worst() <= STEP_LIMIT;
    }

    /**
     * Whether the synchronized run ended about as near to the one device's as a mere change of order does.
     *
     * @return true if so
     */
    public boolean endsNear() {
        return sync.weightDistance() <= DISTANCE_LIMIT * control.weightDistance();
    }

    /**
     * Whether local is seen to be worse: in test accuracy, and in its single steps.
     *
     * @return true if so
     */
    public boolean localStandsApart() {
        return sync.accuracy() - local.accuracy() > APART && !(local.worst() <= STEP_LIMIT);
    }

    /**
     * Whether synchronization did what it must.
     *
     * @return true if both checks hold
     */
    public boolean passed() {
        return stepsAgree() && endsNear();
    }
}
