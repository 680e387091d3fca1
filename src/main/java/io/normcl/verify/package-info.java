/** Cases computed elsewhere, run by whatever offers the operation, and judged. */
@NullMarked
package io.normcl.verify;

import org.jspecify.annotations.NullMarked;
