package io.normcl.bench;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.normcl.bench.BenchCase.Op;
import io.normcl.device.Limits;
import io.normcl.device.Limits.ReadsAhead;
import io.normcl.tensor.Activation;
import io.normcl.tensor.DataType;
import io.normcl.tensor.Layout;
import java.util.HashSet;
import java.util.List;
import org.junit.jupiter.api.Test;

/** Cases, suites and how often their tensors are there, all without a device. */
class BenchCaseTest {
    private static final String SHAPE = "32x64x112x112";

    private static Limits limits(long memory, long cache) {
        return new Limits(true, 2, 4096, 1 << 15, memory, memory, cache, true, Long.MAX_VALUE, ReadsAhead.NEVER);
    }

    @Test
    void storesChannelsWhereTheLayoutSays() {
        assertArrayEquals(
                new long[] {2, 3, 4, 5},
                BenchCase.of(Op.BATCH_NORM, Layout.CHANNELS_FIRST, "2x3x4x5").stored());
        BenchCase last = BenchCase.of(Op.BATCH_NORM, Layout.CHANNELS_LAST, "2x3x4x5");
        assertArrayEquals(new long[] {2, 4, 5, 3}, last.stored());
        assertEquals("2x3x4x5", last.shapeName());
        assertEquals(120, last.elements());
        assertEquals(240, last.withType(DataType.HALF).tensorBytes());
        BenchCase rows = BenchCase.of(Op.LAYER_NORM, Layout.CHANNELS_FIRST, "7x9");
        assertArrayEquals(new long[] {7, 9}, rows.stored());
        assertEquals(Layout.CHANNELS_LAST, rows.layout());
    }

    @Test
    void namesWhatIsUnusual() {
        BenchCase group = BenchCase.of(Op.GROUP_NORM, Layout.CHANNELS_FIRST, SHAPE);
        assertEquals("group_norm", group.name());
        assertEquals("group_norm/8", group.withGroups(8).name());
        assertEquals(
                "group_norm+residual+relu",
                group.withFused(Activation.RELU, true).name());
        BenchCase places = BenchCase.of(Op.GROUP_NORM_PER_LOCATION, Layout.CHANNELS_LAST, SHAPE);
        assertEquals(1, places.groups());
        assertEquals("group_norm_per_location/4", places.withGroups(4).name());
    }

    @Test
    void refusesWhatIsNoShape() {
        for (String bad : List.of(
                "", "3x", "x3", "3x4y", "3", "3x0", "3x-1", "1048576x1048576x1048576", "99999999999999999999x1")) {
            assertThrows(
                    IllegalArgumentException.class, () -> BenchCase.of(Op.BATCH_NORM, Layout.CHANNELS_FIRST, bad), bad);
        }
    }

    @Test
    void suitesAreWhatTheyAreCalled() {
        List<BenchCase> cnn = Suite.of("cnn").cases();
        assertEquals(24, cnn.size());
        assertTrue(cnn.contains(BenchCase.of(Op.GROUP_NORM, Layout.CHANNELS_LAST, "8x64x32x64x64")));
        List<BenchCase> rows = Suite.of("ROWS").cases();
        assertEquals(21, rows.size());
        assertTrue(rows.contains(BenchCase.of(Op.BATCH_NORM, Layout.CHANNELS_LAST, "4096x1024")));
        assertTrue(rows.contains(BenchCase.of(Op.RMS_NORM, Layout.CHANNELS_LAST, "100000x32")));
        List<BenchCase> all = Suite.of("all").cases();
        assertEquals(all.size(), new HashSet<>(all).size());
        assertTrue(all.containsAll(cnn) && all.containsAll(rows) && all.containsAll(Suite.SMALL.cases()));
        String message = assertThrows(IllegalArgumentException.class, () -> Suite.of("some"))
                .getMessage();
        assertTrue(message.contains("suite=some") && message.contains("cnn, rows, small, all"), message);
    }

    @Test
    void aShapeOfOnesOwnHasTheCasesThatASuiteWouldHave() {
        assertTrue(Suite.ROWS.cases().containsAll(Suite.casesOf("8192x768")));
        assertEquals(3, Suite.casesOf("8192x768").size());
        assertTrue(Suite.CNN.cases().containsAll(Suite.casesOf("32x2048x7x7")));
        assertEquals(4, Suite.casesOf("32x2048x7x7").size());
        assertEquals(
                List.of(Op.BATCH_NORM, Op.BATCH_NORM),
                Suite.casesOf("8x60x7x7").stream().map(BenchCase::op).toList(),
                "no 32 groups");
        assertEquals(
                List.of(Op.LAYER_NORM, Op.RMS_NORM),
                Suite.casesOf("1x64").stream().map(BenchCase::op).toList(),
                "one value of a channel");
        assertEquals(List.of(), Suite.casesOf("1x32x1x1"));
        assertThrows(IllegalArgumentException.class, () -> Suite.casesOf("3"));
        assertThrows(IllegalArgumentException.class, () -> Suite.casesOf("3xC"));
    }

    @Test
    void aForwardsTensorsRotateOverFourTimesTheCache() {
        BenchCase timed = BenchCase.of(Op.BATCH_NORM, Layout.CHANNELS_FIRST, SHAPE);
        long set = 4 * timed.tensorBytes();
        long cache = 480L << 20;
        int count = TensorSets.count(timed, limits(1L << 40, cache), false, 1);
        assertTrue(count * set / 2 >= 4 * cache && (count - 1) * set / 2 < 4 * cache, "sets=" + count);
        assertEquals(1, TensorSets.count(timed, limits(1L << 40, cache), true, 1));
        assertEquals(2, TensorSets.count(timed, limits(1L << 40, 1 << 20), false, 1));
        assertEquals(2, TensorSets.count(timed, limits(4 * set, cache), false, 1));
        assertEquals(1, TensorSets.count(timed, limits(set, cache), false, 1));
        assertEquals(2, TensorSets.count(timed, limits(12 * set, cache), false, 3));
    }
}
