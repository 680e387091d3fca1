package io.normcl.bench;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonArray;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import io.normcl.bench.BenchCase.Op;
import io.normcl.bench.BenchCase.Pass;
import io.normcl.bench.Listing.Format;
import io.normcl.bench.Rounds.Millis;
import io.normcl.bench.Rounds.Rotation;
import io.normcl.bench.Rounds.Work;
import io.normcl.plan.Family;
import io.normcl.tensor.Layout;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.util.List;
import org.junit.jupiter.api.Test;

/** What is printed, and the figures that are in it. */
class ListingTest {
    private static final String COLUMNS =
            "op,pass,layout,dtype,shape,family,median_ms,min_ms,bytes,gbps,copy_gbps,fraction";

    private static final LayerBench.Row ROW = new LayerBench.Row(
            BenchCase.of(Op.RMS_NORM, Layout.CHANNELS_LAST, "4096x4096"),
            Pass.BACKWARD,
            Family.WIDE,
            Millis.of(4, 2.5, 9),
            200_000_000,
            40);

    private static String printed(Format format, Object[]... rows) {
        StringWriter text = new StringWriter();
        try (Listing listing = new Listing(new PrintWriter(text), format, LayerBench.COLUMNS)) {
            for (Object[] row : rows) {
                listing.add(row);
            }
        }
        return text.toString();
    }

    @Test
    void medianAndMinimum() {
        assertEquals(4, Millis.of(4, 2.5, 9).median());
        assertEquals(2.5, Millis.of(4, 2.5, 9).min());
        assertEquals(3, Millis.of(5, 1, 4, 2).median());
        assertEquals(7, Millis.of(7).median());
        assertEquals(2, Millis.of(2, 20, 2, 24).by(Millis.of(1, 10, 2, 8)), "a machine ten times as slow now and then");
        assertEquals(8, Millis.of(8).by(Millis.of(1, 5, 1)), "other rounds");
        assertEquals(0.25, Millis.of(4, 1, 9).gigabytes(1_000_000));
    }

    @Test
    void roundsTakeTurnsAndSets() {
        StringBuilder order = new StringBuilder();
        List<Millis> millis = Rounds.time(List.of(new Rotation(works(order, 'a', 'b'), 3, 1)), 2, 0);
        assertEquals("a0.b1.a2.b0.a1.b2.a0.b1.a2.b0.", order.toString());
        assertEquals(2, millis.size());
        assertTrue(millis.get(0).min() <= millis.get(0).median());
    }

    @Test
    void afterARestEachRunsOnceUntimedOnASetOfItsOwn() {
        StringBuilder order = new StringBuilder();
        Rounds.time(List.of(new Rotation(works(order, 'a', 'b'), 3, 1)), 1, 1);
        assertEquals("a0.a1.b2.b0.a1.a2.b0.b1.a2.a0.b1.b2.a0.a1.b2.b0.", order.toString());
    }

    @Test
    void callsOfTheSameAreTimedTogether() {
        StringBuilder order = new StringBuilder();
        Rounds.time(List.of(new Rotation(works(order, 'a', 'b'), 3, 2)), 1, 0);
        assertEquals("a0a1.b2b0.a1a2.b0b1.a2a0.b1b2.a0a1.b2b0.", order.toString());
    }

    @Test
    void rotationsTakeTurnsWithinARound() {
        StringBuilder order = new StringBuilder();
        List<Millis> millis = Rounds.time(
                List.of(new Rotation(works(order, 'a', 'b'), 3, 1), new Rotation(works(order, 'c'), 5, 2)), 2, 0);
        assertEquals("a0.b1.c0c1.a2.b0.c2c3.a1.b2.c4c0.a0.b1.c1c2.a2.b0.c3c4.", order.toString());
        assertEquals(3, millis.size());
    }

    private static List<Work> works(StringBuilder order, char... names) {
        return new String(names)
                .chars()
                .mapToObj(name -> new Work(set -> order.append((char) name).append(set), () -> order.append('.')))
                .toList();
    }

    @Test
    void csv() {
        assertEquals(
                COLUMNS
                        + "\nrms_norm,backward,channels_last,float,4096x4096,wide,4.00000,2.50000,200000000,50.0000,"
                        + "40.0000,1.25000\n",
                printed(Format.CSV, ROW.cells()).replace("\r", ""));
    }

    @Test
    void json() {
        JsonArray array = JsonParser.parseString(printed(Format.JSON, ROW.cells(), ROW.cells()))
                .getAsJsonArray();
        assertEquals(2, array.size());
        JsonObject row = array.get(1).getAsJsonObject();
        assertEquals(List.of(COLUMNS.split(",")), List.copyOf(row.keySet()));
        assertEquals("rms_norm", row.get("op").getAsString());
        assertEquals(200_000_000, row.get("bytes").getAsLong());
        assertEquals(1.25, row.get("fraction").getAsDouble());
        assertEquals("[]", printed(Format.JSON).strip());
        assertTrue(JsonParser.parseString(printed(
                        Format.JSON,
                        new LayerBench.Row(ROW.timed(), ROW.pass(), ROW.family(), ROW.millis(), 0, 0).cells()))
                .getAsJsonArray()
                .get(0)
                .getAsJsonObject()
                .get("fraction")
                .isJsonNull());
    }

    @Test
    void table() {
        List<String> lines = printed(Format.TABLE, ROW.cells()).lines().toList();
        assertEquals(2, lines.size());
        assertEquals(List.of(COLUMNS.split(",")), List.of(lines.get(0).strip().split(" +")));
        assertEquals(
                List.of(
                        "rms_norm",
                        "backward",
                        "channels_last",
                        "float",
                        "4096x4096",
                        "wide",
                        "4.000",
                        "2.500",
                        "200000000",
                        "50.0",
                        "40.0",
                        "1.25"),
                List.of(lines.get(1).strip().split(" +")));
        assertEquals(lines.get(0).length(), lines.get(1).length());
    }

    @Test
    void costOfSynchronization() {
        BenchCase shard = BenchCase.of(Op.BATCH_NORM, Layout.CHANNELS_FIRST, "2x3x4x5");
        assertEquals(0.25, new SyncBench.Row(2, shard, Millis.of(3), Millis.of(4)).share());
    }
}
