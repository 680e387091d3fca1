package io.normcl.train;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What the reader takes, and that whatever else it finds is refused in a line that names the file. */
class FashionMnistTest {
    @TempDir
    Path folder;

    private Path pictures;
    private Path labels;

    @BeforeEach
    void write() {
        TinyPictures.write(folder, 3, 2);
        pictures = folder.resolve(TinyPictures.TRAIN_PICTURES);
        labels = folder.resolve(TinyPictures.TRAIN_LABELS);
    }

    private void refused(Path file, String reason) {
        String message = assertThrows(IllegalArgumentException.class, () -> FashionMnist.read(folder))
                .getMessage();
        assertTrue(message.contains("file=" + file) && message.contains(reason), message);
        assertEquals(1, message.lines().count());
    }

    @Test
    void reads() {
        FashionMnist read = FashionMnist.read(folder);
        assertEquals(3, read.train().size());
        assertEquals(2, read.test().size());
        assertEquals(3 * 784, read.train().pixels().length);
    }

    @Test
    void missing() throws IOException {
        Files.delete(labels);
        refused(labels, "no such file");
    }

    @Test
    void truncated() throws IOException {
        byte[] whole = Files.readAllBytes(pictures);
        Files.write(pictures, Arrays.copyOf(whole, whole.length / 2));
        refused(pictures, "truncated");
        Files.write(pictures, new byte[0]);
        refused(pictures, "truncated");
        TinyPictures.gzip(pictures, new byte[7]);
        refused(pictures, "truncated");
        TinyPictures.gzip(pictures, TinyPictures.idx(0x803, new byte[3 * 784 - 1], 3, 28, 28));
        refused(pictures, "truncated");
    }

    @Test
    void corrupt() throws IOException {
        byte[] whole = Files.readAllBytes(pictures);
        whole[whole.length - 6] ^= 1; // in gzip's check sum
        Files.write(pictures, whole);
        refused(pictures, "");
        Files.write(pictures, new byte[] {'n', 'o', ' ', 'g', 'z', 'i', 'p'});
        refused(pictures, "GZIP");
    }

    @Test
    void somethingElse() throws IOException {
        TinyPictures.gzip(pictures, TinyPictures.idx(0x801, new byte[3 * 784], 3, 28, 28));
        refused(pictures, "not an IDX file");
        TinyPictures.gzip(pictures, TinyPictures.idx(0x803, new byte[3 * 30 * 30], 3, 30, 30));
        refused(pictures, "28x28");
        TinyPictures.gzip(pictures, TinyPictures.idx(0x803, new byte[3 * 784 + 1], 3, 28, 28));
        refused(pictures, "goes on");
        TinyPictures.gzip(pictures, TinyPictures.idx(0x803, new byte[0], -3, 28, 28));
        refused(pictures, "promises");
    }

    @Test
    void labelsThatDoNotFit() throws IOException {
        TinyPictures.gzip(labels, TinyPictures.idx(0x801, new byte[] {1, 2}, 2));
        refused(labels, "2 labels for 3 pictures");
        TinyPictures.gzip(labels, TinyPictures.idx(0x801, new byte[] {1, 10, 2}, 3));
        refused(labels, "from 0 to 9");
    }
}
