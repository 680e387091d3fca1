package io.normcl.device;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.stream.Stream;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * HotSpot raises SIGSEGV for itself (null checks, safepoints). The LLVM inside PoCL puts a handler of its own over
 * HotSpot's while it compiles: the signal then deletes the compiler's temporary files, and two threads that raise it at
 * once crash the process. The JDK's signal chaining library, loaded first, keeps HotSpot's handler in front.
 */
final class Signals {
    private static final Logger LOG = LoggerFactory.getLogger(Signals.class);
    private static final AtomicBoolean WARNED = new AtomicBoolean();

    private Signals() {}

    /** Says once in a process how to start it so that compiling on this device can't crash it. */
    static void warnIfTaken(Description device) {
        if (device.platform().equals("Portable Computing Language") && !chained() && !WARNED.getAndSet(true)) {
            LOG.warn(
                    "PoCL's compiler takes the JVM's SIGSEGV handler, which can crash the JVM: start it with LD_PRELOAD={}",
                    Path.of(System.getProperty("java.home"), "lib", "libjsig.so"));
        }
    }

    /** True also where it can't be told, on systems other than Linux. */
    static boolean chained() {
        try (Stream<String> mapped = Files.lines(Path.of("/proc/self/maps"))) {
            return mapped.anyMatch(line -> line.endsWith("libjsig.so"));
        } catch (IOException e) {
            return true;
        }
    }
}
