/** Experiments on real data, and their reports. */
@NullMarked
package io.normcl.lab;

import org.jspecify.annotations.NullMarked;
