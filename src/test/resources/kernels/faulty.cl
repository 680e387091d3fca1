/* What oclgrind must report, so that a test knows that it looks: two work-items write to one place; what nobody wrote is
 * read and passed on; a value is stored behind the end.
 */
__kernel void faulty_race(__global int *y) { y[0] = (int)get_global_id(0); }

__kernel void faulty_uninitialized(const __global float *x, __global float *y) {
    y[get_global_id(0)] = x[get_global_id(0)];
}

__kernel void faulty_bounds(__global float *y, int count) { y[get_global_id(0) + count] = 1.0f; }
