package io.normcl.device;

import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/** What a person types to name devices: {@code cpu}, {@code gpu}, an index, a part of a name; {@code :k}; commas. */
final class Selector {
    private static final Pattern COUNTED = Pattern.compile("(.*):([0-9]{1,3})");

    /** One found device, to be opened {@code count} times or in {@code count} parts. */
    record Choice(Discovery.Found found, int count) {}

    private Selector() {}

    static List<Choice> choose(String selector, List<Discovery.Found> found) {
        List<Choice> chosen = new ArrayList<>();
        for (String part : selector.split(",", -1)) {
            String item = part.strip();
            Matcher counted = COUNTED.matcher(item);
            int count = 1;
            if (counted.matches() && find(item, found) == null) {
                item = counted.group(1).strip();
                count = Integer.parseInt(counted.group(2));
            }
            Discovery.Found match = find(item, found);
            if (match == null || count < 1) {
                throw new IllegalArgumentException("a selector must name a device (cpu, gpu, an index, a part of the"
                        + " name, each with :k for k of them): selector=" + selector + ", there is "
                        + found.stream().map(f -> f.description().toString()).collect(Collectors.joining("; ")));
            }
            chosen.add(new Choice(match, count));
        }
        return chosen;
    }

    private static Discovery.@org.jspecify.annotations.Nullable Found find(String item, List<Discovery.Found> found) {
        String wanted = item.toLowerCase(Locale.ROOT);
        for (Discovery.Found candidate : found) {
            Description description = candidate.description();
            boolean named = !wanted.isEmpty()
                    && (description.name() + " " + description.platform())
                            .toLowerCase(Locale.ROOT)
                            .contains(wanted);
            if (wanted.equals(description.type()) || wanted.equals(Integer.toString(description.index()))) {
                return candidate;
            }
            if (named && !isKeyword(wanted)) {
                return candidate;
            }
        }
        return null;
    }

    private static boolean isKeyword(String wanted) {
        return wanted.equals("cpu")
                || wanted.equals("gpu")
                || wanted.equals("accelerator")
                || wanted.chars().allMatch(Character::isDigit);
    }
}
