/** Tensors in files that other programs read and write: safetensors and npy, each file whole or not there at all. */
@NullMarked
package io.normcl.exchange;

import org.jspecify.annotations.NullMarked;
