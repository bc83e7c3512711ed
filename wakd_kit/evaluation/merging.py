"""Several runs into one set of parameters, by rules that look at more than coefficients: task vectors, signs, angles, subspaces.

state = merge(start, states, {"name": "ties", "density": 0.2})       {name: tensor}, parameters alone
state = Soup(experts).merge("model_stock")                           the same of runs, BatchNorm on all their sources

Every rule is a function ``(start, states) -> state`` of what each run moved from the parameters that all began with. Of one run
it would make that run, so ``merge`` returns it. Rules that read one tensor at a time see kernels of convolutions as they lie,
(out, in, height, width), unless said.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..names import Registry, did_you_mean, one_of, real_number
from ..runs.store import State

rules = Registry("rule of merging")


def merge(start: State, states: Sequence[State], rule: str | Mapping) -> State:
    """One state of several, float32: what a rule makes of the parameters of runs that share their start.

    start   the parameters that all began with, {name: tensor}
    states  those of each run, of the same names and shapes; of several runs, order matters to ``arcee_fusion`` and ``branch_merge``
    rule    its name, or {"name", settings}

    Computed in float64. One state is returned as it is, whatever the rule. Raises ``UnknownName`` and ``ValueError`` for a rule
    or a setting that there is not, and for tensors that do not fit each other.
    """
    function, settings = _asked(rule)
    if not states:
        raise ValueError("There is nothing to merge: give at least one state.")
    for state in states:
        if odd := [
            n for n in {**start, **state} if n not in start or n not in state or start[n].shape != state[n].shape
        ]:
            raise ValueError(f"States to be merged have the same tensors as their start; {sorted(odd)[0]!r} differs.")
    if len(states) == 1:
        return {name: tensor.float() for name, tensor in states[0].items()}
    doubles = [{name: tensor.detach().double() for name, tensor in state.items()} for state in (start, *states)]
    return {name: tensor.float() for name, tensor in function(doubles[0], doubles[1:], **settings).items()}


def named(rule: str | Mapping) -> dict:
    """A rule as {"name", settings}, checked by name and, of the kit's rules, by value on one number; raises as ``merge`` does."""
    function, settings = _asked(rule)
    if inspect.getmodule(function) is inspect.getmodule(named):  # one of one's own may want more than a number
        function({"": torch.zeros(1)}, [{"": torch.zeros(1)}] * 2, **settings)
    return {"name": rule if isinstance(rule, str) else rule["name"], **settings}


def _asked(rule: str | Mapping) -> tuple[Callable, dict]:
    if isinstance(rule, str):
        rule = {"name": rule}
    if not isinstance(rule, Mapping) or "name" not in rule:
        raise ValueError(f"A rule of merging is a name or a dict with a 'name'; got {rule!r}.")
    function, settings = rules.get(rule["name"]), {key: value for key, value in rule.items() if key != "name"}
    known = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for setting in settings:
        if setting not in known:
            raise ValueError(did_you_mean(f"setting of {rule['name']}", setting, known))
    return function, settings


@rules.register
def mean(start: State, states: Sequence[State]) -> State:
    """The mean of the runs; the start does not matter (Wortsman et al., "Model soups", 2022)."""
    return {name: _stacked(states, name).mean(0) for name in start}


@rules.register
def task_arithmetic(start: State, states: Sequence[State], *, scale: float = 0.4) -> State:
    """``start + scale * sum of what each run moved`` (Ilharco et al., "Editing Models with Task Arithmetic", 2023).

    scale  1 over the number of runs is their mean. There it is chosen on validation data; 0.4 is what Yadav et al. (2023) take
           where there are none
    """
    scale = real_number("scale", scale, 0, meaning="how far to go along the sum of all task vectors")
    return {name: start[name] + scale * (_stacked(states, name) - start[name]).sum(0) for name in start}


@rules.register
def ties(
    start: State, states: Sequence[State], *, density: float = 0.2, scale: float = 1.0, per: str = "network"
) -> State:
    """Trim, elect signs, and average where they agree (Yadav et al., "TIES-Merging", 2023).

    Of what each run moved only the largest entries stay; each entry's sign is that of their sum; the mean of those of this
    sign is added to the start.

    density  the share of entries that stay
    scale    times the mean; 1 is published
    per      "network": largest among all parameters, one entry more than the share, and a sum of 0 has the sign of most, as the
             authors' code. "tensor": largest in each, as arcee-ai/mergekit@a6e4028 with weights 1, normalised
    """
    density = real_number("density", density, 0, 1, meaning="the share of entries that stay")
    scale = real_number("scale", scale, 0, meaning="how far to go along the merged task vector")
    one_of("per", per, ("network", "tensor"))
    if per == "tensor":
        return {n: start[n] + scale * _agreed(_moved(start, states, n), density, 0).view_as(start[n]) for n in start}
    rows = torch.cat([_moved(start, states, name) for name in start], dim=1)
    found = _agreed(rows, density, 1).split([start[name].numel() for name in start])
    return {name: start[name] + scale * part.view_as(start[name]) for name, part in zip(start, found)}


def _agreed(rows: Tensor, density: float, more: int) -> Tensor:
    """Of the largest entries of each row, ``more`` than the share, the mean of those whose sign their sum has, (entries,)."""
    kept = min(rows.shape[1], int(density * rows.shape[1]) + more)
    trimmed = torch.zeros_like(rows)
    if kept:
        largest = rows.abs().topk(kept, dim=1).indices
        trimmed.scatter_(1, largest, rows.gather(1, largest))
    sign = trimmed.sum(0).sign()
    sign[sign == 0] = sign.sum().sign() if more else 1.0
    agree = (trimmed.sign() == sign) & (trimmed != 0)
    return (trimmed * agree).sum(0) / agree.sum(0).clamp(min=1)


@rules.register
def model_stock(start: State, states: Sequence[State], *, per: str = "tensor") -> State:
    """``t mean + (1 - t) start``, ``t = n cos / (1 + (n - 1) cos)`` by the angle between what the runs moved.

    Jang et al., "Model Stock: All we need is just a few fine-tuned models" (2024). For more than two runs cos is the mean over
    pairs, as arcee-ai/mergekit@a6e4028 has it, where the paper does not say. Where it is not above 0, t is 0 and the start stays:
    the formula would run past it (there, t is -1 at cos = -0.2 for three runs).

    per  "tensor": an angle each; "network": one of all parameters
    """
    one_of("per", per, ("tensor", "network"))
    rows = {name: _moved(start, states, name) for name in start}
    products = {name: row @ row.T for name, row in rows.items()}
    whole = sum(products.values())
    found = {}
    for name, row in rows.items():
        t = _share(products[name] if per == "tensor" else whole)
        found[name] = start[name] + t * row.mean(0).view_as(start[name])
    return found


def _share(products: Tensor) -> float:
    """How far to go from the start to the mean, by the inner products of what the runs moved, (n, n)."""
    lengths, n = products.diagonal().sqrt(), len(products)
    cosines = (products / (lengths[:, None] * lengths).clamp(min=1e-300)).clamp(-1, 1)
    cos = max(0.0, float(sum(cosines[i, j] for i, j in itertools.combinations(range(n), 2)) / (n * (n - 1) / 2)))
    return n * cos / (1 + (n - 1) * cos)


@rules.register
def arcee_fusion(start: State, states: Sequence[State], *, spread: float = 1.5, rows: bool = True) -> State:
    """The first run, with those entries of the next that matter most, and so on in the order given: mergekit's rule.

    As arcee-ai/mergekit@a6e4028: an entry matters by ``|new - old| * KL(softmax(new) || softmax(old))``, softmax along the last
    axis, and is taken where that is at least the median plus ``spread`` quartile distances of its tensor. There quantiles of more
    than a million entries are those of a random million; here of all. The start is not read.

    rows  whether a kernel is one row for each output, as in a matrix; otherwise its last axis is its width, and a softmax over
          three numbers decides
    """
    spread = real_number("spread", spread, 0, meaning="how many quartile distances above the median")

    def fused(old: Tensor, new: Tensor) -> Tensor:
        new, before = (t.reshape(t.shape[0], -1) if rows and t.ndim > 2 else t for t in (new, old))
        p, q = (t.softmax(-1) + 1e-8 for t in (new, before))
        matter = (new - before).abs() * (p * (p / q).log()).sum(-1, keepdim=True)
        return torch.where(matter >= _far(matter, spread), new, before).view_as(old)

    return _one_after_the_other(states, fused)


@rules.register
def branch_merge(start: State, states: Sequence[State], *, spread: float = 1.5) -> State:
    """As ``arcee_fusion``, by the rule in the text of the paper that it comes from (Branch-Merge, 2025, arXiv 2503.04872, 2.2).

    Over a whole tensor, ``KL(softmax(old) || softmax(new)) * (old - new)`` with its sign, and the new entry is taken where that is
    above the median plus ``spread`` quartile distances: only entries that fall. The text that was read gives no ``spread``; 1.5 is
    mergekit's. The start is not read.
    """
    spread = real_number("spread", spread, 0, meaning="how many quartile distances above the median")

    def fused(old: Tensor, new: Tensor) -> Tensor:
        p, q = (t.flatten().softmax(0) + 1e-8 for t in (old, new))
        matter = (p * (p / q).log()).sum() * (old - new)
        return torch.where(matter > _far(matter, spread), new, old)

    return _one_after_the_other(states, fused)


def _one_after_the_other(states: Sequence[State], fused: Callable[[Tensor, Tensor], Tensor]) -> State:
    first, *others = states
    for state in others:
        first = {name: fused(old, state[name]) if old.ndim else old for name, old in first.items()}
    return first


def _far(values: Tensor, spread: float) -> Tensor:
    """Their median plus so many distances between quartiles, as those that stand at these places in order."""
    ordered = values.flatten().sort().values
    low, middle, high = (ordered[int(q * (len(ordered) - 1))] for q in (0.25, 0.5, 0.75))
    return middle + spread * (high - low)


@rules.register
def score(start: State, states: Sequence[State], *, published: bool = True, kernels: bool = False) -> State:
    """Subspaces in place of entries: what the runs moved, in a basis that all of them share, without what stands out off its
    diagonal (SCORE, CVPR 2026, arXiv 2603.05768).

    For a matrix: of n runs each gives the first 1/n of its singular vectors; together they are made orthogonal (the closest such
    matrix); each run's movement is written in that basis, entries off the diagonal that are further than 1.96 standard deviations
    from their mean are dropped, and the sum over runs is added to the start. Everything else is averaged.

    published  whether the 1.96 standard deviations are divided by n, as VirtualSpaceman/score_cvpr26@587b25d does for natural
               images; the paper does not
    kernels    whether a kernel counts as a matrix, (out, the rest); there it is averaged, which leaves little else in a small CNN

    Where n does not divide the rank, the code fills the basis with directions that nothing decides; here it stays smaller. A matrix
    of less rank than runs is averaged. As there, zeros on the diagonal count in mean and deviation.
    """
    found = {}
    for name, before in start.items():
        moved = _stacked(states, name) - before
        matrix = before.ndim == 2 or (kernels and before.ndim > 2)
        rows = moved.reshape(len(states), before.shape[0], -1) if matrix else moved
        if not matrix or not (each := min(rows.shape[1:]) // len(states)):
            found[name] = before + moved.mean(0)
            continue
        u, _, v = torch.linalg.svd(rows, full_matrices=False)
        left, right = _orthogonal(torch.cat([*u[..., :each]], 1)), _orthogonal(torch.cat([*v[:, :each]], 0))
        within = left.T @ rows @ right.T
        on = torch.diag_embed(within.diagonal(dim1=-2, dim2=-1))
        off = within - on
        deviation = off.std(dim=(1, 2), keepdim=True) / (len(states) if published else 1)
        kept = (off - off.mean(dim=(1, 2), keepdim=True)).abs() <= 1.96 * deviation
        found[name] = before + (left @ (on + off * kept).sum(0) @ right).view_as(before)
    return found


def _orthogonal(matrix: Tensor) -> Tensor:
    """The matrix with orthonormal columns, or rows, that is closest to this one."""
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    return u @ v


def _stacked(states: Sequence[State], name: str) -> Tensor:
    return torch.stack([state[name] for state in states])


def _moved(start: State, states: Sequence[State], name: str) -> Tensor:
    """What each run moved of one tensor, (runs, entries)."""
    return (_stacked(states, name) - start[name]).flatten(1)
