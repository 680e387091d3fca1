/** Which kernels run, with which sizes and how much workspace, as printable values; nothing here touches a device. */
@NullMarked
package io.normcl.plan;

import org.jspecify.annotations.NullMarked;
