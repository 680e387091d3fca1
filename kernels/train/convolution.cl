/* Unfolds a picture for a convolution as one matrix product, and folds the gradient back. Channels last, stride 1,
 * windows of SIDE x SIDE with a border of zeros that keeps height and width.
 *
 *   train_im2col  columns[n,h,w][c,kh,kw] = x[n, h+kh-SIDE/2, w+kw-SIDE/2, c], or 0 outside
 *   train_col2im  dx[n,h,w,c] = sum over (kh,kw) of dColumns[n, h-kh+SIDE/2, w-kw+SIDE/2][c,kh,kw] inside
 *
 * The columns stand in the order (c, kh, kw), which is how PyTorch stores a weight's row. col2im gathers, so that the
 * order of its sum is fixed.
 *
 * Grid: one work-item for each of the items = N*H*W places, which takes all C channels, rounded up to whole
 * work-groups. For each channel im2col reads SIDE*SIDE neighbours of a place and writes as many; col2im reads as many
 * and writes one. No local memory, no barriers.
 *
 *   SIDE  the window's side, odd
 */
#pragma OPENCL FP_CONTRACT OFF

#ifndef SIDE
#define SIDE 3
#endif
#define TAPS (SIDE * SIDE)

__kernel void train_im2col(
    const __global float *restrict x, __global float *restrict columns, int items, int H, int W, int C) {
    int item = (int)get_global_id(0);
    if (item < items) {
        int w = item % W;
        int h = item / W % H;
        __global float *row = columns + (size_t)item * C * TAPS;
        for (int tap = 0; tap < TAPS; tap++) {
            int dh = tap / SIDE - SIDE / 2;
            int dw = tap % SIDE - SIDE / 2;
            bool inside = h + dh >= 0 && h + dh < H && w + dw >= 0 && w + dw < W;
            const __global float *from = x + (inside ? item + dh * W + dw : item) * C;
            for (int c = 0; c < C; c++) {
                row[c * TAPS + tap] = inside ? from[c] : 0.0f;
            }
        }
    }
}

__kernel void train_col2im(
    const __global float *restrict dColumns, __global float *restrict dx, int items, int H, int W, int C) {
    int item = (int)get_global_id(0);
    if (item < items) {
        int w = item % W;
        int h = item / W % H;
        for (int c = 0; c < C; c++) {
            float sum = 0.0f;
            for (int tap = 0; tap < TAPS; tap++) {
                int dh = SIDE / 2 - tap / SIDE;
                int dw = SIDE / 2 - tap % SIDE;
                if (h + dh >= 0 && h + dh < H && w + dw >= 0 && w + dw < W) {
                    sum += dColumns[((size_t)(item + dh * W + dw) * C + c) * TAPS + tap];
                }
            }
            dx[item * C + c] = sum;
        }
    }
}
