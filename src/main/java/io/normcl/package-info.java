/** Normalization layers over OpenCL devices: what they mean, their parameters and statistics; the public API. */
@NullMarked
package io.normcl;

import org.jspecify.annotations.NullMarked;
