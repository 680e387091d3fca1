package io.normcl;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.normcl.NamedParameter.Kind;
import io.normcl.device.Buffer;
import io.normcl.device.Device;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** Which parameters take weight decay, over layers of every kind and a caller's own. */
class ParameterGroupsTest {
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

    private static List<String> names(List<NamedParameter> parameters) {
        return parameters.stream().map(NamedParameter::name).toList();
    }

    @Test
    void weightsDecayAloneUnlessToldOtherwise() {
        try (Rig rig = new Rig(device);
                BatchNorm batch = BatchNorm.open(device, BatchNormSpec.of(2));
                LayerNorm layer = LayerNorm.open(device, LayerNormSpec.of(3).withAffine(true, false));
                RmsNorm rms = RmsNorm.open(device, RmsNormSpec.of(3));
                GroupNorm group = GroupNorm.open(device, GroupNormSpec.of(1, 2));
                InstanceNorm instance = InstanceNorm.open(device, InstanceNormSpec.of(2));
                InstanceNorm shifted =
                        InstanceNorm.open(device, InstanceNormSpec.of(2).withAffine(false, true))) {
            List<NamedParameter> all = new ArrayList<>();
            all.add(new NamedParameter("0.weight", Kind.WEIGHT, rig.floats(4)));
            all.addAll(batch.namedParameters("1"));
            all.add(new NamedParameter("2.bias", Kind.BIAS, rig.floats(2)));
            all.addAll(layer.namedParameters("blocks.3.norm"));
            all.addAll(rms.namedParameters("4"));
            all.addAll(group.namedParameters(""));
            all.addAll(instance.namedParameters("6"));
            all.addAll(shifted.namedParameters("7"));
            all.add(new NamedParameter("8.weight", Kind.WEIGHT, rig.floats(4)));

            ParameterGroups groups = ParameterGroups.of(all);
            assertEquals(List.of("0.weight", "8.weight"), names(groups.decayed()));
            assertEquals(
                    List.of(
                            "1.weight",
                            "1.bias",
                            "2.bias",
                            "blocks.3.norm.weight",
                            "4.weight",
                            "weight",
                            "bias",
                            "7.bias"),
                    names(groups.undecayed()));
            assertSame(batch.gamma(), groups.undecayed().get(0).value());
            assertSame(batch.beta(), groups.undecayed().get(1).value());
            assertEquals(Kind.BETA, groups.undecayed().get(7).kind());

            ParameterGroups gammaToo = ParameterGroups.of(all, EnumSet.of(Kind.WEIGHT, Kind.GAMMA));
            assertEquals(
                    List.of("0.weight", "1.weight", "blocks.3.norm.weight", "4.weight", "weight", "8.weight"),
                    names(gammaToo.decayed()));
            assertEquals(List.of("1.bias", "2.bias", "bias", "7.bias"), names(gammaToo.undecayed()));
            assertEquals(all, ParameterGroups.of(all, Set.of()).undecayed());
            assertEquals(all, ParameterGroups.of(all, EnumSet.allOf(Kind.class)).decayed());
        }
    }

    @Test
    void refusesAParameterThatAppearsTwice() {
        try (Rig rig = new Rig(device)) {
            Buffer shared = rig.floats(2);
            NamedParameter weight = new NamedParameter("0.weight", Kind.WEIGHT, shared);
            refused(
                    "name=1.bias, name seen=false, buffer seen=true",
                    List.of(weight, new NamedParameter("1.bias", Kind.BIAS, shared)));
            refused(
                    "name=0.weight, name seen=true, buffer seen=false",
                    List.of(weight, new NamedParameter("0.weight", Kind.GAMMA, rig.floats(2))));
        }
    }

    private static void refused(String contains, List<NamedParameter> parameters) {
        String message = assertThrows(IllegalArgumentException.class, () -> ParameterGroups.of(parameters))
                .getMessage();
        assertTrue(message.contains(contains), message);
        assertEquals(1, message.lines().count());
    }
}
