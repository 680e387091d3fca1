package io.normcl.exchange;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.normcl.exchange.Safetensors.Entry;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

class SafetensorsTest {
    @TempDir
    Path folder;

    @Test
    void whatIsWrittenIsRead() throws IOException {
        Path file = folder.resolve("model.safetensors");
        Map<String, Entry> tensors = new LinkedHashMap<>();
        tensors.put(
                "bn.weight", Entry.of(new float[] {1, -0.0f, Float.NaN, Float.MIN_VALUE, Float.MAX_VALUE, 6}, 2, 3));
        tensors.put("bn.num_batches_tracked", Entry.of(new long[] {Long.MAX_VALUE}));
        tensors.put("größe \"\\\n", Entry.of(new double[] {Math.PI}, 1, 1));
        tensors.put("empty", Entry.of(new float[0], 0, 3));
        tensors.put("half", new Entry("BF16", new long[] {3}, ByteBuffer.wrap(new byte[] {1, 2, 3, 4, 5, 6})));
        Safetensors.write(file, tensors, Map.of("step", "17", "format", "pt"));

        Safetensors read = Safetensors.read(file);
        assertEquals(Map.of("step", "17", "format", "pt"), read.metadata());
        assertEquals(tensors.keySet(), read.tensors().keySet());
        for (Map.Entry<String, Entry> tensor : tensors.entrySet()) {
            Entry got = read.tensors().get(tensor.getKey());
            assertEquals(tensor.getValue().dtype(), got.dtype());
            assertArrayEquals(tensor.getValue().shape(), got.shape());
            assertEquals(tensor.getValue().data(), got.data());
        }
        assertEquals(6, read.tensors().get("bn.weight").floats()[5]);
        assertArrayEquals(
                new long[] {Long.MAX_VALUE},
                read.tensors().get("bn.num_batches_tracked").longs());
        assertArrayEquals(
                new double[] {Math.PI}, read.tensors().get("größe \"\\\n").doubles());
        assertThrows(
                IllegalArgumentException.class,
                () -> read.tensors().get("bn.weight").longs());
    }

    @Test
    void theBytesAreTheFormats() throws IOException {
        Path file = folder.resolve("one");
        Entry a = Entry.of(new float[] {1}, 1);
        Entry b = Entry.of(new long[] {2});
        Map<String, Entry> ordered = new LinkedHashMap<>();
        ordered.put("a", a);
        ordered.put("b", b);
        Safetensors.write(file, ordered, Map.of());
        String header = "{\"b\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},"
                + "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}";
        String padded = header + " ".repeat(-header.length() & 7);
        byte[] expected = file(padded, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x3f);
        assertArrayEquals(expected, Files.readAllBytes(file));

        Map<String, Entry> reversed = new LinkedHashMap<>();
        reversed.put("b", b);
        reversed.put("a", a);
        Safetensors.write(file, reversed, Map.of());
        assertArrayEquals(expected, Files.readAllBytes(file));
    }

    @Test
    void readsWhatOthersWrite() throws IOException {
        Path file = folder.resolve("other");
        String header = """
                {"z": {"data_offsets": [4, 6], "shape": [2], "dtype": "U8", "note": [{}]},
                 "__metadata__": {"format": "pt"},
                 "a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}
                """;
        Files.write(file, file(header, 0, 0, 0x80, 0x3f, 7, 8));
        Safetensors read = Safetensors.read(file);
        assertEquals(List.of("a", "z"), List.copyOf(read.tensors().keySet()));
        assertArrayEquals(new float[] {1}, read.tensors().get("a").floats());
        assertEquals(8, read.tensors().get("z").data().get(1));
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            quoteCharacter = '`',
            value = {
                "[]                                                                  | not a JSON object",
                "{ \"                                                                 | not JSON",
                "{'a\\nb':3}                                                          | at=$.a?b",
                "{}}                                                                 | not JSON",
                "{} {}                                                               | not JSON",
                "{'a':{'dtype':'F32','shape':[1],'data_offsets':[0,4]},}             | not JSON",
                "{'a':{'dtype':'F32','shape':[1],'data_offsets':[0,4]}               | not JSON",
                "{'a':3}                                                             | at=$.a",
                "{'a':{'dtype':'F32','shape':[1]}}                                   | without shape or data_offsets",
                "{'a':{'shape':[1],'data_offsets':[0,4]}}                            | dtype=",
                "{'a':{'dtype':7,'shape':[1],'data_offsets':[0,4]}}                  | no string",
                "{'a':{'dtype':'F33','shape':[1],'data_offsets':[0,4]}}              | dtype=F33",
                "{'a':{'dtype':'F64','shape':[1],'data_offsets':[0,4]}}              | another size",
                "{'a':{'dtype':'F32','shape':[2],'data_offsets':[0,4]}}              | another size",
                "{'a':{'dtype':'F32','shape':['1'],'data_offsets':[0,4]}}            | no number",
                "{'a':{'dtype':'F32','shape':[0.5],'data_offsets':[0,4]}}            | not JSON",
                "{'a':{'dtype':'F32','shape':[-1,-1],'data_offsets':[0,4]}}          | a shape is sizes",
                "{'a':{'dtype':'F32','shape':[4294967296,4294967296,1],'data_offsets':[0,4]}} | a shape is sizes",
                "{'a':{'dtype':'F4','shape':[1],'data_offsets':[0,4]}}               | whole bytes",
                "{'a':{'dtype':'F32','shape':[1],'data_offsets':[0,4,8]}}            | without shape or data_offsets",
                "{'a':{'dtype':'F32','shape':[1],'data_offsets':[4,0]}}              | a gap",
                "{'a':{'dtype':'F32','shape':[1],'data_offsets':[-4,0]}}             | a gap",
                "{'a':{'dtype':'F32','shape':[2],'data_offsets':[0,8]}}              | not as many bytes",
                "{'a':{'dtype':'U8','shape':[2],'data_offsets':[0,2]}}               | not as many bytes",
                "{'a':{'dtype':'U8','shape':[2],'data_offsets':[2,4]}}               | a gap",
                "{'a':{'dtype':'U8','shape':[4],'data_offsets':[0,4]},'b':{'dtype':'U8','shape':[2],'data_offsets':[2,4]}} | overlap",
                "{'a':{'dtype':'U8','shape':[4],'data_offsets':[0,4]},'a':{'dtype':'U8','shape':[4],'data_offsets':[0,4]}} | twice",
                "{'__metadata__':{'a':1},'a':{'dtype':'U8','shape':[4],'data_offsets':[0,4]}} | no string",
                "{'__metadata__':{'a':'1','a':'2'},'a':{'dtype':'U8','shape':[4],'data_offsets':[0,4]}} | twice",
            })
    void refusesHeadersThatDoNotFit(String header, String told) throws IOException {
        Path file = folder.resolve("damaged");
        Files.write(file, file(header.replace('\'', '"'), 0, 0, 0, 0));
        assertRefused(file, told);
    }

    @ParameterizedTest
    @ValueSource(longs = {0, 1, 6, 200_000_000, 1L << 40, Long.MAX_VALUE, -1, Long.MIN_VALUE})
    void refusesAHeaderLengthThatCanNotBe(long length) throws IOException {
        Path file = folder.resolve("damaged");
        byte[] bytes = file("{}", 0, 0, 0);
        ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).putLong(0, length);
        Files.write(file, bytes);
        assertRefused(file, "the header can't be so long: bytes=" + Long.toUnsignedString(length));
    }

    @Test
    void refusesATensorTooLargeForItsReaderBeforeAllocating() throws IOException {
        Path file = folder.resolve("damaged");
        String header = "{\"a\":{\"dtype\":\"U8\",\"shape\":[4000000000000],\"data_offsets\":[0,4000000000000]}}";
        Files.write(file, file(header, 1));
        assertRefused(file, "can't be read");
    }

    @Test
    void refusesAHeaderThatIsNotUtf8() throws IOException {
        Path file = folder.resolve("damaged");
        byte[] bytes = file("{\"a\":1}");
        bytes[10] = (byte) 0xff;
        Files.write(file, bytes);
        assertRefused(file, "UTF-8");
    }

    @Test
    void everyDamageIsRefusedInOneLineOrHarmless() throws IOException {
        Path file = folder.resolve("damaged");
        float[] values = new float[40];
        for (int i = 0; i < values.length; i++) {
            values[i] = i;
        }
        Safetensors.write(
                file,
                Map.of(
                        "weight",
                        Entry.of(values, 8, 5),
                        "steps",
                        Entry.of(new long[] {3}),
                        "none",
                        Entry.of(values, 40)),
                Map.of("epoch", "2"));
        byte[] whole = Files.readAllBytes(file);
        for (int length = 0; length < whole.length; length++) {
            Files.write(file, Arrays.copyOf(whole, length));
            assertRefused(file, "");
        }
        Files.write(file, Arrays.copyOf(whole, whole.length + 1));
        assertRefused(file, "not as many bytes");

        SplittableRandom random = new SplittableRandom(11);
        int header = whole.length - 2 * 160 - 8;
        int refused = 0;
        for (int round = 0; round < 2000; round++) {
            byte[] damaged = whole.clone();
            for (int changes = random.nextInt(1, 4); changes > 0; changes--) {
                damaged[random.nextInt(header)] = (byte) random.nextInt(256);
            }
            Files.write(file, damaged);
            try {
                Safetensors.read(file); // a changed name or string is still a whole file
            } catch (IOException e) {
                assertOneLine(e);
                refused++;
            }
        }
        assertTrue(refused > 1000, "refused " + refused);
    }

    @Test
    void aFileThatCanNotBeWrittenLeavesWhatWasThere() throws IOException {
        Path taken = Files.createDirectory(folder.resolve("taken"));
        Files.writeString(taken.resolve("kept"), "kept");
        Map<String, Entry> tensors = Map.of("a", Entry.of(new float[] {1}, 1));
        IOException refused = assertThrows(IOException.class, () -> Safetensors.write(taken, tensors, Map.of()));
        assertOneLine(refused);
        assertEquals("kept", Files.readString(taken.resolve("kept")));
        try (Stream<Path> files = Files.list(folder)) {
            assertEquals(List.of(taken), files.toList());
        }

        Path nowhere = folder.resolve("missing").resolve("file");
        IOException missing = assertThrows(IOException.class, () -> Safetensors.write(nowhere, tensors, Map.of()));
        assertEquals("can't be written: file=" + nowhere + ", reason=no such file or folder", missing.getMessage());
        assertFalse(Files.exists(nowhere));
    }

    @Test
    void replacesAFileInOneStep() throws IOException {
        Path file = folder.resolve("model");
        Safetensors.write(file, Map.of("a", Entry.of(new float[] {1}, 1)), Map.of());
        Safetensors.write(file, Map.of("a", Entry.of(new float[] {2}, 1)), Map.of());
        assertArrayEquals(
                new float[] {2}, Safetensors.read(file).tensors().get("a").floats());
        try (Stream<Path> files = Files.list(folder)) {
            assertEquals(List.of(file), files.toList());
        }
    }

    @Test
    void refusesEntriesThatDoNotFit() {
        assertThrows(IllegalArgumentException.class, () -> Entry.of(new float[5], 2, 3));
        assertThrows(IllegalArgumentException.class, () -> Entry.of(new long[2]));
        assertThrows(IllegalArgumentException.class, () -> new Entry("float", new long[0], ByteBuffer.allocate(4)));
        Path file = folder.resolve("model");
        Map<String, Entry> reserved = Map.of("__metadata__", Entry.of(new float[] {1}, 1));
        assertThrows(IllegalArgumentException.class, () -> Safetensors.write(file, reserved, Map.of()));
        assertFalse(Files.exists(file));
    }

    @Test
    void aMissingFileIsNamed() {
        Path file = folder.resolve("missing");
        assertRefused(file, "no such file");
    }

    private static void assertRefused(Path file, String told) {
        IOException refused = assertThrows(IOException.class, () -> Safetensors.read(file));
        assertOneLine(refused);
        assertTrue(refused.getMessage().contains("file=" + file), refused::getMessage);
        assertTrue(refused.getMessage().contains(told), refused::getMessage);
    }

    private static void assertOneLine(IOException refused) {
        assertFalse(refused.getMessage().contains("\n"), refused::getMessage);
    }

    private static byte[] file(String header, int... data) {
        byte[] text = header.getBytes(StandardCharsets.UTF_8);
        ByteBuffer bytes = ByteBuffer.allocate(8 + text.length + data.length).order(ByteOrder.LITTLE_ENDIAN);
        bytes.putLong(text.length).put(text);
        for (int value : data) {
            bytes.put((byte) value);
        }
        return bytes.array();
    }
}
