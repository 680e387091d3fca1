/* Softmax cross-entropy of each sample and its gradient.
 *
 *   train_softmax_cross_entropy  p = softmax(logits);  scores[row] = (-log p[label], 1 if the label has the first
 *                                largest logit, else 0);  dLogits = (p - onehot(label)) * scale
 *
 * scale is one over the number of samples of the whole batch, on all devices.
 * Grid: one work-item a row, rounded up to whole work-groups. Reads logits (rows x classes) and labels, writes scores
 * and dLogits. No local memory, no barriers, no defines.
 */
#pragma OPENCL FP_CONTRACT OFF

__kernel void train_softmax_cross_entropy(
    const __global float *logits, const __global int *labels, __global float2 *scores, __global float *dLogits,
    int rows, int classes, float scale) {
    int row = (int)get_global_id(0);
    if (row < rows) {
        const __global float *z = logits + row * classes;
        int label = labels[row];
        int best = 0;
        for (int i = 1; i < classes; i++) {
            best = z[i] > z[best] ? i : best;
        }
        float sum = 0.0f;
        for (int i = 0; i < classes; i++) {
            sum += exp(z[i] - z[best]);
        }
        scores[row] = (float2)(log(sum) - (z[label] - z[best]), best == label ? 1.0f : 0.0f);
        for (int i = 0; i < classes; i++) {
            float p = exp(z[i] - z[best]) / sum;
            dLogits[row * classes + i] = (i == label ? p - 1.0f : p) * scale;
        }
    }
}
