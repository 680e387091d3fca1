/* The bias of a linear layer, around its matrix product.
 *
 *   train_bias_rows  y[row, c] = bias[c], to which the product is then added
 *                    grid: one work-item for each of the items = rows*C values
 *   train_bias_sums  dBias[c] = sum over the rows of dy[row, c], in their order
 *                    grid: one work-item for each of the C columns
 *
 * Both grids are rounded up to whole work-groups. No local memory, no barriers, no defines.
 */
#pragma OPENCL FP_CONTRACT OFF

__kernel void train_bias_rows(const __global float *bias, __global float *y, int items, int C) {
    int item = (int)get_global_id(0);
    if (item < items) {
        y[item] = bias[item % C];
    }
}

__kernel void train_bias_sums(const __global float *dy, __global float *dBias, int rows, int C) {
    int c = (int)get_global_id(0);
    if (c < C) {
        float sum = 0.0f;
        for (int row = 0; row < rows; row++) {
            sum += dy[row * C + c];
        }
        dBias[c] = sum;
    }
}
