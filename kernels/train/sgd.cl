/* Stochastic gradient descent with momentum and weight decay, as PyTorch's SGD (Sutskever et al. 2013 without the
 * dampening):
 *
 *   train_sgd  g = gradient + decay*w;  velocity = momentum*velocity + g;  w = w - rate*velocity
 *
 * One fma for each, so that every device ends with the same bits.
 * Grid: one work-item for each of a parameter's items, rounded up to whole work-groups. gradient and velocity hold
 * every parameter, this one from offset on. Reads w, gradient, velocity; updates w, velocity. No local memory, no
 * barriers, no defines.
 */
#pragma OPENCL FP_CONTRACT OFF

__kernel void train_sgd(
    __global float *w, const __global float *gradient, __global float *velocity, int offset, int items, float rate,
    float momentum, float decay) {
    int item = (int)get_global_id(0);
    if (item < items) {
        float g = fma(decay, w[item], gradient[offset + item]);
        float v = fma(momentum, velocity[offset + item], g);
        velocity[offset + item] = v;
        w[item] = fma(-rate, v, w[item]);
    }
}
