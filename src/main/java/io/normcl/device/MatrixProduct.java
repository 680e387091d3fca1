package io.normcl.device;

import java.util.HashSet;
import java.util.Set;
import org.jocl.CL;
import org.jocl.blast.CLBlast;
import org.jocl.blast.CLBlastLayout;
import org.jocl.blast.CLBlastPrecision;
import org.jocl.blast.CLBlastStatusCode;
import org.jocl.blast.CLBlastTranspose;
import org.jocl.cl_device_id;

/** The matrix product of CLBlast, for those who put the optional {@code jocl-blast} on the class path. */
public final class MatrixProduct {
    /** CLBlast knows no tuning for PoCL; these settings were measured there, 5 to 10 times its defaults. */
    private static final String TUNED_PLATFORM = "Portable Computing Language";

    private static final long MWG = 128;
    private static final long NWG = 8;
    private static final long KWG = 32;
    private static final String[] ROUTINE = {"XGEMM_MIN_INDIRECT_SIZE"};
    private static final long[] ROUTINE_VALUES = {1};
    private static final String[] XGEMM = {
        "GEMMK", "KREG", "KWG", "KWI", "MDIMA", "MDIMC", "MWG", "NDIMB", "NDIMC", "NWG", "SA", "SB", "STRM", "STRN",
        "VWM", "VWN"
    };
    private static final long[] XGEMM_VALUES = {0, 1, KWG, 2, 4, 4, MWG, 1, 1, NWG, 0, 0, 0, 0, 8, 2};

    private static final Set<cl_device_id> TUNED = new HashSet<>();

    private MatrixProduct() {}

    /**
     * Enqueues {@code C = alpha·op(A)·op(B) + beta·C} for row-major matrices of floats; op transposes or not. Returns
     * before the device is done.
     *
     * @param device the device that all three buffers are on
     * @param transposeA whether A is stored as its transpose (k rows of lda)
     * @param transposeB whether B is stored as its transpose (n rows of ldb)
     * @param m rows of op(A) and C
     * @param n columns of op(B) and C
     * @param k columns of op(A), rows of op(B)
     * @param alpha factor of the product
     * @param a A, read
     * @param aOffset its first element, in floats
     * @param lda floats from row to row of A as stored
     * @param b B, read
     * @param bOffset its first element, in floats
     * @param ldb floats from row to row of B as stored
     * @param beta factor of the old C; 0 overwrites it whatever it holds
     * @param c C, updated
     * @param cOffset its first element, in floats
     * @param ldc floats from row to row of C
     * @throws IllegalArgumentException if a matrix does not fit its buffer
     * @throws DeviceException if CLBlast refuses
     */
    public static void enqueue(
            Device device,
            boolean transposeA,
            boolean transposeB,
            int m,
            int n,
            int k,
            float alpha,
            Buffer a,
            long aOffset,
            int lda,
            Buffer b,
            long bOffset,
            int ldb,
            float beta,
            Buffer c,
            long cOffset,
            int ldc) {
        device.requireOpen();
        if (m < 1 || n < 1 || k < 1) {
            throw new IllegalArgumentException("a matrix must not be empty: m=" + m + ", n=" + n + ", k=" + k);
        }
        require("A", device, a, aOffset, transposeA ? k : m, transposeA ? m : k, lda);
        require("B", device, b, bOffset, transposeB ? n : k, transposeB ? k : n, ldb);
        require("C", device, c, cOffset, m, n, ldc);
        tune(device);
        device.usesMatrixProduct();
        // Without memory of ours CLBlast allocates for itself, and takes the process down where there is none left.
        Buffer workspace = device.workspace(Math.max(
                Float.BYTES,
                isTuned(device)
                        ? tunedScratch(m, n, k)
                        : scratch(device, transposeA, transposeB, m, n, k, aOffset, lda, bOffset, ldb, cOffset, ldc)));
        int status = Status.of(() -> CLBlast.CLBlastSgemmWithTempBuffer(
                CLBlastLayout.CLBlastLayoutRowMajor,
                transpose(transposeA),
                transpose(transposeB),
                m,
                n,
                k,
                alpha,
                a.handle(),
                aOffset,
                lda,
                b.handle(),
                bOffset,
                ldb,
                beta,
                c.handle(),
                cOffset,
                ldc,
                device.queue(),
                null,
                workspace.handle()));
        check("CLBlastSgemm", status, device, ", m=" + m + ", n=" + n + ", k=" + k);
    }

    /** What CLBlast asks for, in bytes; it does not know of settings that were overridden. */
    private static long scratch(
            Device device,
            boolean transposeA,
            boolean transposeB,
            int m,
            int n,
            int k,
            long aOffset,
            int lda,
            long bOffset,
            int ldb,
            long cOffset,
            int ldc) {
        long[] bytes = new long[1];
        int status = Status.of(() -> CLBlast.CLBlastSGemmTempBufferSize(
                CLBlastLayout.CLBlastLayoutRowMajor,
                transpose(transposeA),
                transpose(transposeB),
                m,
                n,
                k,
                aOffset,
                lda,
                bOffset,
                ldb,
                cOffset,
                ldc,
                device.queue(),
                bytes));
        check("CLBlastSGemmTempBufferSize", status, device, ", m=" + m + ", n=" + n + ", k=" + k);
        return bytes[0];
    }

    /** The same for the settings above, at most: copies of all three matrices, each size rounded up to a tile's. */
    private static long tunedScratch(long m, long n, long k) {
        long tallM = (m + MWG - 1) / MWG * MWG;
        long tallN = (n + NWG - 1) / NWG * NWG;
        long tallK = (k + KWG - 1) / KWG * KWG;
        return Float.BYTES * (tallM * tallK + tallN * tallK + tallM * tallN);
    }

    private static int transpose(boolean yes) {
        return yes ? CLBlastTranspose.CLBlastTransposeYes : CLBlastTranspose.CLBlastTransposeNo;
    }

    private static void require(
            String name, Device device, Buffer buffer, long offset, int rows, int columns, int stride) {
        buffer.requireUsableOn(device, "CLBlastSgemm " + name, 0);
        long end = offset + (rows - 1L) * stride + columns;
        if (offset < 0 || stride < columns || 4 * end > buffer.bytes()) {
            throw new IllegalArgumentException("a matrix must fit its buffer: matrix=" + name + ", offset=" + offset
                    + ", rows=" + rows + ", columns=" + columns + ", stride=" + stride + ", bytes=" + buffer.bytes());
        }
    }

    private static boolean isTuned(Device device) {
        return device.description().platform().equals(TUNED_PLATFORM);
    }

    /** Sets the parameters once for each device id, before its first product: a later change would recompile. */
    private static synchronized void tune(Device device) {
        if (isTuned(device) && TUNED.add(device.id())) {
            override(device, "GemmRoutine", ROUTINE, ROUTINE_VALUES);
            override(device, "Xgemm", XGEMM, XGEMM_VALUES);
        }
    }

    private static void override(Device device, String kernel, String[] names, long[] values) {
        int status = Status.of(() -> CLBlast.CLBlastOverrideParameters(
                device.id(), kernel, CLBlastPrecision.CLBlastPrecisionSingle, names.length, names, values));
        check("CLBlastOverrideParameters", status, device, ", kernel=" + kernel);
    }

    private static void check(String call, int status, Device device, String where) {
        if (status != CL.CL_SUCCESS) {
            throw new DeviceException(call + " failed: status=" + CLBlastStatusCode.stringFor(status) + where
                    + ", device=" + device.name());
        }
    }

    /** CLBlast's cache keeps the contexts of its programs alive; called when one of them closes. */
    static void clearCache() {
        Status.of(CLBlast::CLBlastClearCache);
    }
}
