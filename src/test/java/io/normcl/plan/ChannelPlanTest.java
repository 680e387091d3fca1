package io.normcl.plan;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.normcl.device.Limits;
import io.normcl.device.Limits.ReadsAhead;
import io.normcl.device.Range;
import io.normcl.tensor.Activation;
import io.normcl.tensor.ChannelView;
import io.normcl.tensor.DataType;
import io.normcl.tensor.Layout;
import java.util.List;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;

/** Plans are values: what runs, with which sizes, how many bytes; no device is needed. */
class ChannelPlanTest {
    private static final Limits CPU =
            new Limits(true, 2, 4096, 1 << 20, 1L << 30, 1L << 32, 32 << 20, true, Long.MAX_VALUE, ReadsAhead.NEVER);
    private static final Limits READS_AHEAD =
            new Limits(true, 2, 4096, 1 << 20, 1L << 30, 1L << 32, 32 << 20, true, Long.MAX_VALUE, ReadsAhead.SUMMING);
    private static final Limits READS_STRAIGHT =
            new Limits(true, 2, 4096, 1 << 20, 1L << 30, 1L << 32, 32 << 20, true, Long.MAX_VALUE, ReadsAhead.STRAIGHT);
    private static final Limits LOOPS_END =
            new Limits(true, 2, 4096, 1 << 20, 1L << 30, 1L << 32, 32 << 20, true, 65_535, ReadsAhead.NEVER);
    private static final Limits GPU = new Limits(
            false, 132, 1024, 48 << 10, 1L << 36, 1L << 37, 50 << 20, true, Long.MAX_VALUE, ReadsAhead.NEVER);

    private static List<String> kernels(Plan plan) {
        return plan.calls().stream().map(KernelCall::kernel).toList();
    }

    @Test
    void aChannelThatCanBeHeldTakesOneLaunch() {
        Plan plan = ChannelPlan.forward(new ChannelView(32, 256, 56 * 56, false), Form.PLAIN, CPU, Tuning.NONE);
        assertEquals(List.of("wide_first_forward_fused"), kernels(plan));
        assertEquals(2L * 4 * 32 * 256 * 56 * 56, plan.bytes());
        assertEquals(0, plan.workspaceBytes());
    }

    @Test
    void whatACpuHoldsInPartTakesOneLaunchAndIsReadTwice() {
        Plan plan = ChannelPlan.forward(new ChannelView(32, 64, 112 * 112, false), Form.PLAIN, CPU, Tuning.NONE);
        assertEquals(List.of("wide_first_forward_fused"), kernels(plan));
        assertEquals(3L * 4 * 32 * 64 * 112 * 112, plan.bytes());
    }

    @Test
    void channelsLastAreTakenWholeWhereACpusCoresShareTheirTilesOut() {
        String whole = "wide_last_forward_fused";
        String steps = "wide_last_forward_tickets";
        assertEquals(whole, forwardKernel(new ChannelView(32, 2048, 7 * 7, true)));
        assertEquals(whole, forwardKernel(new ChannelView(4096, 4096, 1, true)));
        assertEquals(whole, forwardKernel(new ChannelView(4096, 3072, 1, true)), "four tiles, no page wide");
        assertEquals(steps, forwardKernel(new ChannelView(4096, 2112, 1, true)), "three tiles, two cores");
        assertEquals(steps, forwardKernel(new ChannelView(4096, 1024, 1, true)), "one tile");
    }

    /** Where work-items may loop for as long as that takes, and nobody merges in the middle. */
    @Test
    void stepsOfChannelsLastShareALaunchOnACpu() {
        ChannelView view = new ChannelView(4096, 1024, 1, true);
        assertEquals(List.of(1, 1, 1), launches(view, CPU, Tuning.NONE));
        assertEquals(List.of(3, 2, 3), launches(view, CPU, Tuning.NONE.withFused(false)));
        assertEquals(List.of(3, 2, 3), launches(view, CPU, Tuning.of(Family.COOPERATIVE)));
        assertEquals(List.of(3, 2, 3), launches(view, GPU, Tuning.NONE));
        assertEquals(List.of(3, 2, 3), launches(new ChannelView(4096, 4096, 1, true), GPU, Tuning.NONE));
        assertEquals(List.of(3, 2, 3), launches(view, LOOPS_END, Tuning.NONE));
        assertEquals(List.of(1, 1, 1), launches(new ChannelView(4, 256, 49, false), CPU, Tuning.NONE));
        assertEquals(List.of(1, 2, 1), launches(new ChannelView(4, 256, 49, false), LOOPS_END, Tuning.NONE));
    }

    /** Of a forward, an evaluation and a backward. */
    private static List<Integer> launches(ChannelView view, Limits limits, Tuning tuning) {
        return Stream.of(
                        ChannelPlan.forward(view, Form.PLAIN, limits, tuning),
                        ChannelPlan.forwardRunning(view, Form.PLAIN, limits, tuning),
                        ChannelPlan.backward(view, Form.PLAIN, limits, tuning, true, true, true))
                .map(plan -> plan.calls().size())
                .toList();
    }

    @Test
    void fewPlacesOfManySamplesAreColumns() {
        assertEquals("wide_last_forward_tickets", forwardKernel(new ChannelView(256, 64, 9, false)));
        assertEquals("wide_first_forward_fused", forwardKernel(new ChannelView(256, 64, 10, false)));
        assertEquals("wide_first_forward_fused", forwardKernel(new ChannelView(255, 64, 9, false)));
    }

    @Test
    void longRowsGoBackInNarrowTilesOneBlockOfThemAfterTheOther() {
        KernelCall whole = backward(32 * 7 * 7, 2048);
        assertEquals("wide_last_backward_fused", whole.kernel(), "which the caches hold in part");
        assertEquals("1", whole.defines().get("DRAWN"));
        assertEquals(Range.of(CPU.computeUnits(), 1), whole.range());
        assertEquals("16", whole.defines().get("VECTORS"), "which a core holds");
        assertEquals(
                "8", backward(2048, 8192).defines().get("VECTORS"), "where the last cache doesn't hold the tensors");
        assertEquals("64", backward(16 * 7 * 7, 2048).defines().get("VECTORS"), "where it holds them well");
        KernelCall steps = backward(4096, 4096);
        assertEquals("wide_last_backward_tickets", steps.kernel());
        assertEquals("16", steps.defines().get("VECTORS"));
        assertEquals(List.of(1L, 8L, 32L), steps.args().subList(18, 21), "a tile at once, its parts");
        assertEquals(List.of(2L, 5L, 18L), backward(600, 8576).args().subList(18, 21), "as many as the caches hold");
        assertEquals("64", backward(100_000, 1024).defines().get("VECTORS"), "no long rows");
        assertEquals("53", backward(8000, 2500).defines().get("VECTORS"), "no whole vectors");
    }

    private static KernelCall backward(long n, long c) {
        ChannelView view = new ChannelView(n, c, 1, true);
        return ChannelPlan.backward(view, Form.PLAIN, CPU, Tuning.NONE, true, true, true)
                .calls()
                .get(0);
    }

    @Test
    void anEvaluationTakesWiderTilesSinceItSumsNothing() {
        KernelCall call = ChannelPlan.forwardRunning(new ChannelView(32, 2048, 49, true), Form.PLAIN, CPU, Tuning.NONE)
                .calls()
                .get(0);
        assertEquals("wide_last_running_fused", call.kernel());
        assertEquals("128", call.defines().get("VECTORS"));
        assertEquals(Range.of(CPU.computeUnits(), 1), call.range());
        assertEquals(32L, call.args().get(13), "parts");
    }

    private static String forwardKernel(ChannelView view) {
        return kernels(ChannelPlan.forward(view, Form.PLAIN, CPU, Tuning.NONE)).get(0);
    }

    @Test
    void shortPlanesAreTakenSideBySide() {
        ChannelView view = new ChannelView(32, 2048, 7 * 7, false);
        KernelCall call =
                ChannelPlan.forward(view, Form.PLAIN, CPU, Tuning.NONE).calls().get(0);
        assertEquals("32", call.defines().get("CHANNELS"));
        assertEquals(Range.of(2048 / 32, 1), call.range());
        KernelCall gpu =
                ChannelPlan.forward(view, Form.PLAIN, GPU, Tuning.NONE).calls().get(0);
        assertEquals("1", gpu.defines().get("CHANNELS"));
    }

    @Test
    void hardwareThatReadsAheadIsAskedForNothingWhereAWalkIsStraightAndNoCacheHoldsTheTensor() {
        ChannelView large = new ChannelView(32, 256, 56 * 56, true);
        assertEquals(List.of("0", "0"), fetches(large, READS_AHEAD));
        assertEquals(List.of("1", "1"), fetches(large, CPU));
        assertEquals(List.of("1", "1"), fetches(large, READS_STRAIGHT), "sums pass through the first cache");
        assertEquals(List.of("0", "0"), fetches(new ChannelView(32, 64, 112 * 112, true), READS_STRAIGHT), "sums stay");
        assertEquals(
                List.of("1", "0"), fetches(new ChannelView(64, 3, 224 * 224, false), READS_STRAIGHT), "a channel's");
        assertEquals(
                List.of("1", "1"), fetches(new ChannelView(32, 256, 7 * 7, true), READS_AHEAD), "a cache holds it");
        assertEquals(
                List.of("1", "1"),
                fetches(new ChannelView(32, 4096, 14 * 14, true), READS_AHEAD),
                "rows come in parts");
        assertEquals(List.of("1", "0"), fetches(new ChannelView(64, 3, 224 * 224, false), READS_AHEAD), "a channel's");
    }

    @Test
    void manyShortPlanesAreAskedForEvenWhereACacheMayHoldThem() {
        for (Limits cpu : List.of(CPU, READS_STRAIGHT, READS_AHEAD)) {
            assertEquals(List.of("2", "1"), fetches(new ChannelView(4, 64, 14 * 14, false), cpu));
            assertEquals(List.of("1", "1"), fetches(new ChannelView(3, 64, 14 * 14, false), cpu), "few of a channel");
            assertEquals(List.of("1", "1"), fetches(new ChannelView(4, 64, 56 * 56, false), cpu), "long ones");
        }
        assertEquals(List.of("1", "1"), fetches(new ChannelView(4, 64, 14 * 14, false), GPU));
        ChannelView odd = new ChannelView(6, 65, 14 * 14, false);
        assertEquals(List.of("1", "1"), fetches(odd, CPU), "one channel at a time, asked for beyond its end");
        assertEquals(List.of("2", "1"), fetches(new ChannelView(7, 65, 14 * 14, false), CPU));
        ChannelView border = new ChannelView(8, 64, 64 * 64, false);
        assertEquals(List.of("1", "1"), fetches(border, CPU));
        Form halves = new Form(DataType.HALF, Activation.NONE, false, false, false, 0);
        for (Plan fused : List.of(
                ChannelPlan.forward(border, halves, CPU, Tuning.NONE),
                ChannelPlan.backward(border, halves, CPU, Tuning.NONE, true, true, true))) {
            assertEquals("2", fused.calls().get(0).defines().get("FETCH"));
        }
    }

    @Test
    void aBackwardAsksForNothingWhereNoCacheHoldsBothOfItsInputs() {
        ChannelView view = new ChannelView(16384, 256, 1, true);
        assertEquals(List.of("1", "1"), fetches(view, READS_AHEAD));
        Plan one = ChannelPlan.backward(view, Form.PLAIN, READS_AHEAD, Tuning.NONE, true, true, true);
        assertEquals("0", one.calls().get(0).defines().get("FETCH"));
        Tuning cut = Tuning.NONE.withFused(false);
        Plan three = ChannelPlan.backward(view, Form.PLAIN, READS_AHEAD, cut, true, true, true);
        assertEquals("0", three.calls().get(0).defines().get("FETCH"));
        assertEquals("0", three.calls().get(2).defines().get("FETCH"));
    }

    /** FETCH of the kernels of the forward in three launches that walk the tensor. */
    private static List<@Nullable String> fetches(ChannelView view, Limits limits) {
        Plan plan = ChannelPlan.forward(view, Form.PLAIN, limits, Tuning.NONE.withFused(false));
        return Stream.of(0, 2)
                .map(i -> plan.calls().get(i).defines().get("FETCH"))
                .toList();
    }

    @Test
    void aChannelThatCannotTakesThree() {
        Plan plan = ChannelPlan.forward(new ChannelView(32, 3, 224 * 224, false), Form.PLAIN, CPU, Tuning.NONE);
        assertEquals(List.of("wide_first_stats_partial", "channel_stats_finalize", "wide_first_apply"), kernels(plan));
        assertEquals(3L * 4 * 32 * 3 * 224 * 224, plan.bytes());
        assertEquals(8L * 3 * 3 * plan.splits(), plan.workspaceBytes());
        assertTrue(plan.splits() > 1);
    }

    @Test
    void gpusGetTheCooperativeFamily() {
        Plan plan = ChannelPlan.backward(
                new ChannelView(32, 64, 56 * 56, true), Form.PLAIN, GPU, Tuning.NONE, true, true, true);
        assertEquals(
                List.of(
                        "cooperative_last_backward_partial",
                        "channel_backward_finalize",
                        "cooperative_last_backward_apply"),
                kernels(plan));
        assertEquals("256", plan.calls().get(0).defines().get("LOCAL_SIZE"));
        assertEquals(5L * 4 * 32 * 64 * 56 * 56, plan.bytes());
    }

    @Test
    void onlyWhatIsWantedRuns() {
        ChannelView view = new ChannelView(8, 32, 4096, false);
        Tuning cut = Tuning.NONE.withFused(false);
        assertEquals(
                List.of("wide_first_backward_apply"),
                kernels(ChannelPlan.backward(view, Form.PLAIN, CPU, cut, false, true, false)));
        assertEquals(
                List.of("wide_first_backward_partial", "channel_backward_finalize"),
                kernels(ChannelPlan.backward(view, Form.PLAIN, CPU, cut, true, false, true)));
        assertEquals(List.of(), kernels(ChannelPlan.backward(view, Form.PLAIN, CPU, cut, true, false, false)));
    }

    @Test
    void tuningOverrides() {
        ChannelView view = new ChannelView(2, 64, 64, false);
        for (Family family : Family.values()) {
            for (boolean fused : new boolean[] {true, false}) {
                Plan plan = ChannelPlan.forward(
                        view, Form.PLAIN, GPU, Tuning.of(family).withFused(fused));
                assertEquals(fused ? 1 : 3, plan.calls().size());
                assertTrue(plan.calls().get(0).kernel().startsWith(family == Family.WIDE ? "wide_" : "cooperative_"));
            }
        }
    }

    @Test
    void sizesBeyondTwoToThe31() {
        ChannelView view = new ChannelView(4096, 2048, 1 << 12, false);
        for (Limits limits : List.of(CPU, GPU)) {
            for (boolean last : new boolean[] {false, true}) {
                ChannelView v = new ChannelView(view.n(), view.c(), view.s(), last);
                Plan plan = ChannelPlan.backward(v, Form.PLAIN, limits, Tuning.NONE.withFused(false), true, true, true);
                assertEquals(5 * 4 * (1L << 35), plan.bytes());
                for (KernelCall call : plan.calls()) {
                    assertTrue(call.range().globalX() > 0 && call.range().globalX() < 1L << 31, call.toString());
                }
            }
        }
    }

    @Test
    void placesOfOneAreTheSameInBothLayouts() {
        assertEquals(ChannelView.of(Layout.CHANNELS_FIRST, 5, 7), ChannelView.of(Layout.CHANNELS_LAST, 5, 7));
        assertEquals(ChannelView.of(Layout.CHANNELS_FIRST, 5, 7, 1, 1), ChannelView.of(Layout.CHANNELS_LAST, 5, 1, 7));
    }

    @Test
    void groupsStayWithinWeakDevices() {
        Limits weak = new Limits(false, 1, 96, 16 << 10, 1 << 20, 1 << 20, 0, false, 65_535, ReadsAhead.NEVER);
        Plan plan = ChannelPlan.forward(new ChannelView(2, 64, 64, true), Form.PLAIN, weak, Tuning.NONE);
        for (KernelCall call : plan.calls()) {
            assertTrue(call.range().localX() <= 96 && Long.bitCount(call.range().localX()) == 1, call.toString());
        }
    }

    @Test
    void noWorkItemLoopsTooLong() {
        Limits llvmpipe = new Limits(true, 8, 1024, 32 << 10, 1L << 31, 1L << 31, 0, false, 65_535, ReadsAhead.NEVER);
        for (Family family : Family.values()) {
            ChannelView view = new ChannelView(1 << 20, 64, 16, true);
            Plan plan = ChannelPlan.forward(view, Form.PLAIN, llvmpipe, Tuning.of(family));
            for (KernelCall call : List.of(plan.calls().get(0), plan.calls().get(2))) {
                int width = Integer.parseInt(call.defines().get("WIDTH"));
                long steps = view.elements() / (call.range().globalX() * width);
                assertTrue(steps <= 65_535, () -> call + ": " + steps);
            }
        }
    }
}
