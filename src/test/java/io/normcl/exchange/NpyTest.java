package io.normcl.exchange;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class NpyTest {
    @TempDir
    Path folder;

    @Test
    void whatIsWrittenIsRead() throws IOException {
        assertRead(
                Npy.of(new float[] {1, -0.0f, Float.NaN, Float.MIN_VALUE, 5, 6}, 2, 3),
                "<f4",
                1,
                -0.0,
                Double.NaN,
                0x1p-149,
                5,
                6);
        assertRead(
                Npy.of(new double[] {Math.PI, Double.NEGATIVE_INFINITY}, 2), "<f8", Math.PI, Double.NEGATIVE_INFINITY);
        assertRead(Npy.of(new long[] {-7}), "<i8", -7);
        assertRead(Npy.of(new float[0], 0, 3, 2), "<f4");
    }

    private void assertRead(Npy written, String dtype, double... values) throws IOException {
        Path file = folder.resolve("a.npy");
        written.write(file);
        Npy read = Npy.read(file);
        assertEquals(dtype, read.dtype());
        assertArrayEquals(written.shape(), read.shape());
        assertArrayEquals(values, read.doubles());
    }

    @Test
    void theBytesAreTheFormats() throws IOException {
        Path file = folder.resolve("a.npy");
        Npy.of(new float[] {1}, 1).write(file);
        byte[] bytes = Files.readAllBytes(file);
        String fields = "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }";
        String header = fields + " ".repeat(128 - 10 - 1 - fields.length()) + "\n";
        assertEquals("\u0093NUMPY\1\0v\0" + header, new String(bytes, 0, 128, StandardCharsets.ISO_8859_1));
        assertArrayEquals(new byte[] {0, 0, (byte) 0x80, 0x3f}, Arrays.copyOfRange(bytes, 128, bytes.length));
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = ';',
            quoteCharacter = '`',
            value = {
                "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), } ; as many bytes",
                "{'descr': '<f8', 'fortran_order': False, 'shape': (), } ; as many bytes",
                "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296, 0), } ; as many bytes",
                "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), } ; sizes",
                "{'descr': '<f4', 'fortran_order': False, 'shape': (1 1,), } ; sizes",
                "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), } ; can be read",
                "{'descr': '<f4', 'fortran_order': True, 'shape': (1,), } ; C order",
                "{'descr': '>f4', 'fortran_order': False, 'shape': (1,), } ; the type",
                "{'descr': '|O', 'fortran_order': False, 'shape': (1,), } ; the type",
                "nothing ; can be read",
            })
    void refusesHeadersThatDoNotFit(String header, String told) throws IOException {
        Path file = folder.resolve("a.npy");
        byte[] bytes = ("\u0093NUMPY\1\0" + (char) header.length() + "\0" + header + "\0\0\0\0")
                .getBytes(StandardCharsets.ISO_8859_1);
        Files.write(file, bytes);
        IOException refused = assertThrows(IOException.class, () -> Npy.read(file));
        assertTrue(refused.getMessage().contains(told), refused::getMessage);
        assertTrue(refused.getMessage().contains("file=" + file), refused::getMessage);
    }

    @Test
    void everyDamageIsRefusedInOneLineOrHarmless() throws IOException {
        Path file = folder.resolve("a.npy");
        Npy.of(new double[] {1, 2, 3, 4, 5, 6}, 3, 2).write(file);
        byte[] whole = Files.readAllBytes(file);
        for (int length = 0; length < whole.length; length++) {
            Files.write(file, Arrays.copyOf(whole, length));
            assertThrows(IOException.class, () -> Npy.read(file));
        }
        Files.write(file, Arrays.copyOf(whole, whole.length + 1));
        assertThrows(IOException.class, () -> Npy.read(file));

        SplittableRandom random = new SplittableRandom(13);
        for (int round = 0; round < 2000; round++) {
            byte[] damaged = whole.clone();
            for (int changes = random.nextInt(1, 4); changes > 0; changes--) {
                damaged[random.nextInt(75)] = (byte) random.nextInt(256);
            }
            Files.write(file, damaged);
            try {
                assertEquals(6, Npy.read(file).doubles().length); // (3, 2) may have become (2, 3) or (6)
            } catch (IOException e) {
                assertFalse(e.getMessage().contains("\n"), e::getMessage);
            }
        }
    }

    @Test
    void refusesAnotherVersionAndShapesThatDoNotFit() throws IOException {
        Path file = folder.resolve("a.npy");
        Npy.of(new double[] {1}, 1).write(file);
        byte[] bytes = Files.readAllBytes(file);
        bytes[6] = 2;
        Files.write(file, bytes);
        IOException refused = assertThrows(IOException.class, () -> Npy.read(file));
        assertTrue(refused.getMessage().contains("version 1.0"), refused::getMessage);
        assertThrows(IllegalArgumentException.class, () -> Npy.of(new float[5], 2, 3));
        assertThrows(IllegalArgumentException.class, () -> Npy.of(new float[1], -1, -1));
    }
}
