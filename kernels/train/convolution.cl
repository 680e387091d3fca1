/* Unfolds a picture for a convolution as one matrix product, and folds the gradient back. Channels last, stride 1,
 * windows of SIDE x SIDE with a border of zeros that keeps height and width.
 *
 *   train_im2col  columns[n,h,w][c,kh,kw] = x[n, h+kh-SIDE/2, w+kw-SIDE/2, c], or 0 outside
 *   train_col2im  dx[n,h,w,c] = sum over (kh,kw) of dColumns[n, h-kh+SIDE/2, w-kw+SIDE/2][c,kh,kw] inside
 *
 * The columns stand in the order (c, kh, kw), which is how PyTorch stores a weight's row. col2im gathers, so that the
 * order of its sum is fixed.
 *
 * Grid: one work-item for each of the items = N*H*W*C places of x, rounded up to whole work-groups.
 * im2col reads SIDE*SIDE neighbours of a place and writes as many; col2im reads as many and writes one. No local
 * memory, no barriers.
 *
 *   SIDE  the window's side, odd
 */
#pragma OPENCL FP_CONTRACT OFF

#ifndef SIDE
#define SIDE 3
#endif
#define TAPS (SIDE * SIDE)

__kernel void train_im2col(const __global float *x, __global float *columns, int items, int H, int W, int C) {
    int item = (int)get_global_id(0);
    if (item < items) {
        int w = item / C % W;
        int h = item / (C * W) % H;
        __global float *row = columns + (size_t)item * TAPS;
        for (int kh = 0; kh < SIDE; kh++) {
            for (int kw = 0; kw < SIDE; kw++) {
                int dh = kh - SIDE / 2;
                int dw = kw - SIDE / 2;
                bool inside = h + dh >= 0 && h + dh < H && w + dw >= 0 && w + dw < W;
                row[kh * SIDE + kw] = inside ? x[item + (dh * W + dw) * C] : 0.0f;
            }
        }
    }
}

__kernel void train_col2im(const __global float *dColumns, __global float *dx, int items, int H, int W, int C) {
    int item = (int)get_global_id(0);
    if (item < items) {
        int w = item / C % W;
        int h = item / (C * W) % H;
        float sum = 0.0f;
        for (int kh = 0; kh < SIDE; kh++) {
            for (int kw = 0; kw < SIDE; kw++) {
                int dh = SIDE / 2 - kh;
                int dw = SIDE / 2 - kw;
                if (h + dh >= 0 && h + dh < H && w + dw >= 0 && w + dw < W) {
                    sum += dColumns[(size_t)(item + (dh * W + dw) * C) * TAPS + kh * SIDE + kw];
                }
            }
        }
        dx[item] = sum;
    }
}
