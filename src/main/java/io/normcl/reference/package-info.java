/** Plain loops in double: what the kernels and a device's self-test are checked against. */
@NullMarked
package io.normcl.reference;

import org.jspecify.annotations.NullMarked;
