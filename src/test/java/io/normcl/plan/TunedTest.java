package io.normcl.plan;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.normcl.device.Limits;
import io.normcl.device.Limits.ReadsAhead;
import io.normcl.plan.ShapeClass.Pass;
import io.normcl.plan.ShapeClass.Walked;
import io.normcl.tensor.ChannelView;
import io.normcl.tensor.DataType;
import io.normcl.tensor.RowView;
import io.normcl.tensor.RowView.Order;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

/** Classes of shapes and what is tuned for them are values that their text gives back. */
class TunedTest {
    private static final Limits CPU =
            new Limits(true, 2, 4096, 1 << 20, 1L << 30, 1L << 32, 32 << 20, true, Long.MAX_VALUE, ReadsAhead.NEVER);
    private static final ChannelView FIRST = new ChannelView(32, 64, 112 * 112, false);

    private static ShapeClass rows(long n, long d) {
        return ShapeClass.of(new RowView(n, 1, d, 1, Order.ROWS), DataType.FLOAT, Pass.FORWARD);
    }

    @Test
    void sizesGoToTheNearestPowerOfTwo() {
        assertEquals("rows.forward.float.8192x1024", rows(8192, 768).toString());
        assertEquals(rows(8192, 768), rows(8192, 1024));
        assertEquals(rows(8192, 1448), rows(8192, 1024));
        assertEquals(rows(8192, 1449), rows(8192, 2048));
        assertEquals("rows.forward.float.1x1", rows(0, 1).toString());
        assertEquals(
                "channels_first.backward.bfloat16.64x524288",
                ShapeClass.of(FIRST, DataType.BFLOAT16, Pass.BACKWARD).toString());
    }

    @Test
    void whatRunsOtherwiseIsOfAnotherClass() {
        assertNotEquals(
                ShapeClass.of(FIRST, DataType.FLOAT, Pass.FORWARD), ShapeClass.of(FIRST, DataType.HALF, Pass.FORWARD));
        assertNotEquals(
                ShapeClass.of(FIRST, DataType.FLOAT, Pass.FORWARD),
                ShapeClass.of(FIRST, DataType.FLOAT, Pass.FORWARD_RUNNING));
        assertEquals(
                Walked.CHANNELS_LAST,
                ShapeClass.of(new ChannelView(8, 4, 1, false), DataType.FLOAT, Pass.FORWARD)
                        .walk());
        Map<Order, Walked> walked = new HashMap<>();
        for (Order order : Order.values()) {
            walked.put(
                    order,
                    ShapeClass.of(new RowView(2, 4, 8, 16, order), DataType.FLOAT, Pass.FORWARD)
                            .walk());
        }
        assertEquals(
                Map.of(
                        Order.ROWS,
                        Walked.GROUPS_FIRST,
                        Order.CHANNELS_LAST,
                        Walked.GROUPS_LAST,
                        Order.PER_PLACE,
                        Walked.PER_PLACE),
                walked);
    }

    @Test
    void textGivesBackWhatWasWritten() {
        Map<ShapeClass, Tuning> classes = new LinkedHashMap<>();
        for (Walked walk : Walked.values()) {
            for (Pass pass : Pass.values()) {
                for (DataType type : DataType.values()) {
                    ShapeClass shapes = new ShapeClass(walk, pass, type, 1L << classes.size() % 40, 64);
                    assertEquals(shapes, ShapeClass.parse(shapes.toString()));
                    classes.put(shapes, tuning(1 + classes.size() % 26));
                }
            }
        }
        Tuned tuned = new Tuned(classes, Tuning.NONE);
        assertEquals(54, tuned.lines().size());
        assertEquals(tuned, Tuned.parse(tuned.lines()));
        assertEquals(Tuning.NONE, tuned.of(rows(3, 3)));
        assertEquals(
                classes.get(ShapeClass.parse("channels_first.forward.float.1x64")),
                tuned.of(ShapeClass.parse("channels_first.forward.float.1x64")));
        assertEquals(
                Tuning.of(Family.WIDE), Tuned.always(Tuning.of(Family.WIDE)).of(rows(3, 3)));
    }

    /** The digits of a number to base three as choices, 0 being the plan's own; and sizes by its rest. */
    private static Tuning tuning(int number) {
        Family[] families = {null, Family.WIDE, Family.COOPERATIVE};
        Boolean[] flags = {null, true, false};
        return Tuning.NONE
                .withFamily(families[number % 3])
                .withFused(flags[number / 3 % 3])
                .withStreams(flags[number / 9])
                .withItems(number % 2 == 0 ? null : 1 << number % 9)
                .withWidth(number % 5 == 0 ? null : 1 << number % 5)
                .withSplits(number % 4 == 0 ? null : 1 << number % 11);
    }

    @Test
    void whatIsUnknownIsRefused() {
        for (String name : List.of(
                "",
                "rows.forward.float.8x",
                "rows.forward.float.8x9",
                "rows.forward.float.8x8x8",
                "rows.sideways.float.8x8",
                "Rows.forward.float.8x8",
                "columns.forward.float.8x8")) {
            assertThrows(IllegalArgumentException.class, () -> Tuned.parse(Map.of(name, "wide")), name);
        }
        for (String words : List.of(
                "",
                "wide ",
                "narrow",
                "wide  one-launch",
                "width-",
                "width-3",
                "width-32",
                "width-08",
                "items-0",
                "splits--1")) {
            assertThrows(
                    IllegalArgumentException.class,
                    () -> Tuned.parse(Map.of("rows.forward.float.8x8", words)),
                    "'" + words + "'");
        }
    }

    @Test
    void storesAreOverridden() {
        ChannelView small = new ChannelView(2, 8, 16, false);
        ChannelView last = new ChannelView(32, 64, 112 * 112, true);
        for (Boolean wanted : new Boolean[] {null, true, false}) {
            Tuning tuning = Tuning.NONE.withStreams(wanted);
            String large = wanted == null || wanted ? "1" : "0";
            String little = wanted == null || !wanted ? "0" : "1";
            assertEquals(large, stream(ChannelPlan.forward(FIRST, Form.PLAIN, CPU, tuning)));
            assertEquals(large, stream(ChannelPlan.forward(last, Form.PLAIN, CPU, tuning)));
            assertEquals(little, stream(ChannelPlan.forward(small, Form.PLAIN, CPU, tuning)));
            RowView rows = new RowView(64, 1, 64, 1, Order.ROWS);
            assertEquals(little, stream(RowPlan.forward(rows, RowRule.STANDARD, Form.PLAIN, CPU, tuning)));
            Tuning cooperative = Tuning.NONE.withFamily(Family.COOPERATIVE).withStreams(wanted);
            assertEquals("0", stream(ChannelPlan.forward(FIRST, Form.PLAIN, CPU, cooperative)));
        }
    }

    @Test
    void sizesAreOverridden() {
        Limits gpu = new Limits(
                false, 132, 1024, 48 << 10, 1L << 36, 1L << 37, 50 << 20, true, Long.MAX_VALUE, ReadsAhead.NEVER);
        Tuning tuning = Tuning.NONE.withItems(128).withWidth(2).withSplits(8);
        List<Plan> plans = List.of(
                ChannelPlan.forward(FIRST, Form.PLAIN, gpu, tuning.withFused(false)),
                ChannelPlan.forward(new ChannelView(32, 64, 112 * 112, true), Form.PLAIN, gpu, tuning),
                RowPlan.forward(new RowView(64, 1, 4096, 1, Order.ROWS), RowRule.STANDARD, Form.PLAIN, gpu, tuning));
        for (Plan plan : plans) {
            Map<String, String> defines = plan.calls().get(0).defines();
            assertEquals("128", defines.get("LOCAL_SIZE"));
            assertEquals("2", defines.get("WIDTH"));
        }
        assertEquals(8, plans.get(0).splits());
        assertEquals(8, plans.get(1).splits());
        assertEquals(
                "1",
                RowPlan.forward(new RowView(64, 1, 4097, 1, Order.ROWS), RowRule.STANDARD, Form.PLAIN, gpu, tuning)
                        .calls()
                        .get(0)
                        .defines()
                        .get("WIDTH"));
        Plan wide = ChannelPlan.forward(
                FIRST, Form.PLAIN, CPU, Tuning.NONE.withItems(128).withWidth(8));
        assertEquals("1", wide.calls().get(0).defines().get("LOCAL_SIZE"));
        assertEquals("8", wide.calls().get(0).defines().get("WIDTH"));
    }

    private static String stream(Plan plan) {
        return plan.calls().get(plan.calls().size() - 1).defines().get("STREAM");
    }
}
