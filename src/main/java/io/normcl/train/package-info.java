/** A small data-parallel trainer of one network on Fashion-MNIST: a client of the public API like any other. */
@NullMarked
package io.normcl.train;

import org.jspecify.annotations.NullMarked;
