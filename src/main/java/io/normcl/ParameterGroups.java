package io.normcl;

import io.normcl.NamedParameter.Kind;
import io.normcl.device.Buffer;
import java.util.Collections;
import java.util.HashSet;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Set;
import java.util.stream.Stream;

/**
 * A network's parameters, parted by whether weight decay pulls on them. By default it pulls on weights alone, and gamma,
 * beta and biases stay out of it (Goyal et al. 2017, section 5.1, of gamma and beta).
 *
 * @param decayed those that take weight decay, in the order they were given in
 * @param undecayed those that don't, in that order
 */
public record ParameterGroups(List<NamedParameter> decayed, List<NamedParameter> undecayed) {
    /**
     * Checks that each parameter is there once.
     *
     * @param decayed those that take weight decay; copied
     * @param undecayed those that don't; copied
     * @throws IllegalArgumentException if two have one name, or one buffer: weights that two layers share are one
     *     parameter and move once
     */
    public ParameterGroups {
        decayed = List.copyOf(decayed);
        undecayed = List.copyOf(undecayed);
        Set<String> names = new HashSet<>();
        Set<Buffer> buffers = Collections.newSetFromMap(new IdentityHashMap<>());
        Stream.concat(decayed.stream(), undecayed.stream()).forEach(parameter -> {
            boolean newName = names.add(parameter.name());
            boolean newBuffer = buffers.add(parameter.value());
            if (!newName || !newBuffer) {
                throw new IllegalArgumentException("a parameter must appear once, by its name and by its buffer: name="
                        + parameter.name() + ", name seen=" + !newName + ", buffer seen=" + !newBuffer);
            }
        });
    }

    /**
     * Parts parameters by default: weights are decayed; biases, gammas and betas are not.
     *
     * @param parameters the caller's own and, by {@link NormLayer#namedParameters}, the norms'
     * @return the groups
     * @throws IllegalArgumentException if two have one name or one buffer
     */
    public static ParameterGroups of(List<NamedParameter> parameters) {
        return of(parameters, Set.of(Kind.WEIGHT));
    }

    /**
     * Parts parameters by kind.
     *
     * @param parameters the caller's own and, by {@link NormLayer#namedParameters}, the norms'
     * @param decaying the kinds that take weight decay
     * @return the groups
     * @throws IllegalArgumentException if two have one name or one buffer
     */
    public static ParameterGroups of(List<NamedParameter> parameters, Set<Kind> decaying) {
        return new ParameterGroups(
                parameters.stream().filter(p -> decaying.contains(p.kind())).toList(),
                parameters.stream().filter(p -> !decaying.contains(p.kind())).toList());
    }
}
