package io.normcl;

import io.normcl.NamedParameter.Kind;
import io.normcl.device.Buffer;
import io.normcl.device.Device;
import io.normcl.device.Kernel;
import io.normcl.plan.ChannelPlan;
import io.normcl.plan.Form;
import io.normcl.plan.KernelCall;
import io.normcl.plan.Plan;
import io.normcl.plan.ShapeClass;
import io.normcl.plan.Slot;
import io.normcl.plan.Tuned;
import io.normcl.tensor.Activation;
import io.normcl.tensor.ChannelView;
import io.normcl.tensor.Layout;
import io.normcl.tensor.Lengths;
import io.normcl.tensor.Tensor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Deque;
import java.util.EnumMap;
import java.util.HashMap;
import java.util.IdentityHashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;

/**
 * What every layer is: gamma and beta on a device, memory for what its forwards save, and its kernels.
 *
 * <p>Calls return before the device is done, in the order of the device's queue. One thread at a time.
 */
public abstract sealed class NormLayer implements AutoCloseable permits BatchNorm, RowNorm {
    /** What a saved value holds: for each set of statistics 4 floats, and 2 for each or for each value of gamma. */
    record Memory(Buffer stats, Buffer sums) {}

    /** What tells a layer's plans apart. */
    record PlanKey(Object view, Form form, int pass) {}

    final Device device;
    final Tuned tuned;
    private final String name;
    private final int parameters;
    private final Activation activation;
    private final float[] eps;
    private final @Nullable Buffer gamma;
    private final @Nullable Buffer beta;
    private final Buffer scale;
    private final Buffer shift;
    private final Buffer discarded;
    private final Buffer tickets;
    private final List<Buffer> owned = new ArrayList<>();
    private final Deque<Memory> free = new ArrayDeque<>();
    private final Map<PlanKey, Plan> plans = new HashMap<>();
    private final IdentityHashMap<KernelCall, Kernel> kernels = new IdentityHashMap<>();
    private final Map<Object, Kernel> lent = new HashMap<>();
    private boolean closed;

    /**
     * What a layer is made of.
     *
     * @param name as messages call it
     * @param parameters values of gamma and of beta
     * @param hasGamma whether there is a learnable scale
     * @param hasBeta whether there is a learnable shift
     * @param eps added to the variance inside the root
     * @param activation what follows
     */
    record Traits(String name, int parameters, boolean hasGamma, boolean hasBeta, double eps, Activation activation) {}

    /**
     * @param neutral the value of gamma that changes nothing
     * @param given the caller's own gamma and beta, or null for the layer's own
     * @param tuned what overrides the plans
     */
    NormLayer(Device device, Traits traits, float neutral, @Nullable Affine given, Tuned tuned) {
        this.device = device;
        this.tuned = tuned;
        this.name = traits.name();
        this.parameters = traits.parameters();
        this.activation = traits.activation();
        this.eps = new float[] {(float) traits.eps(), (float) (traits.eps() - (float) traits.eps())};
        try {
            if (given != null) {
                require("gamma", given.gamma(), traits.hasGamma());
                require("beta", given.beta(), traits.hasBeta());
            }
            gamma = given != null ? given.gamma() : traits.hasGamma() ? filled(neutral) : null;
            beta = given != null ? given.beta() : traits.hasBeta() ? filled(0) : null;
            scale = gamma != null ? gamma : filled(neutral);
            shift = beta != null ? beta : filled(0);
            discarded = filled(0);
            int ints = ChannelPlan.ticketInts(device.limits());
            tickets = own((long) Integer.BYTES * ints);
            tickets.write(new float[ints]); // whose bits are those of ints
        } catch (RuntimeException e) {
            owned.forEach(Buffer::close);
            throw e;
        }
    }

    /**
     * The device.
     *
     * @return where the layer runs
     */
    public Device device() {
        return device;
    }

    /**
     * The scale, to be read and written by the caller.
     *
     * @return gamma, as many floats as the layer has channels or elements of a row; null where the spec has none
     */
    public @Nullable Buffer gamma() {
        return gamma;
    }

    /**
     * The shift, to be read and written by the caller.
     *
     * @return beta, as many floats as gamma has; null where the spec has none
     */
    public @Nullable Buffer beta() {
        return beta;
    }

    /**
     * What a forward launches: which kernels, in which sizes, and how many bytes pass to and from memory. Nothing is
     * enqueued.
     *
     * @param mode where the statistics come from; it counts for a norm that keeps running statistics
     * @param in x, and what is fused
     * @return the plan; without calls where x is empty
     * @throws IllegalArgumentException if the input does not fit the layer
     */
    public abstract Plan forwardPlan(Mode mode, Input in);

    /**
     * What a backward launches, as {@link #forwardPlan} says it of a forward.
     *
     * @param saved what the forward returned
     * @param in what the forward read
     * @param out what is to be written
     * @return the plan; without calls where x is empty
     * @throws IllegalArgumentException if the input or the gradients do not fit the forward
     */
    public abstract Plan backwardPlan(Saved saved, Input in, Gradients out);

    /**
     * The class of shapes for which a pass's tuned choice is kept.
     *
     * @param pass which; by running statistics, of a layer that has them
     * @param x the input
     * @return the class
     * @throws IllegalArgumentException if the input does not fit the layer
     */
    public abstract ShapeClass shapeClass(ShapeClass.Pass pass, Tensor x);

    /**
     * What the layer learns, by PyTorch's names: {@code weight} for gamma and {@code bias} for beta, where it has them.
     *
     * @param prefix the layer's name in its network, before a dot; empty for none
     * @return gamma and beta as they are on the device
     */
    public List<NamedParameter> namedParameters(String prefix) {
        String before = prefix.isEmpty() ? "" : prefix + ".";
        List<NamedParameter> named = new ArrayList<>();
        if (gamma != null) {
            named.add(new NamedParameter(before + "weight", Kind.GAMMA, gamma));
        }
        if (beta != null) {
            named.add(new NamedParameter(before + "bias", Kind.BETA, beta));
        }
        return named;
    }

    /** Releases what the layer owns, saved values included; a second call does nothing. */
    @Override
    public void close() {
        closed = true;
        lent.values().forEach(Kernel::handBack);
        lent.clear();
        owned.forEach(Buffer::close);
    }

    @Override
    public String toString() {
        return name + " of " + parameters;
    }

    // Checks.

    void requireOpen() {
        if (closed) {
            throw new IllegalStateException("the layer is closed: layer=" + this + ", device=" + device.name());
        }
    }

    void requireInput(Input in, boolean addend, boolean lengths) {
        requireOpen();
        Tensor x = in.x();
        if (x.buffer().device() != device) {
            throw new IllegalArgumentException("the tensor must be on the layer's device: x on="
                    + x.buffer().device().name() + ", layer on=" + device.name());
        }
        if ((in.addend() != null) != (in.sum() != null) || (in.addend() != null && !addend)) {
            throw new IllegalArgumentException("an addend comes with a sum, for layer and RMS norm: layer=" + this
                    + ", addend=" + in.addend() + ", sum=" + in.sum());
        }
        requireSame(x, "z", in.z());
        requireSame(x, "addend", in.addend());
        requireSame(x, "sum", in.sum());
        Lengths own = in.lengths();
        if (own != null) {
            requireLengths(x, own, lengths);
        }
    }

    private void requireLengths(Tensor x, Lengths lengths, boolean offered) {
        long[] shape = x.shape();
        boolean fits = offered
                && shape.length > 2
                && lengths.buffer().device() == device
                && lengths.samples() == shape[0]
                && lengths.longest() <= line(x);
        if (!fits) {
            throw new IllegalArgumentException("lengths are for batch, group and instance norm, one for each sample on"
                    + " the layer's device, at most the last spatial dimension: layer=" + this + ", x=" + x + ", "
                    + lengths + ", on=" + lengths.buffer().device().name());
        }
    }

    /** The last spatial dimension. */
    private static long line(Tensor x) {
        long[] shape = x.shape();
        return shape[shape.length - (x.layout() == Layout.CHANNELS_LAST ? 2 : 1)];
    }

    void requireSame(Tensor x, String what, @Nullable Tensor other) {
        if (other == null) {
            return;
        }
        boolean same = Arrays.equals(x.shape(), other.shape())
                && x.type() == other.type()
                && (x.layout() == other.layout() || sameView(x, other));
        if (!same || other.buffer().device() != device) {
            throw new IllegalArgumentException("x and " + what + " must have one shape, layout, type and device: x=" + x
                    + ", " + what + "=" + other + ", " + what + " on="
                    + other.buffer().device().name());
        }
    }

    private static boolean sameView(Tensor x, Tensor other) {
        return x.shape().length < 3
                || ChannelView.of(x.layout(), x.shape()).equals(ChannelView.of(other.layout(), other.shape()));
    }

    void require(String what, @Nullable Buffer buffer, boolean wanted) {
        if (wanted != (buffer != null)) {
            throw new IllegalArgumentException("a layer's buffers must be those of its spec: " + what
                    + (wanted ? " is missing" : " is not wanted") + ", layer=" + this);
        }
        if (buffer != null && buffer.device() != device) {
            throw new IllegalArgumentException("a layer's buffers must be on its device: " + what + " on="
                    + buffer.device().name() + ", layer on=" + device.name());
        }
        if (buffer != null && buffer.bytes() != 4L * parameters) {
            throw new IllegalArgumentException("a layer's buffer must hold one float for each value of gamma: " + what
                    + " bytes=" + buffer.bytes() + ", values=" + parameters + ", bytes needed=" + 4L * parameters
                    + ", layer=" + this);
        }
    }

    void requireOwn(Saved saved) {
        requireOpen();
        if (saved.layer() != this) {
            throw new IllegalArgumentException("saved statistics must be of the layer they are handed to: layer=" + this
                    + ", theirs=" + saved.layer());
        }
        Objects.requireNonNull(saved.memory());
    }

    /** Checks a backward against its forward. */
    void requireBackward(Saved saved, Object view, Input in, Tensor dy, Gradients out) {
        Saved.Pass pass = saved.pass();
        if (!view.equals(pass.view())
                || in.x().type() != pass.form().type()
                || !Objects.equals(in.lengths(), pass.lengths())) {
            throw new IllegalArgumentException(
                    "the backward must be over the forward's shape, type and lengths: forward "
                            + pass.view() + " " + pass.form().type() + ", backward x=" + in.x()
                            + (in.lengths() == pass.lengths() ? "" : ", other lengths"));
        }
        boolean residual = in.z() != null;
        if (residual != pass.form().residual() && activation.kind() != Activation.Kind.NONE) {
            throw new IllegalArgumentException("the backward needs the z of its forward: forward had z="
                    + pass.form().residual() + ", backward z=" + in.z() + ", activation=" + activation);
        }
        requireSame(in.x(), "dy", dy);
        requireSame(in.x(), "dx", out.dx());
        requireSame(in.x(), "dz", out.dz());
        require("dGamma", out.dGamma(), out.dGamma() != null);
        require("dBeta", out.dBeta(), out.dBeta() != null);
    }

    // Forms, slots and plans.

    Form forwardForm(Input in) {
        return form(in, in.z() != null, false, in.addend() != null);
    }

    Form backwardForm(Input in, Gradients out) {
        boolean again = in.z() != null && activation.kind() != Activation.Kind.NONE;
        return form(in, again, out.dz() != null, false);
    }

    private Form form(Input in, boolean residual, boolean dz, boolean addend) {
        return new Form(
                in.x().type(), activation, residual, dz, addend, in.lengths() == null ? 0 : Math.max(1, line(in.x())));
    }

    Plan plan(Object view, Form form, int pass, Supplier<Plan> make) {
        return plans.computeIfAbsent(new PlanKey(view, form, pass), k -> make.get());
    }

    /** The slots of a forward; what is not there is x, which no kernel then reads or writes. */
    Map<Slot, Object> slots(Saved saved, Input in) {
        Map<Slot, Object> slots = new EnumMap<>(Slot.class);
        Buffer x = in.x().buffer();
        slots.put(Slot.X, x);
        slots.put(Slot.Z, or(in.z(), x));
        slots.put(Slot.ADDEND, or(in.addend(), x));
        slots.put(Slot.SUM, or(in.sum(), x));
        Lengths lengths = in.lengths();
        slots.put(Slot.LENGTHS, lengths == null ? x : lengths.buffer());
        slots.put(Slot.STATS, saved.memory().stats());
        slots.put(Slot.SUMS, saved.memory().sums());
        slots.put(Slot.COUNT, saved.count());
        slots.put(Slot.GAMMA, scale);
        slots.put(Slot.BETA, shift);
        slots.put(Slot.EPS, eps);
        slots.put(Slot.TICKETS, tickets);
        return slots;
    }

    Map<Slot, Object> backwardSlots(Saved saved, Input in, Tensor dy, Gradients out) {
        Map<Slot, Object> slots = slots(saved, in);
        Buffer x = in.normalized().buffer();
        slots.put(Slot.X, x);
        slots.put(Slot.DY, dy.buffer());
        slots.put(Slot.DX, or(out.dx(), x));
        slots.put(Slot.DZ, or(out.dz(), x));
        Buffer dGamma = out.dGamma();
        Buffer dBeta = out.dBeta();
        slots.put(Slot.D_GAMMA, dGamma != null ? dGamma : discarded);
        slots.put(Slot.D_BETA, dBeta != null ? dBeta : discarded);
        slots.put(Slot.ACCUMULATE, out.accumulate() ? 1 : 0);
        return slots;
    }

    private static Buffer or(@Nullable Tensor tensor, Buffer otherwise) {
        return tensor == null ? otherwise : tensor.buffer();
    }

    Buffer putWorkspace(Plan plan, Map<Slot, Object> slots) {
        Buffer workspace = device.workspace(plan.workspaceBytes());
        slots.put(Slot.PARTIALS, workspace);
        return workspace;
    }

    void run(Plan plan, Map<Slot, Object> slots) {
        slots.put(Slot.PARTIALS, discarded);
        if (plan.workspaceBytes() > 0) {
            putWorkspace(plan, slots);
        }
        for (KernelCall call : plan.calls()) {
            launch(call, slots);
        }
    }

    void launch(KernelCall call, Map<Slot, Object> slots) {
        Kernel kernel = kernels.computeIfAbsent(
                call,
                c -> lent.computeIfAbsent(
                        List.of(c.file(), c.kernel(), c.defines()),
                        own -> device.lend(c.file(), c.kernel(), c.defines())));
        Object[] args = call.args().toArray();
        for (int i = 0; i < args.length; i++) {
            if (args[i] instanceof Slot slot) {
                args[i] = Objects.requireNonNull(slots.get(slot), slot.name());
            }
        }
        device.enqueue(kernel, call.range(), args);
    }

    /** Sets the parameter gradients of an empty batch. */
    void clear(Gradients out) {
        Buffer dGamma = out.dGamma();
        Buffer dBeta = out.dBeta();
        if (!out.accumulate() && dGamma != null) {
            dGamma.fill(0);
        }
        if (!out.accumulate() && dBeta != null) {
            dBeta.fill(0);
        }
    }

    // Memory.

    /** Saved memory for so many sets of statistics, NaN where they are of nothing, 0 where lengths leave nothing. */
    Saved save(Saved.Pass pass) {
        Saved saved = new Saved(this, pass, memory(pass.sets()));
        if (pass.count() == 0) {
            saved.stats().fill(pass.lengths() == null ? Float.NaN : 0);
        }
        return saved;
    }

    private Memory memory(long sets) {
        long stats = 16 * sets;
        long sums = 8 * Math.max(sets, parameters);
        for (Iterator<Memory> all = free.iterator(); all.hasNext(); ) {
            Memory memory = all.next();
            if (memory.stats().bytes() >= stats && memory.sums().bytes() >= sums) {
                all.remove();
                return memory;
            }
        }
        Memory small = free.poll();
        if (small != null) {
            disown(small.stats());
            disown(small.sums());
        }
        return new Memory(own(stats), own(sums));
    }

    void handBack(Memory memory) {
        free.push(memory);
    }

    /** A buffer of one float for each value of gamma. */
    Buffer filled(float value) {
        Buffer buffer = own(4L * parameters);
        ByteBuffer host = ByteBuffer.allocateDirect(4 * parameters).order(ByteOrder.nativeOrder());
        while (host.hasRemaining()) {
            host.putFloat(value);
        }
        buffer.write(0, host.flip());
        return buffer;
    }

    Buffer own(long bytes) {
        Buffer buffer = device.allocate(bytes);
        owned.add(buffer);
        return buffer;
    }

    private void disown(Buffer buffer) {
        owned.removeIf(other -> other == buffer);
        buffer.close();
    }

    /** A caller's own gamma and beta. */
    record Affine(@Nullable Buffer gamma, @Nullable Buffer beta) {}
}
