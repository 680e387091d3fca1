/* The streaming copy that everything is measured against: y = x over all compute units.
 *
 *   <family>_copy   any groups   reads x   writes y   1R + 1W
 *
 * A group copies one contiguous run. The defines are those of family.clh.
 */
#include "family.clh"

KERNEL(copy)
(const __global float *x, __global float *y, long count) {
    long vectors = (count + WIDTH - 1) / WIDTH;
    long from = get_group_id(0) * vectors / get_num_groups(0) * WIDTH;
    long to = min(count, (long)((get_group_id(0) + 1) * vectors / get_num_groups(0) * WIDTH));
    for (long i = from + get_local_id(0) * WIDTH; i < to; i += LOCAL_SIZE * WIDTH) {
        fetch(x + i + FETCH_AHEAD);
        store_some(load_some(x + i, to - i, (floatv)(0.0f)), y + i, to - i);
    }
}
