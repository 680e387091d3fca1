"""PyTorch on the same GPU over the cases of a CSV of normcl bench, timed by CUDA events; prints the same columns.

One argument: the CSV. gpu-check calls it where PyTorch sees a GPU.
"""
import csv
import statistics
import sys

import torch
import torch.nn.functional as F

ROUNDS, GROUPS, ROTATED = 21, 32, 256 << 20
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


def times(row):
    """Milliseconds of each round; tensors rotate, so that the caches don't hold them."""
    op, shape = row["op"], [int(size) for size in row["shape"].split("x")]
    kind, last = TYPES[row["dtype"]], row["layout"] == "channels_last"
    own = torch.float32 if op == "batch_norm" else kind  # as mixed precision has them
    size = shape[1:] if op in ("layer_norm", "rms_norm") else shape[1]
    weight = torch.ones(size, device="cuda", dtype=own, requires_grad=True)
    bias = torch.zeros(size, device="cuda", dtype=own, requires_grad=True)
    mean, variance = torch.zeros(shape[1], device="cuda"), torch.ones(shape[1], device="cuda")
    count = min(64, max(2, -(-ROTATED // int(row["bytes"]))))
    xs = [tensor(shape, kind, last).requires_grad_() for _ in range(count)]
    back = row["pass"] == "backward"
    training = row["pass"] != "forward_evaluation"
    given = [weight] if op == "rms_norm" else [weight, bias]
    if back:
        ys = [forward(op, x, weight, bias, mean, variance, True) for x in xs]
        dy = tensor(shape, kind, last)
    found = []
    for i in range(ROUNDS + 5):
        x = xs[i % count]
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        if back:
            torch.autograd.grad(ys[i % count], [x, *given], dy, retain_graph=True)
        else:
            with torch.no_grad():
                forward(op, x, weight, bias, mean, variance, training)
        end.record()
        torch.cuda.synchronize()
        found.append(start.elapsed_time(end))
    return found[5:]


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
