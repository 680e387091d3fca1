/**
 * Tensors in files that other programs read and write: safetensors and npy, each file whole or not there at all; and
 * what other frameworks mean by the states in them.
 */
@NullMarked
package io.normcl.exchange;

import org.jspecify.annotations.NullMarked;
