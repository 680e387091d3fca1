"""PyTorch on the same GPU over the cases of a CSV of normcl bench, timed by CUDA events around a CUDA graph of its
calls; prints the same columns.

One argument: the CSV. gpu-check calls it where PyTorch sees a GPU.
"""
import csv
import statistics
import sys

import torch
import torch.nn.functional as F

ROUNDS, WARM_UP, CALLS, GROUPS, ROTATED = 21, 3, 8, 32, 256 << 20
TYPES = {"float": torch.float32, "half": torch.float16, "bfloat16": torch.bfloat16}


def forward(op, x, weight, bias, mean, variance, training):
    if op == "batch_norm":
        return F.batch_norm(x, mean, variance, weight, bias, training)
    if op == "group_norm":
        return F.group_norm(x, GROUPS, weight, bias)
    if op == "layer_norm":
        return F.layer_norm(x, x.shape[1:], weight, bias)
    return F.rms_norm(x, x.shape[1:], weight, 1e-5)


def tensor(shape, kind, last):
    x = torch.randn(shape, device="cuda").to(kind)
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return x.contiguous(memory_format=formats[len(shape)]) if last and len(shape) in formats else x


def works(row):
    """One call of the pass on each of several sets of tensors, so that the caches hold none of them."""
    op, shape = row["op"], [int(size) for size in row["shape"].split("x")]
    kind, last = TYPES[row["dtype"]], row["layout"] == "channels_last"
    own = torch.float32 if op == "batch_norm" else kind  # as mixed precision has them
    size = shape[1:] if op in ("layer_norm", "rms_norm") else shape[1]
    weight = torch.ones(size, device="cuda", dtype=own, requires_grad=True)
    bias = torch.zeros(size, device="cuda", dtype=own, requires_grad=True)
    mean, variance = torch.zeros(shape[1], device="cuda"), torch.ones(shape[1], device="cuda")
    count = min(64, max(CALLS, -(-ROTATED // int(row["bytes"]))))
    xs = [tensor(shape, kind, last).requires_grad_() for _ in range(count)]
    training = row["pass"] != "forward_evaluation"
    if row["pass"] == "backward":
        given = [weight] if op == "rms_norm" else [weight, bias]
        ys = [forward(op, x, weight, bias, mean, variance, True) for x in xs]
        dy = tensor(shape, kind, last)
        return [lambda x=x, y=y: torch.autograd.grad(y, [x, *given], dy, retain_graph=True) for x, y in zip(xs, ys)]

    def pass_over(x):
        with torch.no_grad():
            forward(op, x, weight, bias, mean, variance, training)

    return [lambda x=x: pass_over(x) for x in xs]


def times(row):
    """Milliseconds of a call, of each round: a CUDA graph of all sets, so that the host's part is not in it."""
    stream = torch.cuda.Stream()  # of the forwards too: autograd runs a backward on its forward's stream
    stream.wait_stream(torch.cuda.current_stream())
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        calls = works(row)
        for call in calls[:3]:
            call()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph, stream=stream):
        for call in calls:
            call()
    found = []
    for _ in range(ROUNDS + WARM_UP):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        found.append(start.elapsed_time(end) / len(calls))
    return found[WARM_UP:]


def main():
    with open(sys.argv[1], newline="") as file:
        rows = list(csv.DictReader(file))
    print(",".join(rows[0]))
    for row in rows:
        try:
            millis = times(row)
        except (RuntimeError, AttributeError) as e:  # out of memory, or no rms_norm in this PyTorch
            print("skipped", row["op"], row["shape"], str(e).splitlines()[0], file=sys.stderr)
            continue
        median = statistics.median(millis)
        speed, copy = int(row["bytes"]) / median / 1e6, float(row["copy_gbps"])
        row.update(family="torch", median_ms=f"{median:.6g}", min_ms=f"{min(millis):.6g}")
        row.update(gbps=f"{speed:.6g}", fraction=f"{speed / copy:.6g}")
        print(",".join(row.values()), flush=True)


main()
