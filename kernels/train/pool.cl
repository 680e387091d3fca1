/* ReLU and the largest of each WINDOW x WINDOW block in one pass: y = max(0, max of the block). A window of 1 is ReLU
 * alone. Channels last; where channelsFirst is 1, y and dy are (N, C, OH, OW) instead, the order in which PyTorch
 * flattens for the linear layer that follows.
 *
 *   train_relu_pool           writes y
 *   train_relu_pool_backward  dx = dy at the first largest value of each block where that is above 0, else 0
 *
 * Grid: one work-item for each of the items = N*OH*OW blocks, which takes all C channels; OH = H/WINDOW and
 * OW = W/WINDOW without remainder; rounded up to whole work-groups. Forward reads a block and writes one value;
 * backward reads the block and one gradient and writes the block: blocks do not overlap. NaN passes. No local memory,
 * no barriers.
 *
 *   WINDOW  the block's side
 */
#pragma OPENCL FP_CONTRACT OFF

#ifndef WINDOW
#define WINDOW 2
#endif

/* The first value of a block in x. */
static inline int block_of(int item, int W, int C) {
    int columns = W / WINDOW;
    return (item / columns * WINDOW * W + item % columns * WINDOW) * C;
}

__kernel void train_relu_pool(
    const __global float *restrict x, __global float *restrict y, int items, int H, int W, int C, int channelsFirst) {
    int item = (int)get_global_id(0);
    if (item < items) {
        int S = (H / WINDOW) * (W / WINDOW);
        const __global float *block = x + block_of(item, W, C);
        __global float *out = channelsFirst ? y + item / S * S * C + item % S : y + item * C;
        int step = channelsFirst ? S : 1;
        for (int c = 0; c < C; c++) {
            float best = block[c];
            for (int i = 1; i < WINDOW * WINDOW; i++) {
                float v = block[(i / WINDOW * W + i % WINDOW) * C + c];
                best = v > best || isnan(v) ? v : best;
            }
            out[c * step] = best < 0.0f ? 0.0f : best;
        }
    }
}

__kernel void train_relu_pool_backward(
    const __global float *restrict x, const __global float *restrict dy, __global float *restrict dx, int items, int H,
    int W, int C, int channelsFirst) {
    int item = (int)get_global_id(0);
    if (item < items) {
        int S = (H / WINDOW) * (W / WINDOW);
        int first = block_of(item, W, C);
        const __global float *in = channelsFirst ? dy + item / S * S * C + item % S : dy + item * C;
        int step = channelsFirst ? S : 1;
        for (int c = 0; c < C; c++) {
            float best = x[first + c];
            int place = 0;
            for (int i = 1; i < WINDOW * WINDOW; i++) {
                float v = x[first + (i / WINDOW * W + i % WINDOW) * C + c];
                bool larger = v > best || isnan(v);
                best = larger ? v : best;
                place = larger ? i : place;
            }
            float d = best <= 0.0f ? 0.0f : in[c * step];
            for (int i = 0; i < WINDOW * WINDOW; i++) {
                dx[first + (i / WINDOW * W + i % WINDOW) * C + c] = i == place ? d : 0.0f;
            }
        }
    }
}
