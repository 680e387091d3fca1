package io.normcl.peers;

import io.normcl.bench.BenchCase;
import io.normcl.bench.BenchCase.Pass;
import io.normcl.bench.Rounds.Millis;
import io.normcl.bench.Suite;
import java.util.Locale;
import java.util.Map;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/**
 * What one pass of a case took.
 *
 * @param suite that the case is of
 * @param timed the case
 * @param pass which
 * @param cached whether all rounds took the same tensors
 * @param bytes what must pass to and from memory, by NormCL's plan
 * @param copy the streaming copy's bytes in 10⁹ a second
 * @param millis by library, without those that have no such operation
 * @param errors by library, the largest error over the largest value
 * @param remarks by library, the implementation or why there is none
 */
record Result(
        Suite suite,
        BenchCase timed,
        Pass pass,
        boolean cached,
        long bytes,
        double copy,
        Map<String, Millis> millis,
        Map<String, Double> errors,
        Map<String, String> remarks) {
    static final String NORMCL = "normcl";
    static final String ONEDNN = "onednn";
    static final String ONEDNN_BEST = "onednn_best";
    static final String PYTORCH = "pytorch";

    static final String HEADER = "suite,op,pass,layout,dtype,shape,buffers,bytes,copy_gbps,normcl_ms,normcl_min_ms,"
            + "fraction,onednn_ms,onednn_best_ms,pytorch_ms,to_onednn,to_onednn_best,to_pytorch,"
            + "normcl_error,onednn_error,pytorch_error,normcl_kernels,onednn_implementation,pytorch_remark";

    /** How many times as fast as a library NormCL is, the median of the rounds; null where that has no such operation. */
    @Nullable
    Double ratio(String library) {
        Millis own = millis.get(NORMCL);
        Millis other = millis.get(library);
        return own == null || other == null ? null : other.by(own);
    }

    double fraction() {
        return gigabytes(NORMCL) / copy;
    }

    /** A library's rate as if it moved the bytes that are needed. */
    double gigabytes(String library) {
        Millis of = millis.get(library);
        return of == null ? Double.NaN : of.gigabytes(bytes);
    }

    String csv() {
        Stream<Object> cells = Stream.of(
                suite,
                timed.name(),
                pass.name().toLowerCase(Locale.ROOT),
                timed.layout().name().toLowerCase(Locale.ROOT),
                timed.type().name().toLowerCase(Locale.ROOT),
                timed.shapeName(),
                cached ? "cached" : "rotated",
                bytes,
                number(copy),
                number(median(NORMCL)),
                number(millis.containsKey(NORMCL) ? millis.get(NORMCL).min() : null),
                number(fraction()),
                number(median(ONEDNN)),
                number(median(ONEDNN_BEST)),
                number(median(PYTORCH)),
                number(ratio(ONEDNN)),
                number(ratio(ONEDNN_BEST)),
                number(ratio(PYTORCH)),
                number(errors.get(NORMCL)),
                number(errors.get(ONEDNN)),
                number(errors.get(PYTORCH)),
                remark(NORMCL),
                remark(ONEDNN),
                remark(PYTORCH));
        return String.join(",", cells.map(Object::toString).toList());
    }

    private @Nullable Double median(String library) {
        Millis of = millis.get(library);
        return of == null ? null : of.median();
    }

    private String remark(String library) {
        return remarks.getOrDefault(library, "").replace(',', ';');
    }

    private static String number(@Nullable Double value) {
        return value == null ? "" : String.format(Locale.ROOT, "%.5g", value);
    }
}
