package io.normcl;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.normcl.NormSweep.Alias;
import io.normcl.NormSweep.Kind;
import io.normcl.NormSweep.Size;
import io.normcl.NormSweep.Wanted;
import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.device.Limits;
import io.normcl.device.OtherLimits;
import io.normcl.plan.Family;
import io.normcl.plan.Tuning;
import io.normcl.tensor.Activation;
import io.normcl.tensor.DataType;
import io.normcl.tensor.Layout;
import io.normcl.tensor.Tensor;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Random;
import java.util.Set;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

/** Every layer over many shapes, and over every pair of options, in both kernel families and every form of plan. */
class NormSweepTest {
    private static final List<Activation> ACTIVATIONS =
            List.of(Activation.NONE, Activation.RELU, Activation.leakyRelu(0.25), Activation.SILU);
    private static final int ROWS = 70;
    private static final int LONG_ROW = 4480;
    private static Device device;

    @BeforeAll
    static void open() {
        device = Rig.open();
    }

    @AfterAll
    static void close() {
        device.close();
        assertEquals(0, Device.liveHandles());
    }

    private static Tuning tuning(Family family, String fused) {
        Tuning tuning = Tuning.of(family);
        return fused.equals("own") ? tuning : tuning.withFused(Boolean.parseBoolean(fused));
    }

    private static <T> T pick(T[] values, int number) {
        return values[number % values.length];
    }

    /** Goes through the options that need no other kernels. */
    private static NormSweep varied(NormSweep sweep, int number) {
        return sweep.with(
                pick(Wanted.values(), number),
                number % 3 != 1,
                number % 4 != 2,
                number % 2 == 1,
                pick(Alias.values(), number % 7));
    }

    @ParameterizedTest
    @CsvSource({"WIDE,true", "WIDE,false", "WIDE,own", "COOPERATIVE,true", "COOPERATIVE,false", "COOPERATIVE,own"})
    void rowsOfEveryLength(Family family, String fused) {
        int number = 0;
        for (int d : new int[] {1, 2, 3, 16, 17, 64, 100, 257, 1000, 4099}) {
            for (int rows : new int[] {0, 1, 2, 5, 33, 300}) {
                Kind kind = ++number % 4 == 3 && d % 2 == 1 ? Kind.RMS : Kind.LAYER;
                NormSweep sweep =
                        NormSweep.plain(kind, Layout.CHANNELS_FIRST, tuning(family, fused), new Size(rows, 1, 1, d, 1));
                varied(sweep, number).check(device, number);
            }
        }
    }

    @ParameterizedTest
    @CsvSource({"WIDE,true", "WIDE,false", "WIDE,own", "COOPERATIVE,true", "COOPERATIVE,false", "COOPERATIVE,own"})
    void groupsOfEverySize(Family family, String fused) {
        int number = 0;
        int[][] channels = {{1, 1}, {2, 1}, {6, 3}, {6, 6}, {20, 5}, {64, 8}, {130, 2}};
        for (int s : new int[] {1, 3, 7, 49, 64, 1030}) {
            for (int[] cg : channels) {
                Kind kind = pick(new Kind[] {Kind.GROUP, Kind.PER_LOCATION, Kind.GROUP, Kind.INSTANCE}, ++number);
                Size size = new Size(pick(new Integer[] {1, 2, 5, 0, 3}, number), cg[0], 1, s, cg[1]);
                for (Layout layout : Layout.values()) {
                    NormSweep sweep = NormSweep.plain(kind, layout, tuning(family, fused), size);
                    varied(sweep, number).check(device, number);
                }
            }
        }
    }

    private static void everyType(NormSweep sweep, int seed) {
        for (DataType type : DataType.values()) {
            sweep.withType(type).check(device, seed);
        }
    }

    /** Groups that end within a tile of channels, within a vector, and with it. */
    @ParameterizedTest
    @CsvSource({"WIDE,true", "WIDE,false", "WIDE,own"})
    void groupsOfSeveralTiles(Family family, String fused) {
        for (Size size :
                new Size[] {new Size(33, 2100, 1, 3, 3), new Size(9, 2048, 1, 7, 32), new Size(2, 1040, 1, 5, 1)}) {
            everyType(NormSweep.plain(Kind.GROUP, Layout.CHANNELS_LAST, tuning(family, fused), size), size.n());
        }
    }

    /** Channels that no core has to itself, so that a CPU's steps wait for one another in one launch. */
    @ParameterizedTest
    @CsvSource({"CHANNELS_LAST,false", "CHANNELS_LAST,true", "CHANNELS_FIRST,false", "CHANNELS_FIRST,true"})
    void stepsOfOneLaunch(Layout layout, boolean lengths) {
        int number = 0;
        for (Size size : new Size[] {
            new Size(331, 3, 1, 1, 1),
            new Size(27, 130, 2, 10, 1),
            new Size(2, 1100, 1, 35, 1),
            new Size(41, 2500, 1, 1, 1),
            new Size(263, 65, 2, 2, 1)
        }) {
            for (Kind kind : List.of(Kind.BATCH, Kind.BATCH_EVALUATION)) {
                NormSweep sweep = varied(NormSweep.plain(kind, layout, tuning(Family.WIDE, "own"), size), ++number)
                        .withType(pick(DataType.values(), number))
                        .withActivation(pick(ACTIVATIONS.toArray(Activation[]::new), number), false);
                sweep = lengths ? sweep.withExtra() : sweep;
                sweep.check(device, number);
                Alias inPlace = number % 4 < 2 ? Alias.OUTPUTS : Alias.GRADIENTS;
                sweep.with(Wanted.ALL, true, true, false, inPlace).check(device, number);
            }
        }
    }

    /** Rows so long that a backward takes some tiles of narrow columns after the others, two at once or one. */
    @ParameterizedTest
    @EnumSource(DataType.class)
    void blocksOfTilesOneAfterTheOther(DataType type) {
        Size size = new Size(type == DataType.FLOAT ? ROWS : 2 * ROWS, LONG_ROW, 1, 1, 1);
        NormSweep sweep = NormSweep.plain(Kind.BATCH, Layout.CHANNELS_LAST, tuning(Family.WIDE, "own"), size)
                .withType(type);
        try (Device small = smallCaches()) {
            sweep.check(small, 1);
            sweep.with(Wanted.ALL, true, true, false, Alias.GRADIENTS).check(small, 2);
        }
    }

    /** Rows so long that a core takes narrow tiles of a backward whole, the narrower ones where the last cache holds less of both. */
    @ParameterizedTest
    @EnumSource(DataType.class)
    void narrowTilesOfEachCore(DataType type) {
        int everyCore = 256 * device.limits().computeUnits();
        try (Device small = smallCaches()) {
            for (int least : new int[] {2048 + 1, 4096 + 1}) {
                Size size = new Size(ROWS, (least / everyCore + 1) * everyCore, 1, 1, 1);
                NormSweep sweep = NormSweep.plain(Kind.BATCH, Layout.CHANNELS_LAST, tuning(Family.WIDE, "own"), size)
                        .withType(type);
                sweep.check(small, least);
                sweep.with(Wanted.ALL, true, true, false, Alias.GRADIENTS).check(small, least);
            }
        }
    }

    /** Each core's share is drawn by those that there are, where work-groups of others never run beside them. */
    @ParameterizedTest
    @EnumSource(Layout.class)
    void moreSharesThanCores(Layout layout) {
        int shares = 3 * device.limits().computeUnits() + 1;
        try (Device many = with(shares, device.limits().cacheBytes())) {
            for (Size size : new Size[] {
                new Size(331, 3, 1, 1, 1),
                new Size(57, 130, 2, 10, 1),
                new Size(9, 2 * 640 * shares, 1, 1, 1) // whole tiles
            }) {
                for (Kind kind : List.of(Kind.BATCH, Kind.BATCH_EVALUATION)) {
                    NormSweep.plain(kind, layout, tuning(Family.WIDE, "own"), size)
                            .check(many, size.c());
                }
            }
        }
    }

    /** The device with caches of which two tiles of {@link #ROWS} rows of x and dy take half. */
    private static Device smallCaches() {
        return with(device.limits().computeUnits(), 2 * 2 * 2 * 1024 * ROWS);
    }

    private static Device with(int computeUnits, long cacheBytes) {
        return with(computeUnits, cacheBytes, device.limits().fp64());
    }

    private static Device with(int computeUnits, long cacheBytes, boolean fp64) {
        Limits own = device.limits();
        Limits limits = new Limits(
                own.cpu(),
                computeUnits,
                own.maxWorkGroupSize(),
                own.localMemoryBytes(),
                own.maxAllocationBytes(),
                own.globalMemoryBytes(),
                cacheBytes,
                fp64,
                own.loopSteps(),
                own.readsAhead());
        return OtherLimits.of(device, limits);
    }

    /**
     * Steps that didn't wait would take the statistics or sums of the pass before, which are another tensor's: the layer takes the
     * same memory again.
     */
    @ParameterizedTest
    @CsvSource({"517,130,300", ROWS + "," + LONG_ROW + ",40"})
    void stepsOfOneLaunchWaitForOneAnother(int n, int c, int steps) {
        Random random = new Random(1);
        try (Device small = smallCaches();
                Rig rig = new Rig(small);
                BatchNorm norm = BatchNorm.open(small, BatchNormSpec.of(c), Tuning.of(Family.WIDE))) {
            Tensor[] x = new Tensor[2];
            Tensor[] dy = new Tensor[2];
            for (int i = 0; i < 2; i++) {
                float[] values = Rig.perChannel(random, n, c, 1, Layout.CHANNELS_LAST);
                x[i] = rig.tensor(values, Layout.CHANNELS_LAST, n, c);
                dy[i] = rig.tensor(Rig.normal(random, n * c), Layout.CHANNELS_LAST, n, c);
            }
            Tensor y = rig.tensor(new float[n * c], Layout.CHANNELS_LAST, n, c);
            Tensor dx = rig.tensor(new float[n * c], Layout.CHANNELS_LAST, n, c);
            Buffer dGamma = rig.floats(c);
            float[][][] first = new float[2][][];
            for (int i = 0; i < steps; i++) {
                int which = i % 2;
                try (Saved saved = norm.forward(Mode.TRAINING, x[which], y)) {
                    norm.backward(saved, x[which], dy[which], Gradients.of(dx, dGamma, null));
                }
                float[][] got = {Rig.read(y), Rig.read(dx), Rig.read(dGamma)};
                if (i < 2) {
                    first[which] = got;
                }
                assertArrayEquals(first[which], got);
            }
        }
    }

    /** Rows longer than a tile of columns, too few for each core to have a block of and enough. */
    @ParameterizedTest
    @CsvSource({"WIDE,true", "WIDE,false", "WIDE,own"})
    void longRows(Family family, String fused) {
        for (int rows : new int[] {2, 40}) {
            NormSweep.plain(Kind.LAYER, Layout.CHANNELS_FIRST, tuning(family, fused), new Size(rows, 1, 1, 9001, 1))
                    .check(device, rows);
        }
    }

    /** Rows that a forward takes four at a time, and such as are left. */
    @ParameterizedTest
    @CsvSource({"LAYER,true", "LAYER,false", "RMS,true", "RMS,false"})
    void rowsSideBySide(Kind kind, boolean fp64) {
        try (Device other = with(device.limits().computeUnits(), device.limits().cacheBytes(), fp64)) {
            for (int rows : new int[] {3, 8, 14, 23}) { // in two groups
                Size size = new Size(rows, 1, 1, 2064, 1);
                Tuning tuning = tuning(Family.WIDE, "true").withSplits(2);
                NormSweep sweep = NormSweep.plain(kind, Layout.CHANNELS_FIRST, tuning, size)
                        .withActivation(pick(ACTIVATIONS.toArray(Activation[]::new), rows), false);
                sweep.check(other, rows);
                sweep.withExtra()
                        .with(Wanted.ALL, true, true, false, Alias.OUTPUTS)
                        .check(other, rows);
            }
        }
    }

    /** Several groups of channels in samples of one place, which are rows with a gamma each. */
    @ParameterizedTest
    @CsvSource({"WIDE,true", "WIDE,false", "WIDE,own", "COOPERATIVE,own"})
    void groupsOfOnePlace(Family family, String fused) {
        for (Size size :
                new Size[] {new Size(33, 1200, 1, 1, 2), new Size(34, 60, 1, 1, 3), new Size(4, 96, 1, 1, 32)}) {
            everyType(NormSweep.plain(Kind.GROUP, Layout.CHANNELS_FIRST, tuning(family, fused), size), size.n());
        }
    }

    /** Plans take none by themselves, tuning may. */
    @ParameterizedTest
    @CsvSource({"LAYER,1,5,1", "RMS,1,5,1", "GROUP,6,3,2"})
    void vectorsLongerThanARow(Kind kind, int channels, int places, int groups) {
        Tuning tuning = tuning(Family.WIDE, "true").withWidth(16);
        Size size = new Size(9, channels, 1, places, groups);
        everyType(NormSweep.plain(kind, Layout.CHANNELS_FIRST, tuning, size), places);
    }

    /** Channels that are repeated side by side for longer than a tile of narrow vectors. */
    @ParameterizedTest
    @CsvSource({"8,33,3", "4,17,1", "1,6,3"})
    void groupsOfNarrowVectors(int width, int channels, int groups) {
        Tuning tuning = tuning(Family.WIDE, "true").withWidth(width);
        NormSweep.plain(Kind.GROUP, Layout.CHANNELS_LAST, tuning, new Size(3, channels, 1, 150, groups))
                .check(device, width);
    }

    /** A sum in the place of x, of which every work-item needs the first value; groups of 64 can't hold the longer row. */
    @ParameterizedTest
    @CsvSource({"WIDE,true", "WIDE,false", "COOPERATIVE,true", "COOPERATIVE,false"})
    void aSumInPlace(Family family, String fused) {
        for (Size size : new Size[] {new Size(5, 1, 1, 257, 1), new Size(3, 1, 1, 4099, 1)}) {
            for (int items : new int[] {64, 256}) {
                NormSweep.plain(
                                Kind.LAYER,
                                Layout.CHANNELS_FIRST,
                                tuning(family, fused).withItems(items),
                                size)
                        .withExtra()
                        .with(Wanted.ALL, true, true, false, Alias.OUTPUTS)
                        .check(device, 1);
            }
        }
    }

    /** What tuning may choose beside the form; one value of each after the other. */
    @ParameterizedTest
    @CsvSource({"WIDE,1,8,16", "COOPERATIVE,64,8,4", "COOPERATIVE,512,2,1"})
    void vectorsGroupsAndCutsOfEverySize(Family family, int items, int width, int splits) {
        int number = 0;
        for (Kind kind : List.of(Kind.BATCH, Kind.LAYER, Kind.GROUP)) {
            for (Layout layout : Layout.values()) {
                for (String fused : new String[] {"true", "false"}) {
                    Tuning tuning = tuning(family, fused)
                            .withItems(items)
                            .withWidth(width)
                            .withSplits(splits);
                    for (Size size : new Size[] {new Size(5, 16, 1, 49, 4), new Size(70, 1, 1, 264, 1)}) {
                        varied(NormSweep.plain(kind, layout, tuning, size), ++number)
                                .check(device, number);
                    }
                }
            }
        }
    }

    /** Samples of one place, of which lengths leave some out altogether. */
    @ParameterizedTest
    @CsvSource({"WIDE,true", "WIDE,false", "COOPERATIVE,true", "COOPERATIVE,false"})
    void lengthsOfOnePlace(Family family, String fused) {
        for (Kind kind : List.of(Kind.BATCH, Kind.GROUP)) {
            for (Layout layout : Layout.values()) {
                NormSweep.plain(kind, layout, tuning(family, fused), new Size(7, 6, 2, 1, 2))
                        .withExtra()
                        .check(device, 1);
                NormSweep.plain(kind, layout, tuning(family, fused), new Size(7, 6, 1, 1, 2))
                        .withExtra()
                        .check(device, 1);
            }
        }
    }

    // Pairs of options. An option is a number below its count of values; a case is one of each.

    private static final int[] COUNTS = {Kind.values().length, 2, 2, 3, 3, 4, 2, 2, Wanted.values().length, 4, 2, 3, 4};

    private static final Size[] SIZES = {
        new Size(5, 6, 3, 7, 3), new Size(2, 64, 1, 33, 8), new Size(3, 20, 4, 16, 5), new Size(33, 3, 5, 1, 1)
    };

    private static NormSweep sweep(int[] own) {
        return new NormSweep(
                pick(Kind.values(), own[0]),
                pick(Layout.values(), own[1]),
                tuning(
                        pick(Family.values(), own[2]),
                        List.of("true", "false", "own").get(own[3])),
                pick(DataType.values(), own[4]),
                ACTIVATIONS.get(own[5]),
                own[6] == 1,
                own[7] == 1,
                pick(Wanted.values(), own[8]),
                own[9] < 2,
                own[9] % 2 == 0,
                own[10] == 1,
                pick(Alias.values(), own[11]),
                SIZES[own[12]]);
    }

    private record Pair(int option, int value, int other, int otherValue) {}

    private static Set<Pair> pairs(int[] own) {
        Set<Pair> pairs = new HashSet<>();
        for (int i = 0; i < own.length; i++) {
            for (int j = 0; j < i; j++) {
                pairs.add(new Pair(i, own[i], j, own[j]));
            }
        }
        return pairs;
    }

    private static int[] random(Random random) {
        int[] own = new int[COUNTS.length];
        for (int i = 0; i < own.length; i++) {
            own[i] = random.nextInt(COUNTS[i]);
        }
        return own;
    }

    /** Cases in which every two options meet with every two values: each the best of many random ones. */
    private static List<int[]> cases() {
        Random random = new Random(11);
        Set<Pair> met = new HashSet<>();
        int all = 0;
        for (int i = 0; i < COUNTS.length; i++) {
            for (int j = 0; j < i; j++) {
                all += COUNTS[i] * COUNTS[j];
            }
        }
        List<int[]> cases = new ArrayList<>();
        while (met.size() < all) {
            int[] best = random(random);
            long most = -1;
            for (int i = 0; i < 300; i++) {
                int[] own = random(random);
                long fresh =
                        pairs(own).stream().filter(pair -> !met.contains(pair)).count();
                if (fresh > most) {
                    best = own;
                    most = fresh;
                }
            }
            met.addAll(pairs(best));
            cases.add(best);
        }
        return cases;
    }

    @Test
    void everyPairOfOptions() {
        List<int[]> cases = cases();
        assertTrue(cases.size() < 120, () -> cases.size() + " cases");
        List<String> failures = new ArrayList<>();
        for (int i = 0; i < cases.size(); i++) {
            try {
                sweep(cases.get(i)).check(device, i);
            } catch (AssertionError e) {
                failures.add(e.getMessage());
            }
        }
        assertEquals(List.of(), failures);
    }
}
