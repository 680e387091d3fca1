package io.normcl.verify;

import io.normcl.RunningVariance;
import io.normcl.reference.BatchNormReference;
import io.normcl.reference.BatchNormReference.Gradients;
import io.normcl.reference.BatchNormReference.Statistics;
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

/** Layers of the reference, in double. */
final class ReferenceEngine implements BatchNormProgram.Engine {
    @Override
    public BatchNormProgram.Layer open(Setup setup) {
        for (double[] values : Arrays.asList(setup.gamma(), setup.beta(), setup.runningMean(), setup.runningVar())) {
            if (values != null && values.length != setup.spec().channels()) {
                throw new IllegalArgumentException(
                        "one value per channel: channels=" + setup.spec().channels() + ", values=" + values.length);
            }
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
                                ? new Result(y, null, null, null)
                                : new Result(y, own.dx(), own.dGamma(), own.dBeta()));
            }
            if (training && runningMean != null && runningVar != null) {
                double weight = setup.spec().momentum().weight(batchesTracked);
                boolean unbiased = setup.spec().runningVariance() == RunningVariance.UNBIASED;
                BatchNormReference.update(statistics, weight, unbiased, runningMean, runningVar);
                batchesTracked++;
            }
            return new Step(
                    results,
                    runningMean == null ? null : runningMean.clone(),
                    runningVar == null ? null : runningVar.clone(),
                    batchesTracked,
                    statistics.mean(),
                    statistics.invStd(setup.spec().eps()));
        }

        @Override
        public void close() {}
    }
}
