/** Statistics and gradient sums of several devices merged on the host, in double and in a fixed order. */
@NullMarked
package io.normcl.sync;

import org.jspecify.annotations.NullMarked;
