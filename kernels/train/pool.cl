/* ReLU and the largest of each window x window block in one pass: y = max(0, max of the block). A window of 1 is ReLU
 * alone. Channels last; where channelsFirst is 1, y and dy are (N, C, OH, OW) instead, the order in which PyTorch
 * flattens for the linear layer that follows.
 *
 *   train_relu_pool           writes y
 *   train_relu_pool_backward  dx = dy at the first largest value of each block where that is above 0, else 0
 *
 * Grid: one work-item for each of the items = N*OH*OW*C outputs, OH = H/window and OW = W/window without remainder,
 * rounded up to whole work-groups. Forward reads a block and writes one value; backward reads the block and one
 * gradient and writes the block: blocks do not overlap. NaN passes. No local memory, no barriers, no defines.
 */
#pragma OPENCL FP_CONTRACT OFF

/* Where the block's first largest value (or its last NaN) stands. */
static inline int largest(const __global float *x, int first, int window, int row, int C) {
    int best = first;
    for (int i = 0; i < window; i++) {
        for (int j = 0; j < window; j++) {
            int place = first + i * row + j * C;
            if (x[place] > x[best] || isnan(x[place])) {
                best = place;
            }
        }
    }
    return best;
}

/* The first place of the block in x. */
static inline int block_of(int item, int H, int W, int C, int window) {
    int c = item % C;
    int ow = item / C % (W / window);
    int rest = item / (C * (W / window)); /* n*OH + oh */
    return (rest * window * W + ow * window) * C + c;
}

static inline int place_of(int item, int OH, int OW, int C, int channelsFirst) {
    int c = item % C;
    int s = item / C % (OH * OW);
    int n = item / (C * OH * OW);
    return channelsFirst ? (n * C + c) * OH * OW + s : item;
}

__kernel void train_relu_pool(
    const __global float *x, __global float *y, int items, int H, int W, int C, int window, int channelsFirst) {
    int item = (int)get_global_id(0);
    if (item < items) {
        float best = x[largest(x, block_of(item, H, W, C, window), window, W * C, C)];
        y[place_of(item, H / window, W / window, C, channelsFirst)] = best < 0.0f ? 0.0f : best;
    }
}

__kernel void train_relu_pool_backward(
    const __global float *x, const __global float *dy, __global float *dx, int items, int H, int W, int C, int window,
    int channelsFirst) {
    int item = (int)get_global_id(0);
    if (item < items) {
        int first = block_of(item, H, W, C, window);
        int best = largest(x, first, window, W * C, C);
        float d = x[best] <= 0.0f ? 0.0f : dy[place_of(item, H / window, W / window, C, channelsFirst)];
        for (int i = 0; i < window; i++) {
            for (int j = 0; j < window; j++) {
                int place = first + (i * W + j) * C;
                dx[place] = place == best ? d : 0.0f;
            }
        }
    }
}
