package io.normcl.reference;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.util.Random;
import org.junit.jupiter.api.Test;

class ConvolutionReferenceTest {
    private static final ConvolutionReference PLAIN = new ConvolutionReference(1, 1, 0, 1);

    @Test
    void strideByHand() {
        // 0 1 2 3 4 5 0, of which the kernel takes the values two apart, in steps of two
        double[] y = new ConvolutionReference(1, 2, 1, 2)
                .convolve(
                        new double[] {1, 2, 3, 4, 5},
                        new int[] {1, 1, 5},
                        new double[] {10, 1},
                        new int[] {1, 1, 2},
                        new double[] {0.5});
        assertArrayEquals(new double[] {2.5, 24.5, 40.5}, y);
    }

    @Test
    void transposedByHand() {
        // 1 10 100 . . and . . 2 20 200, without the first and the last
        double[] y = new ConvolutionReference(1, 2, 1, 1)
                .transpose(
                        new double[] {1, 2},
                        new int[] {1, 1, 2},
                        new double[] {1, 10, 100},
                        new int[] {1, 1, 3},
                        new double[] {0.5});
        assertArrayEquals(new double[] {10.5, 102.5, 20.5}, y);
    }

    @Test
    void groupsByHand() {
        ConvolutionReference two = new ConvolutionReference(2, 1, 0, 1);
        double[] y = two.convolve(
                new double[] {1, 2, 3, 4}, new int[] {1, 4}, new double[] {1, 10, 100, 1000}, new int[] {2, 2}, null);
        assertArrayEquals(new double[] {21, 4300}, y);
        y = two.transpose(
                new double[] {1, 2, 3, 4}, new int[] {1, 4}, new double[] {1, 10, 100, 1000}, new int[] {4, 1}, null);
        assertArrayEquals(new double[] {21, 4300}, y);
        y = two.transpose(
                new double[] {1, 2}, new int[] {1, 2}, new double[] {1, 10, 100, 1000}, new int[] {2, 2}, new double[] {
                    1, 2, 3, 4
                });
        assertArrayEquals(new double[] {2, 12, 203, 2004}, y);
    }

    @Test
    void linearIsAMatrix() {
        double[] y = PLAIN.convolve(
                new double[] {1, 2, 3, 4},
                new int[] {2, 2},
                new double[] {1, 10, 2, 20, 3, 30},
                new int[] {3, 2},
                new double[] {0, 0, 1000});
        assertArrayEquals(new double[] {21, 42, 1063, 43, 86, 1129}, y);
    }

    /** Against loops over each output value, and the transposed one as the adjoint. */
    @Test
    void threeDimensions() {
        Random random = new Random(5);
        int[] xShape = {2, 4, 3, 4, 5};
        int[] weightShape = {6, 2, 1, 2, 3};
        double[] x = random.doubles(2 * 4 * 60).toArray();
        double[] weight = random.doubles(6 * 2 * 6).toArray();
        ConvolutionReference reference = new ConvolutionReference(2, 2, 1, 2);
        int[] yShape = reference.convolvedShape(xShape, weightShape);
        assertArrayEquals(new int[] {2, 6, 3, 2, 2}, yShape);
        double[] expected = new double[2 * 6 * 12];
        for (int i = 0; i < expected.length; i++) {
            int w = i % 2;
            int h = i / 2 % 2;
            int d = i / 4 % 3;
            int o = i / 12 % 6;
            int n = i / 72;
            for (int c = 0; c < 2; c++) {
                for (int kh = 0; kh < 2; kh++) {
                    for (int kw = 0; kw < 3; kw++) {
                        int z = 2 * d - 1;
                        int row = 2 * h - 1 + 2 * kh;
                        int column = 2 * w - 1 + 2 * kw;
                        if (z >= 0 && z < 3 && row >= 0 && row < 4 && column >= 0 && column < 5) {
                            int at = (((n * 4 + o / 3 * 2 + c) * 3 + z) * 4 + row) * 5 + column;
                            expected[i] += x[at] * weight[(o * 2 + c) * 6 + kh * 3 + kw];
                        }
                    }
                }
            }
        }
        assertArrayEquals(expected, reference.convolve(x, xShape, weight, weightShape, null), 1e-14);

        // One row less than x has, which the stride leaves over.
        int[] backShape = reference.transposedShape(yShape, weightShape);
        assertArrayEquals(new int[] {2, 4, 3, 3, 5}, backShape);
        double[] dy = random.doubles(expected.length).toArray();
        double[] narrow = random.doubles(2 * 4 * 45).toArray();
        double[] narrowY = reference.convolve(narrow, backShape, weight, weightShape, null);
        double[] back = reference.transpose(dy, yShape, weight, weightShape, null);
        assertEquals(dot(narrowY, dy), dot(narrow, back), 1e-11);
    }

    private static double dot(double[] a, double[] b) {
        assertEquals(a.length, b.length);
        double sum = 0;
        for (int i = 0; i < a.length; i++) {
            sum += a[i] * b[i];
        }
        return sum;
    }

    @Test
    void whatDoesNotFitIsRefused() {
        assertThrows(IllegalArgumentException.class, () -> new ConvolutionReference(0, 1, 0, 1));
        assertThrows(IllegalArgumentException.class, () -> new ConvolutionReference(1, 0, 0, 1));
        ConvolutionReference two = new ConvolutionReference(2, 1, 0, 1);
        double[] some = new double[6];
        refused("x and weight fit", () -> PLAIN.convolve(some, new int[] {1, 6}, some, new int[] {3, 2}, null));
        refused("x and weight fit", () -> PLAIN.convolve(some, new int[] {1, 6}, some, new int[] {1, 6, 1}, null));
        refused("x and weight fit", () -> two.transpose(some, new int[] {1, 3, 2}, some, new int[] {3, 1, 2}, null));
        refused("x has as many", () -> PLAIN.convolve(some, new int[] {1, 2}, some, new int[] {3, 2}, null));
        refused("weight has as many", () -> PLAIN.convolve(some, new int[] {3, 2}, some, new int[] {2, 2}, null));
        refused("bias has one", () -> PLAIN.convolve(some, new int[] {3, 2}, some, new int[] {3, 2}, some));
        refused("a kernel fits", () -> PLAIN.convolve(some, new int[] {3, 1, 2}, some, new int[] {2, 1, 3}, null));
        refused(
                "padding leaves",
                () -> new ConvolutionReference(1, 1, 2, 1)
                        .transpose(some, new int[] {3, 1, 2}, some, new int[] {1, 2, 3}, null));
    }

    private static void refused(String rule, Runnable call) {
        String message = assertThrows(IllegalArgumentException.class, call::run).getMessage();
        assertEquals(rule, message.substring(0, Math.min(rule.length(), message.length())), message);
    }
}
