package io.normcl.plan;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.normcl.device.Limits;
import io.normcl.device.Limits.ReadsAhead;
import io.normcl.tensor.Activation;
import io.normcl.tensor.DataType;
import io.normcl.tensor.RowView;
import io.normcl.tensor.RowView.Order;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;

/** What layer norm's plans choose; no device needed. */
class RowPlanTest {
    private static final Limits GPU = new Limits(
            false, 132, 1024, 48 << 10, 1L << 36, 1L << 37, 50 << 20, true, Long.MAX_VALUE, ReadsAhead.NEVER);
    private static final Limits CPU =
            new Limits(true, 2, 4096, 512 << 10, 1L << 34, 1L << 35, 32 << 20, false, Long.MAX_VALUE, ReadsAhead.NEVER);
    private static final Limits ZEN_5 = new Limits(
            true, 2, 4096, 512 << 10, 1L << 34, 1L << 35, 32 << 20, true, Long.MAX_VALUE, ReadsAhead.SUMMING);
    private static final Limits SHORT_LOOPS =
            new Limits(true, 4, 1024, 32 << 10, 1L << 32, 1L << 33, 32 << 20, false, 65_535, ReadsAhead.NEVER);

    private static List<String> backward(long rows, long d) {
        return kernels(RowPlan.backward(view(rows, d), RowRule.STANDARD, Form.PLAIN, GPU, Tuning.NONE, true, true));
    }

    private static RowView view(long rows, long d) {
        return new RowView(rows, 1, d, 1, Order.ROWS);
    }

    private static List<String> kernels(Plan plan) {
        return plan.calls().stream().map(KernelCall::kernel).toList();
    }

    @Test
    void aGpuTakesRowsThatItsRegistersHoldOnceAndSumsTheirColumnsBesides() {
        assertEquals(List.of("cooperative_held_backward", "channel_backward_finalize"), backward(65_536, 8192));
        assertEquals(
                List.of(
                        "cooperative_rows_columns_partial",
                        "channel_backward_finalize",
                        "cooperative_rows_backward_fused"),
                backward(65_536, 8196));
    }

    /** The columns of all rows that are taken at once are added up in local memory. */
    @Test
    void aGpusGroupsAreAsManyAsKeepItsMemoryBusy() {
        for (long d : new long[] {1, 3, 32, 256, 768, 1024, 4096, 8192}) {
            Plan plan =
                    RowPlan.backward(view(1_000_000, d), RowRule.STANDARD, Form.PLAIN, GPU, Tuning.NONE, true, true);
            KernelCall call = plan.calls().get(0);
            long span = Long.parseLong(call.defines().get("SPAN"));
            long vectors = Long.parseLong(call.defines().get("VECTORS"));
            long width = Long.parseLong(call.defines().get("WIDTH"));
            assertTrue(
                    span * vectors * width >= d && vectors * width <= 16,
                    call.defines().toString());
            long items = call.range().localX();
            assertTrue(items == span || 2 * 16 * items * width <= GPU.localMemoryBytes(), d + ": " + items);
            long vectorsAtOnce = call.range().globalX() * vectors;
            assertTrue(vectorsAtOnce >= 132 * 1024 && vectorsAtOnce <= 132 * 2048, d + ": " + vectorsAtOnce);
            assertEquals(16 * d * call.range().globalX() / call.range().localX(), plan.workspaceBytes());
        }
    }

    @Test
    void aCpuTakesTwoRowsSideBySideAndFourOfHalvesOrOfMediumLength() {
        assertEquals("2", height(DataType.FLOAT, 191));
        assertEquals("4", height(DataType.FLOAT, 192));
        assertEquals("4", height(DataType.FLOAT, 511));
        assertEquals("2", height(DataType.FLOAT, 512));
        assertEquals("4", height(DataType.HALF, 512));
        assertEquals("4", height(DataType.BFLOAT16, 191));
        assertEquals("0", backward(DataType.FLOAT, 511).get("MEANWHILE"));
        assertEquals("1", backward(DataType.FLOAT, 512).get("MEANWHILE"));
        assertEquals("0", backward(DataType.HALF, 512).get("MEANWHILE"));
    }

    @Test
    void aCpuThatReadsAheadWhileItSumsTakesOneRowAndWritesItMeanwhile() {
        assertEquals("2 0", rows(DataType.FLOAT, 256));
        assertEquals("1 1", rows(DataType.FLOAT, 320));
        assertEquals("1 1", rows(DataType.FLOAT, 8192));
        assertEquals("2 1", rows(DataType.FLOAT, 16384));
        assertEquals("1 1", rows(DataType.FLOAT, 100), "no whole vectors");
        assertEquals("2 0", rows(DataType.HALF, 250));
        assertEquals("4 0", rows(DataType.HALF, 256));
        assertEquals("2 0", rows(DataType.HALF, 768));
        assertEquals("4 0", rows(DataType.HALF, 1000), "no whole vectors");
        assertEquals("1 1", rows(DataType.BFLOAT16, 1024));
        assertEquals("2 0", rows(DataType.FLOAT, 50), "short ones as elsewhere");
        assertEquals("4 0", rows(DataType.HALF, 50));
    }

    private static String rows(DataType type, long d) {
        Map<String, String> defines = backward(type, d, ZEN_5);
        return defines.get("HEIGHT") + " " + defines.get("MEANWHILE");
    }

    @Test
    void aCpuTakesFourLongRowsOfFloatsSideBySideInTheForward() {
        assertEquals("1", beside(DataType.FLOAT, 2048, CPU));
        assertEquals("4", beside(DataType.FLOAT, 2064, CPU));
        assertEquals("1", beside(DataType.FLOAT, 2065, CPU), "no whole vectors");
        assertEquals("1", beside(DataType.HALF, 4096, CPU));
        assertEquals("4", beside(DataType.FLOAT, 1 << 17, CPU));
        assertEquals("1", beside(DataType.FLOAT, (1 << 17) + 16, CPU), "eight of each core don't fit the caches");
    }

    @Test
    void aCpuThatReadsAheadWhileItSumsTakesShorterOnesAndThoseWithoutAMeanOneByOne() {
        assertEquals("1", beside(DataType.FLOAT, 4080, ZEN_5));
        assertEquals("4", beside(DataType.FLOAT, 4096, ZEN_5));
        assertEquals("1", beside(DataType.FLOAT, 4096, ZEN_5, new RowRule(false, false, false)));
        assertEquals("4", beside(DataType.FLOAT, 4096, CPU, new RowRule(false, false, false)));
    }

    private static String beside(DataType type, long d, Limits limits) {
        return beside(type, d, limits, RowRule.STANDARD);
    }

    private static String beside(DataType type, long d, Limits limits, RowRule rule) {
        Form form = new Form(type, Activation.NONE, false, false, false, 0);
        Plan plan = RowPlan.forward(view(64, d), rule, form, limits, Tuning.NONE);
        return plan.calls().get(0).defines().get("BESIDE");
    }

    @Test
    void aCpuTakesSampleBySampleWhereChannelsStandLastAndItsCachesHoldOneForEachCore() {
        RowView near = new RowView(32, 32, 64, 7 * 7, Order.CHANNELS_LAST);
        Plan forward = RowPlan.forward(near, RowRule.STANDARD, Form.PLAIN, CPU, Tuning.NONE);
        assertEquals(List.of("wide_last_rows_forward_fused"), kernels(forward));
        assertEquals(2L * 4 * near.elements(), forward.bytes());
        RowView far = new RowView(32, 32, 8, 56 * 56, Order.CHANNELS_LAST);
        forward = RowPlan.forward(far, RowRule.STANDARD, Form.PLAIN, CPU, Tuning.NONE);
        assertEquals(List.of("wide_last_rows_forward_fused"), kernels(forward));
        assertEquals(3L * 4 * far.elements(), forward.bytes(), "no longer near when it is taken again");
        Plan backward = RowPlan.backward(far, RowRule.STANDARD, Form.PLAIN, CPU, Tuning.NONE, true, true);
        assertEquals("wide_last_backward_partial", kernels(backward).get(0), "two tensors are too much");
        RowView few = new RowView(7, 32, 64, 7 * 7, Order.CHANNELS_LAST);
        forward = RowPlan.forward(few, RowRule.STANDARD, Form.PLAIN, CPU, Tuning.NONE);
        assertEquals("wide_last_stats_partial", kernels(forward).get(0), "too few for two cores");
    }

    private static String height(DataType type, long d) {
        return backward(type, d).get("HEIGHT");
    }

    private static Map<String, String> backward(DataType type, long d) {
        return backward(type, d, CPU);
    }

    private static Map<String, String> backward(DataType type, long d, Limits limits) {
        Form form = new Form(type, Activation.NONE, false, false, false, 0);
        Plan plan = RowPlan.backward(view(4096, d), RowRule.STANDARD, form, limits, Tuning.NONE, true, true);
        return plan.calls().get(0).defines();
    }

    @Test
    void noLoopIsLongerThanTheDeviceGoesThrough() {
        for (int width : new int[] {16, 1}) {
            Plan plan = RowPlan.forward(
                    view(64, 100_000), RowRule.STANDARD, Form.PLAIN, SHORT_LOOPS, Tuning.NONE.withWidth(width));
            assertEquals(width == 16 ? 1 : 3, plan.calls().size());
        }
    }

    /** As many as are asked for; no more than there are rows, and no fewer than a device's longest loops allow. */
    @Test
    void tuningSharesRowsOut() {
        assertEquals(16, groups(4096, 256, CPU, 16));
        assertEquals(40, groups(40, 256, CPU, 64));
        assertEquals(1, groups(4096, 256, CPU, 1));
        assertEquals(8, groups(4096, 256, SHORT_LOOPS, 1));
    }

    @Test
    void aGroupOfAForwardHasRowsEnoughToBeWorthIt() {
        assertEquals(4, groups(256, 256, CPU, null));
        assertEquals(2, groups(64, 256, CPU, null), "one for each core");
        assertEquals(2, groups(8, 256, CPU, null));
        assertEquals(1, groups(4, 256, CPU, null), "not worth sharing");
        assertEquals(8 * 4 * 2, groups(65_536, 256, CPU, null), "enough of them");
        Plan backward = RowPlan.backward(view(128, 128), RowRule.STANDARD, Form.PLAIN, CPU, Tuning.NONE, true, true);
        assertEquals(4, backward.calls().get(0).range().globalX(), "a backward's groups keep sums");
    }

    private static long groups(long rows, long d, Limits limits, @Nullable Integer splits) {
        Plan plan =
                RowPlan.forward(view(rows, d), RowRule.STANDARD, Form.PLAIN, limits, Tuning.NONE.withSplits(splits));
        return plan.calls().get(0).range().globalX();
    }
}
