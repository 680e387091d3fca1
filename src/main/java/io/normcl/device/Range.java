package io.normcl.device;

/**
 * The index space of a launch in up to two dimensions; the global size is a multiple of the local size in each.
 *
 * @param globalX work-items in dimension 0
 * @param globalY work-items in dimension 1
 * @param localX work-items of a work-group in dimension 0
 * @param localY work-items of a work-group in dimension 1
 */
public record Range(long globalX, long globalY, long localX, long localY) {
    /**
     * Checks that work-groups fill the index space.
     *
     * @param globalX work-items in dimension 0
     * @param globalY work-items in dimension 1
     * @param localX work-items of a work-group in dimension 0
     * @param localY work-items of a work-group in dimension 1
     */
    public Range {
        if (globalX < 0 || globalY < 0 || localX < 1 || localY < 1 || globalX % localX != 0 || globalY % localY != 0) {
            throw new IllegalArgumentException("the global size must be a multiple of the local size: global=" + globalX
                    + "x" + globalY + ", local=" + localX + "x" + localY);
        }
    }

    /**
     * An index space of one dimension.
     *
     * @param global work-items, a multiple of {@code local}
     * @param local work-items of a work-group
     * @return the range
     */
    public static Range of(long global, long local) {
        return new Range(global, 1, local, 1);
    }

    /**
     * An index space of one dimension that covers at least so many work-items.
     *
     * @param items the work-items needed; the global size is the next multiple of {@code local}
     * @param local work-items of a work-group
     * @return the range
     */
    public static Range covering(long items, long local) {
        return of((items + local - 1) / local * local, local);
    }

    boolean isEmpty() {
        return globalX == 0 || globalY == 0;
    }

    @Override
    public String toString() {
        return globalX + "x" + globalY + "/" + localX + "x" + localY;
    }
}
