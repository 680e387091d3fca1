/** What layers cost the host, measured with JMH; built by the Maven profile {@code host} alone. */
@NullMarked
package io.normcl.host;

import org.jspecify.annotations.NullMarked;
