package io.normcl.peers;

import io.normcl.bench.BenchCase.Pass;
import java.util.function.IntConsumer;
import org.jspecify.annotations.Nullable;

/** A library with the layer of one case. */
interface Contender extends AutoCloseable {
    /** As the results call it. */
    String name();

    /** Does a pass on the set of tensors of that number and waits for it; null where the library has no such operation. */
    @Nullable
    IntConsumer pass(Pass pass);

    /** What the library says of itself for a pass: which implementation, or why it has none. */
    String remark(Pass pass);

    /** Puts what a pass on the first set gave to where it is judged, where it isn't there yet. */
    void fetch(Pass pass);

    /** Releases what was made. */
    @Override
    void close();
}
