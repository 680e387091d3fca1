/** OpenCL and nothing else: devices, queues, buffers, compiled kernels, one place that enqueues, and statuses told as exceptions. */
@NullMarked
package io.normcl.device;

import org.jspecify.annotations.NullMarked;
