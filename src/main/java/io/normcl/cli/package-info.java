/** The command line: parses, calls, prints. */
@NullMarked
package io.normcl.cli;

import org.jspecify.annotations.NullMarked;
