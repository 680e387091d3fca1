package io.normcl.verify;

import io.normcl.RunningVariance;
import io.normcl.reference.BatchNormReference;
import io.normcl.reference.BatchNormReference.Gradients;
import io.normcl.reference.BatchNormReference.Statistics;
import io.normcl.reference.NormReference;
import io.normcl.tensor.Activation;
import io.normcl.tensor.ChannelView;
import io.normcl.verify.BatchNormProgram.Result;
import io.normcl.verify.BatchNormProgram.Setup;
import io.normcl.verify.BatchNormProgram.Shard;
import io.normcl.verify.BatchNormProgram.Step;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/** Layers of the references, in double: one shard alone by the one for every layer, several by batch norm's own. */
final class ReferenceEngine implements BatchNormProgram.Engine {
    @Override
    public BatchNormProgram.Layer open(Setup setup) {
        for (double[] values : Arrays.asList(setup.gamma(), setup.beta(), setup.runningMean(), setup.runningVar())) {
            if (values != null && values.length != setup.spec().channels()) {
                throw new IllegalArgumentException(
                        "one value per channel: channels=" + setup.spec().channels() + ", values=" + values.length);
            }
        }
        if (setup.replicas() > 1 && !setup.spec().activation().equals(Activation.NONE)) {
            throw new UnsupportedOperationException(
                    "several shards have no activation: " + setup.spec().activation());
        }
        return new Layer(setup);
    }

    private static final class Layer implements BatchNormProgram.Layer {
        private final Setup setup;
        private final double @Nullable [] runningMean;
        private final double @Nullable [] runningVar;
        private long batchesTracked;

        Layer(Setup setup) {
            this.setup = setup;
            this.runningMean =
                    setup.runningMean() == null ? null : setup.runningMean().clone();
            this.runningVar =
                    setup.runningVar() == null ? null : setup.runningVar().clone();
            this.batchesTracked = setup.batchesTracked();
        }

        @Override
        public Step step(boolean training, List<Shard> shards) {
            ChannelView view = ChannelView.of(setup.layout(), shards.get(0).shape());
            return shards.size() == 1 ? alone(training, view, shards.get(0)) : together(training, view, shards);
        }

        private Step alone(boolean training, ChannelView view, Shard shard) {
            NormReference reference = NormReference.batchNorm(
                            (int) view.n(), setup.spec().channels(), (int) view.s(), view.channelsLast())
                    .withEps(setup.spec().eps())
                    .withActivation(setup.spec().activation());
            NormReference.Statistics statistics = training || runningMean == null
                    ? reference.statistics(shard.x())
                    : reference.running(runningMean, Objects.requireNonNull(runningVar));
            double[] y = reference.forward(statistics, setup.gamma(), setup.beta(), shard.x(), shard.z());
            Result result = new Result(y, null, null, null, null);
            if (shard.dy() != null) {
                NormReference.Gradients own =
                        reference.backward(statistics, setup.gamma(), setup.beta(), shard.x(), shard.z(), shard.dy());
                result = new Result(y, own.dx(), shard.z() == null ? null : own.dz(), own.dGamma(), own.dBeta());
            }
            if (training && runningMean != null && runningVar != null) {
                reference.update(statistics, weight(), unbiased(), runningMean, runningVar);
                batchesTracked++;
            }
            return step(List.of(result), statistics.mean(), statistics.invStd());
        }

        /** Only without activation and residual. */
        private Step together(boolean training, ChannelView view, List<Shard> shards) {
            BatchNormReference reference =
                    new BatchNormReference(setup.spec().channels(), (int) view.s(), view.channelsLast());
            List<double[]> xs = shards.stream().map(Shard::x).toList();
            boolean batch = training || runningMean == null;
            Statistics statistics = batch
                    ? reference.statistics(xs)
                    : Statistics.running(runningMean, Objects.requireNonNull(runningVar));

            List<Gradients> gradients = null;
            if (shards.get(0).dy() != null) {
                List<double[]> dys = shards.stream()
                        .map(shard -> Objects.requireNonNull(shard.dy()))
                        .toList();
                gradients = reference.backward(statistics, batch, setup.spec().eps(), setup.gamma(), xs, dys);
            }
            List<Result> results = new ArrayList<>();
            for (int i = 0; i < xs.size(); i++) {
                double[] y = reference.forward(statistics, setup.spec().eps(), setup.gamma(), setup.beta(), xs.get(i));
                Gradients own = gradients == null ? null : gradients.get(i);
                results.add(
                        own == null
                                ? new Result(y, null, null, null, null)
                                : new Result(y, own.dx(), null, own.dGamma(), own.dBeta()));
            }
            if (training && runningMean != null && runningVar != null) {
                BatchNormReference.update(statistics, weight(), unbiased(), runningMean, runningVar);
                batchesTracked++;
            }
            return step(
                    results, statistics.mean(), statistics.invStd(setup.spec().eps()));
        }

        private double weight() {
            return setup.spec().momentum().weight(batchesTracked);
        }

        private boolean unbiased() {
            return setup.spec().runningVariance() == RunningVariance.UNBIASED;
        }

        private Step step(List<Result> results, double[] mean, double[] invStd) {
            return new Step(
                    results,
                    runningMean == null ? null : runningMean.clone(),
                    runningVar == null ? null : runningVar.clone(),
                    batchesTracked,
                    mean,
                    invStd);
        }

        @Override
        public void close() {}
    }
}
