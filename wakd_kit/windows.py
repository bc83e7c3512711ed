"""Every window of a run: begin x end -> accuracy of its average. Exact, or by a fast proxy that says it is one."""

from __future__ import annotations

import copy
import os
import queue
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import torch
import torch.fx
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from tqdm.auto import tqdm

from .domains import Split
from .evaluation import Averages, predict
from .models import Tap, recalibrate
from .recording import write_with
from .views import to_float


def window_map(
    run, split: Split | None = None, *, grid: int | None = None, workers: int | None = None, progress: bool = False
) -> pd.DataFrame:
    """Accuracy of the average over every window of stored segments: the landscape that strategies choose from.

    grid     look at about this many segments at most (neighbours joined), default all stored ones; the number of windows
             grows as the square of it
    workers  windows evaluated side by side, one thread each; default the cores, one on a GPU

    Columns: ``begin, end`` (steps, the window holds iterates begin < i <= end), ``val_accuracy`` (mean over source
    domains) and ``oracle_target_accuracy``: an oracle, for looking, never for choosing. Each window is averaged and
    evaluated as ``evaluate`` would, BatchNorm policy included. Holds ``grid`` copies of the parameters in memory. The
    table is kept in the run's folder (window_map.csv).
    """
    split = split or run.split
    run.check_split(split)
    edges = grid_edges(run.segments.edges, grid)
    begins = [0, *edges[:-1]]
    first = Averages(run, split, roles=("source", "target"))
    names = _float_names(first.model)
    means = torch.stack([_mean_of_iterates(run.segments, names, low, high) for low, high in zip(begins, edges)])
    workers = workers or (1 if first.device.type == "cuda" else len(os.sched_getaffinity(0)))
    # made here, one after the other: torch.fx patches modules while it traces, and no thread may be calling them then
    idle = queue.SimpleQueue()
    inputs = _inputs(first)
    for _ in range(workers):
        idle.put(_Swapper(first.copy(), inputs))
    bar = tqdm(total=len(edges) * (len(edges) + 1) // 2, unit="window", disable=not progress)

    def row(start: int) -> list[dict]:
        """All windows that begin at one edge: each adds one segment to the sum of the one before."""
        swapper = idle.get()
        total, found = torch.zeros(means.shape[1], dtype=torch.float64), []
        for k in range(start, len(edges)):
            count = edges[k] - begins[start]
            total.add_(means[k], alpha=edges[k] - begins[k])
            accuracy = swapper.accuracy((total / count).float(), raw=count == 1, end=edges[k])
            found.append(
                {
                    "begin": begins[start],
                    "end": edges[k],
                    "val_accuracy": float(np.mean([accuracy[d] for d in split.sources])),
                    "oracle_target_accuracy": accuracy[split.target],
                }
            )
            bar.update()
        idle.put(swapper)
        return found

    threads = torch.get_num_threads()
    try:
        if workers > 1:
            torch.set_num_threads(1)  # small nets gain more from windows side by side than from threads within one
        with ThreadPoolExecutor(workers) as pool, bar:
            table = pd.DataFrame([r for rows in pool.map(row, range(len(edges))) for r in rows])
    finally:
        torch.set_num_threads(threads)
    write_with(run.folder / "window_map.csv", lambda path: table.to_csv(path, index=False))
    return table


def window_map_proxy(run, split: Split | None = None, *, grid: int | None = None) -> pd.DataFrame:
    """A fast stand-in for ``window_map``: the mean of the segments' logits in place of the logits of their mean.

    One forward per segment instead of one per window. It ranks windows nearly as the exact map does on source validation,
    and much less so on a target: something to draw while the exact map is computed, never a number to report. Columns as
    in ``window_map`` with ``_proxy`` at the end; nothing is written to the run.
    """
    split = split or run.split
    run.check_split(split)
    edges = grid_edges(run.segments.edges, grid)
    begins = [0, *edges[:-1]]
    averages = Averages(run, split, roles=("source", "target"))
    swapper = _Swapper(averages, _inputs(averages))
    sums: dict[str, list[Tensor]] = {domain: [] for domain in averages.images}
    names = _float_names(averages.model)
    for low, high in zip(begins, edges):
        logits = swapper.logits(_mean_of_iterates(run.segments, names, low, high), raw=high - low == 1, end=high)
        for domain, z in logits.items():
            sums[domain].append(z.double() * (high - low))
    cumulative = {d: torch.cumsum(torch.stack([torch.zeros_like(z[0]), *z]), dim=0) for d, z in sums.items()}
    rows = []
    for start in range(len(edges)):
        for k in range(start, len(edges)):
            accuracy = {d: _accuracy(c[k + 1] - c[start], averages.labels[d]) for d, c in cumulative.items()}
            rows.append(
                {
                    "begin": begins[start],
                    "end": edges[k],
                    "val_accuracy_proxy": float(np.mean([accuracy[d] for d in split.sources])),
                    "oracle_target_accuracy_proxy": accuracy[split.target],
                }
            )
    return pd.DataFrame(rows)


class _Swapper:
    """Writes flat parameter vectors into a model in place and scores it, with BatchNorm folded into convolutions."""

    def __init__(self, averages: Averages, inputs: dict[str, list[Tensor]] | None):
        self.averages, self.inputs = averages, inputs
        state = averages.model.state_dict()
        self.tensors = [state[name] for name in _float_names(averages.model)]
        self.shapes = [t.shape for t in self.tensors]
        self.sizes = [t.numel() for t in self.tensors]
        self.keeps_statistics = averages.run.settings["batchnorm"] == "last"
        self.folded, self.pairs = _folded(averages.model)

    @torch.inference_mode()
    def logits(self, vector: Tensor, *, raw: bool, end: int) -> dict[str, Tensor]:
        averages = self.averages
        parts = vector.to(averages.device).split(self.sizes)
        torch._foreach_copy_(self.tensors, [p.view(shape) for p, shape in zip(parts, self.shapes)])
        if self.keeps_statistics:
            averages.model.load_state_dict(averages.buffers(end), strict=False)
        if averages.calibrates and not raw:
            recalibrate(averages.model, averages.batches)
        for convolution, norm, folded in self.pairs:
            weight, bias = fuse_conv_bn_weights(
                convolution.weight,
                convolution.bias,
                norm.running_mean,
                norm.running_var,
                norm.eps,
                norm.weight,
                norm.bias,
            )
            folded.weight.copy_(weight)
            folded.bias.copy_(bias)
        if self.inputs is None:
            return {domain: predict(self.folded, images) for domain, images in averages.images.items()}
        network = self.folded.model.eval()
        return {d: torch.cat([network(x) for x in xs]).float().cpu() for d, xs in self.inputs.items()}

    def accuracy(self, vector: Tensor, *, raw: bool, end: int) -> dict[str, float]:
        logits = self.logits(vector, raw=raw, end=end)
        return {domain: _accuracy(z, self.averages.labels[domain]) for domain, z in logits.items()}


def _inputs(averages: Averages, *, most: int = 2**29, batch_size: int = 128) -> dict[str, list[Tensor]] | None:
    """What the network behind the tap sees, made once for all windows; None where that would take too much memory."""
    if not isinstance(averages.model, Tap) or 4 * sum(u.numel() for u in averages.images.values()) > most:
        return None
    tap = averages.model
    return {
        domain: [((to_float(part) - tap.mean) / tap.std) for part in images.split(batch_size)]
        for domain, images in averages.images.items()
    }


def _folded(model: nn.Module) -> tuple[nn.Module, list[tuple[nn.Conv2d, nn.BatchNorm2d, nn.Conv2d]]]:
    """A twin of the model whose convolutions take over the BatchNorm that follows them, and what to fold into which.

    Everything else of the twin is the model's own tensors, so it follows when those are overwritten. A model that
    torch.fx cannot trace, or that has no such pair, is its own twin.
    """
    try:
        nodes = list(torch.fx.symbolic_trace(model.model).graph.nodes)
    except Exception:  # tracing fails in as many ways as there are models; plain evaluation is always right
        return model, []
    modules, pairs = dict(model.model.named_modules()), []
    for node in nodes:
        before = node.args[0] if node.args else None
        if node.op != "call_module" or type(modules.get(node.target)) is not nn.BatchNorm2d:
            continue
        if before.op == "call_module" and type(modules.get(before.target)) is nn.Conv2d and len(before.users) == 1:
            pairs.append((before.target, node.target))
    own = {id(t): t for t in (*model.parameters(), *model.buffers())}
    twin = copy.deepcopy(model, memo=own).eval()
    found = []
    for convolution_name, norm_name in pairs:
        convolution, norm = modules[convolution_name], modules[norm_name]
        folded = copy.deepcopy(convolution)
        folded.bias = nn.Parameter(torch.zeros_like(norm.running_mean))
        twin.model.set_submodule(convolution_name, folded)
        twin.model.set_submodule(norm_name, nn.Identity())
        found.append((convolution, norm, folded))
    return twin, found


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return (logits.argmax(1) == labels).double().mean().item()


def _float_names(model) -> list[str]:
    return [name for name, tensor in model.state_dict().items() if tensor.is_floating_point()]


def _mean_of_iterates(segments, names: list[str], low: int, high: int) -> Tensor:
    """Mean of all iterates after step ``low`` up to step ``high``, as one flat float32 vector in the order of names."""
    total = None
    for position in np.flatnonzero((segments.edges > low) & (segments.edges <= high)):
        state = segments.read(int(position), "mean")
        vector = torch.cat([state[name].flatten() for name in names]).double()
        vector *= int(segments.iterates[position]) / (high - low)
        total = vector if total is None else total + vector
    return total.float()


def grid_edges(edges: np.ndarray, grid: int | None) -> list[int]:
    """At most ``grid`` of the given segment edges, evenly spread, the last one always among them."""
    if grid is None or grid >= len(edges):
        return [int(e) for e in edges]
    if grid < 1:
        raise ValueError(f"A window map needs a grid of at least one segment; got {grid}.")
    chosen = np.unique(np.round(np.linspace(0, len(edges), grid + 1)[1:]).astype(int) - 1)
    return [int(e) for e in edges[chosen]]
