package io.normcl.peers;

import io.normcl.bench.BenchCase.Pass;
import io.normcl.bench.Rounds.Work;
import org.jspecify.annotations.Nullable;

/** A library with the layer of one case. */
interface Contender extends AutoCloseable {
    /** As the results call it. */
    String name();

    /** A pass; null where the library has no such operation. */
    @Nullable
    Work pass(Pass pass);

    /** What the library says of itself for a pass: which implementation, or why it has none. */
    String remark(Pass pass);

    /** Puts what a pass on the first set gave to where it is judged, where it isn't there yet. */
    void fetch(Pass pass);

    /** Releases what was made. */
    @Override
    void close();
}
