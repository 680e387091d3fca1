/** Measures passes in time and in bytes a second, beside a streaming copy in the same run. */
@NullMarked
package io.normcl.bench;

import org.jspecify.annotations.NullMarked;
