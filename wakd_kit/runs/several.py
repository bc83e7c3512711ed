"""Several teachers as one: each example has a weight for each of them, and hears the mixture of what they say.

    wk.train(student, split, teacher={"of": [run, "start"], "weigh": "surest"}, objectives="kd")

    p = sum_m w_m softmax(z_m / T),   logits = T (log p + sum_m w_m logsumexp(z_m / T))

The gradient of ``sum_m w_m KL(p_m || p_s)`` is that of one KL to the mixture, so every objective that reads logits works as it
is, with its own temperature. Where one teacher has all the weight the logits are its own, to the last bit.

    uniform      all alike
    own_domain   the example's domain: who was trained on it, and on the fewest others; alike where several were
    surest       who is surest, by its largest probability
    right        who gives the label the largest probability (KL-Dist's partition of the data, with "start" beside a teacher)
    parc         in proportion to ``before.parc`` of their features on source training images, those below 0 left out
    learned      the mixture that makes the labels of source validation images most likely, found by EM
    [3, 1]       as given

``"start"`` is the student as it starts, frozen; it may be the only one, ``{"of": ["start"]}``, as for MIRO. Probabilities that are compared, or learned from, are at temperature 1.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable, Mapping, Sequence
from numbers import Number
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.augment import upload
from ..models.build import as_tap
from ..models.tap import Output
from ..names import did_you_mean, is_number
from ..objectives import Combined, objectives
from ..objectives.base import widened
from .before import parc
from .identity import check_unseen, provenance_of, seen_by, sources_seen
from .settings import Settings
from .teacher import Heard

RULES = ("uniform", "own_domain", "surest", "right", "parc", "learned")
MOST_COMPARED = 600  # images that ``parc`` compares with each other


def checked(spec: Mapping) -> dict:
    """``{"of": [...], "weigh": ...}`` as it is meant. Raises ``ValueError`` in one sentence for what it cannot be."""
    if unknown := [key for key in spec if key not in ("of", "weigh")]:
        raise ValueError(did_you_mean("key of several teachers", unknown[0], ("of", "weigh")))
    of, weigh = spec.get("of"), spec.get("weigh", "uniform")
    weigh = weigh.tolist() if hasattr(weigh, "tolist") else weigh
    if not isinstance(of, list | tuple) or not of:
        raise ValueError(
            f'Several teachers are {{"of": [runs], "weigh": rule}}, with at least one of them; got of={of!r}.'
        )
    if unfit := [one for one in of if one is None or isinstance(one, Number | list | tuple)]:
        raise ValueError(f'Several teachers are runs, their folders, modules or "start"; got of={unfit[0]!r}.')
    for one in of:
        if isinstance(one, Mapping):
            checked(one)
    if isinstance(weigh, list | tuple):
        if len(weigh) != len(of) or not all(is_number(w) and w >= 0 for w in weigh) or not sum(weigh):
            raise ValueError(f"weigh lists a number >= 0 for each of the {len(of)} teachers, not all 0; got {weigh!r}.")
        weigh = [float(w) for w in weigh]
    elif weigh not in RULES:
        raise ValueError(did_you_mean("weigh", weigh, RULES))
    return {"of": list(of), "weigh": weigh}


def is_one(spec: Mapping) -> bool:
    """Whether only one teaches, all the time: then it is that one, whose features objectives may read."""
    return len(spec["of"]) == 1 and spec["weigh"] == "uniform"


def temperature_of(combined: Combined, spec: Mapping) -> float:
    """At which temperature the teachers of ``checked`` mix: that of the objectives. Raises ``ValueError`` where these have two, or
    read features."""
    if is_one(spec):
        return 1.0
    weigh = spec["weigh"]
    for what in ("pooled", "maps", "parts", "attention"):
        if combined.reads(what, "teacher") or combined.needs("centres"):
            raise ValueError(
                f"The objectives {combined.labels} read features of the teacher, and several teachers have none in common; use those of logits."
            )
    heard = [
        spec for spec in combined.specs if "teacher" in objectives.about(spec["name"]).needs and "temperature" in spec
    ]
    found = {spec["temperature"] for spec in heard}
    moves = any(spec.get("schedule", {}).get("of") == "temperature" for spec in heard)
    if (len(found) > 1 or moves) and weigh not in ("surest", "right"):
        said = "one that changes" if moves else " and ".join(f"{t:g}" for t in sorted(found))
        raise ValueError(
            f"Several teachers mix at the temperature of the objectives {combined.labels}, which is {said}; give them one."
        )
    return found.pop() if found else 1.0


def mixture(logits: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """Logits (n, classes) of the mixture of teachers, from theirs (n, teachers, classes) and weights (n, teachers) of sum 1."""
    tempered = logits / temperature
    level = torch.logsumexp(tempered, 2)
    log_p = torch.logsumexp(tempered - level[..., None] + weights.log()[..., None], 1)
    mixed = temperature * (log_p + (weights * level).sum(1, keepdim=True))
    most, who = weights.max(1)
    alone = logits[torch.arange(len(logits), device=logits.device), who]
    return torch.where((most == 1)[:, None], alone, mixed)


class Several(nn.Module):
    """Teachers as one, see above. ``sources`` are those of the training, in the order in which it knows domains.

    As a module it does not know of what an example is: where that decides, they are all alike.
    """

    def __init__(
        self, members: Sequence[nn.Module], names: Sequence[str], weigh: str | list, *, temperature: float, split=None
    ):
        super().__init__()
        self.members, self.names = nn.ModuleList(members), list(names)
        self.weigh, self.temperature = weigh, temperature
        self.spec = {"name": " + ".join(self.names), "weigh": weigh}
        self.table = _owners(members, names, split) if weigh == "own_domain" else _alike(weigh, len(members))
        self.provenance = {"run": self.spec["name"], "seen": seen_by(self.members)}

    def forward(self, images: Tensor, *, maps: bool = False) -> Output:
        """The mixture, without features."""
        logits = torch.stack([member(images, maps=False).logits.float() for member in self.members], 1)
        weights = _alike("uniform", len(self.members)) if self.weigh == "own_domain" else self.table
        mixed = mixture(logits, weights.to(logits).expand(len(logits), -1), self.temperature)
        return Output(mixed, mixed[:, :0])

    def weights(self, logits: Tensor, labels: Tensor, domains: Tensor) -> Tensor:
        """Weights (n, teachers) of examples, from what the teachers say of them, (n, teachers, classes).

        labels   (n,), or soft ones (n, classes);  domains  (n, sources), how much of an example is of each
        """
        if self.weigh in ("surest", "right"):
            probs = logits.softmax(2)
            if self.weigh == "right":
                target = F.one_hot(labels, logits.shape[2]) if labels.ndim == 1 else labels
                probs = probs * target[:, None]
                score = probs.sum(2)
            else:
                score = probs.max(2).values
            return F.one_hot(score.argmax(1), len(self.members)).to(logits.dtype)
        table = upload(self.table.to(logits.dtype), logits.device)
        return domains.to(logits.dtype) @ table if self.weigh == "own_domain" else table.expand(len(logits), -1)

    def mixed(self, said: Sequence[Tensor], labels: Tensor, domains: Tensor) -> Output:
        """The ``Output`` of a batch, from the logits of each teacher; in float32 or better, also where autocast would lower it."""
        with torch.autocast(said[0].device.type, enabled=False):
            logits = torch.stack([widened(z) for z in said], 1)
            mixed = mixture(logits, self.weights(logits, labels, domains), self.temperature)
        return Output(mixed, mixed[:, :0])


def _alike(weigh: str | list, count: int) -> Tensor:
    weights = torch.tensor(weigh if isinstance(weigh, list) else [1.0] * count, dtype=torch.float64)
    return weights / weights.sum()


def _owners(members: Sequence[nn.Module], names: Sequence[str], split) -> Tensor:
    """(sources, teachers): all weight of a source to who was trained on it and on the fewest, alike where several were."""
    known = [sources_seen(member, split) for member in members]
    for name, sources in zip(names, known):
        if sources is None:
            raise ValueError(
                f"own_domain asks which domains a teacher was trained on, and nothing is known of {name}; give runs."
            )
    rows = []
    for source in split.sources:
        fewest = min((len(sources) for sources in known if source in sources), default=0)
        owns = [float(source in sources and len(sources) == fewest) for sources in known]
        if not fewest:
            raise ValueError(f"own_domain has no teacher for {source}: {', '.join(names)} were trained on others.")
        rows.append([own / sum(owns) for own in owns])
    return torch.tensor(rows, dtype=torch.float64)


def several(
    spec: Mapping,
    loaded: Callable[[object], nn.Module],
    student: nn.Module,
    split,
    combined: Combined,
    settings: Settings,
) -> nn.Module:
    """The teachers of a training as one, a ``Several``, or the one that there is. ``loaded`` makes a module of a run, a folder or a
    module.

    Raises ``ValueError`` in one sentence, also where one of them has seen the domain to be unseen, which it names.
    """
    spec = checked(spec)
    temperature = temperature_of(combined, spec)
    if spec["weigh"] == "own_domain" and (settings.mix or settings.second):
        raise ValueError(
            "own_domain weighs by the domain of an image, and mixed images are of two; take another rule, or no mix."
        )
    members, names = [], []
    for one in spec["of"]:
        members.append(as_tap(copy.deepcopy(student)).requires_grad_(False).eval() if one == "start" else loaded(one))
        origin = provenance_of(members[-1]) or {}
        name = Path(one).name if isinstance(one, str | os.PathLike) else origin.get("run", members[-1].spec["name"])
        check_unseen(members[-1], split, who=f"teacher {name}")
        names.append(name)
    if is_one(spec):
        return members[0]
    return Several(members, names, spec["weigh"], temperature=temperature, split=split)


class HeardTogether:
    """``teacher.Heard`` of several: each of them is kept for itself, so who was heard before is read."""

    def __init__(self, teacher: Several, *given):
        self.teacher, self.asked, self.split = teacher, teacher, given[0]
        self.each = [Heard(member, *given) for member in teacher.members]
        if teacher.weigh == "parc":
            teacher.table = self._by_parc()

    def __enter__(self) -> HeardTogether:
        with contextlib.ExitStack() as stack:
            for heard in self.each:
                stack.enter_context(heard)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *given) -> None:
        self._stack.__exit__(*given)

    @torch.no_grad()
    def __call__(self, step: int, x: Tensor, labels: Tensor, domains: Tensor, **_) -> Output:
        """The mixture for the views of a step, with their labels, or those of a first and a second batch."""
        said = [heard(step, x).logits for heard in self.each]
        if isinstance(labels, tuple):
            classes = said[0].shape[1]
            labels = torch.cat([F.one_hot(one, classes).float() if one.ndim == 1 else one for one in labels])
            domains = torch.cat([domains, domains])
        return self.teacher.mixed(said, labels, domains)

    @torch.no_grad()
    def validation(self) -> Tensor:
        """Logits (n, classes) of the source validation images, domain after domain; what is learned is learned of them here."""
        said = [heard.validation() for heard in self.each]
        sizes = [len(examples) for examples in self.split.val.values()]
        labels = torch.cat([torch.as_tensor(examples.labels) for examples in self.split.val.values()])
        domains = torch.eye(len(sizes)).repeat_interleave(torch.tensor(sizes), 0)
        if self.teacher.weigh == "learned":
            self.teacher.table = most_likely(torch.stack(said, 1), labels)
        return self.teacher.mixed(said, labels, domains).logits

    def _by_parc(self) -> Tensor:
        scores = []
        for heard in self.each:
            features, labels = heard.features()
            few = torch.linspace(0, len(labels) - 1, min(len(labels), MOST_COMPARED)).long()
            scores.append(max(parc(features.cpu()[few], labels.cpu()[few]), 0.0))
        if not sum(scores):
            raise ValueError(
                f"parc of {', '.join(self.teacher.names)} is 0 or less on the sources: none of them should teach here."
            )
        return _alike(scores, len(scores))


def hear(teacher: nn.Module | None, *given) -> Heard | HeardTogether:
    """A teacher, or several as one, as a training hears it; ``given`` is what ``Heard`` takes beside."""
    return HeardTogether(teacher, *given) if isinstance(teacher, Several) else Heard(teacher, *given)


def most_likely(logits: Tensor, labels: Tensor) -> Tensor:
    """Weights (teachers,) of the mixture of ``softmax(logits)`` (n, teachers, classes) that makes the labels (n,) most likely: EM."""
    p = logits.double().softmax(2).gather(2, labels.long()[:, None, None].expand(-1, logits.shape[1], 1)).squeeze(2)
    p = p.clamp(min=1e-300)  # an example that nobody gives its label any chance decides nothing
    weights = torch.full_like(p[0], 1 / p.shape[1])
    for _ in range(500):
        share = weights * p
        weights = (share / share.sum(1, keepdim=True)).mean(0)
    return weights
