package io.normcl.plan;

import java.util.List;

/**
 * A pass as kernel calls, in order.
 *
 * @param calls the launches; three of them are partial, finalize and apply
 * @param splits into how many partial results per channel the first of several calls cuts its work
 * @param workspaceBytes the size of {@link Slot#PARTIALS}, 0 where no call needs it
 * @param bytes what must pass between device memory and the compute units, each needed read and write counted once
 */
public record Plan(List<KernelCall> calls, long splits, long workspaceBytes, long bytes) {
    /** Launches nothing. */
    public static final Plan NOTHING = new Plan(List.of(), 1, 0, 0);

    /**
     * Keeps the list from changing.
     *
     * @param calls the launches; three of them are partial, finalize and apply
     * @param splits into how many partial results per channel the first of several calls cuts its work
     * @param workspaceBytes the size of {@link Slot#PARTIALS}, 0 where no call needs it
     * @param bytes what must pass between device memory and the compute units, each needed read and write counted once
     */
    public Plan {
        calls = List.copyOf(calls);
    }
}
