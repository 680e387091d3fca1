/** The bench's suites beside other libraries on the same tensors; built by the Maven profile {@code peers} alone. */
@NullMarked
package io.normcl.peers;

import org.jspecify.annotations.NullMarked;
