/** What a buffer holds: layouts, shapes and the views that shapes collapse to. */
@NullMarked
package io.normcl.tensor;

import org.jspecify.annotations.NullMarked;
