"""Scores of models and of averages: accuracy, negative log-likelihood and calibration, per domain."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .averaging import NoWindow
from .domains import Examples, Split
from .files import write_with
from .models import as_tap, batchnorms, in_eval, recalibrate
from .objectives import Combined, kd
from .predictions import Predicted, keep, predicted
from .recording import State
from .registry import did_you_mean
from .views import to_float

METRICS = ("accuracy", "nll", "ece")


@torch.inference_mode()
def predict(model: nn.Module, images: np.ndarray | Tensor, *, batch_size: int = 128) -> Tensor:
    """Logits (n, classes) in float32 on the CPU of (n, H, W, 3) uint8 images, in eval mode; the model is left as it was."""
    model = as_tap(model)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with in_eval(model):
        batches = [
            model(to_float(torch.as_tensor(images[i : i + batch_size]).to(device)), maps=False).logits.float().cpu()
            for i in range(0, len(images), batch_size)
        ]
    return torch.cat(batches)


def scores(logits: Tensor, labels: np.ndarray | Tensor) -> dict[str, float]:
    """``accuracy`` (fraction), ``nll`` (nats per example) and ``ece`` (fraction) of (n, classes) logits."""
    labels = torch.as_tensor(labels)
    probs = F.softmax(logits.double(), dim=1)
    return {
        "accuracy": (logits.argmax(1) == labels).double().mean().item(),
        "nll": F.cross_entropy(logits.double(), labels).item(),
        "ece": calibration_error(probs, labels),
    }


def calibration_error(probs: Tensor, labels: Tensor, *, bins: int = 15) -> float:
    """Expected calibration error: |confidence - accuracy| in equal-width confidence bins, weighted by their share.

    Guo et al. 2017, arXiv 1706.04599, section 2: bins are (0, 1/15], (1/15, 2/15], ...
    """
    confidence, predicted = probs.max(1)
    correct = (predicted == labels).double()
    bin_of = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gap = torch.zeros(bins, dtype=torch.float64).index_add_(0, bin_of, confidence.double() - correct)
    return gap.abs().sum().item() / len(labels)


def evaluate_model(model: nn.Module, split: Split) -> pd.DataFrame:
    """One row per domain: ``domain, role, accuracy, nll, ece, n``.

    The role is "source" (its validation part) or "target" (the whole unseen domain).
    """
    return _judged(model, split)[0]


def _judged(model: nn.Module, split: Split) -> tuple[pd.DataFrame, dict[str, Predicted]]:
    """The table of ``evaluate_model``, and what the model predicted in each domain."""
    rows, found = [], {}
    for domain, role, examples in scored_domains(split):
        logits = predict(model, examples.images)
        row = scores(logits, examples.labels)
        rows.append({"domain": domain, "role": role, **row, "n": len(examples)})
        found[domain] = predicted(logits, examples.labels, role)
    return pd.DataFrame(rows), found


def scored_domains(split: Split, roles: tuple[str, ...] = ("source", "target")) -> list[tuple[str, str, Examples]]:
    """(domain, role, examples) of what a model is judged on: source validation parts, then the whole target if there is one."""
    found = [(name, "source", examples) for name, examples in split.val.items()] if "source" in roles else []
    return (
        [*found, (split.target, "target", split.target_for_testing_only)]
        if split.target and "target" in roles
        else found
    )


class SourceValidation:
    """Source curves of the current iterate: cross-entropy and accuracy per domain, and the distillation loss."""

    def __init__(self, split: Split, teacher: nn.Module | None, combined: Combined):
        self.examples = dict(split.val)
        temperatures = [spec["temperature"] for spec in combined.specs if spec["name"] == "kd"]
        self.temperature = temperatures[0] if temperatures else 5.0
        # the teacher never changes and validation images are not augmented: its logits are computed once
        self.teacher = None
        if teacher is not None:
            self.teacher = torch.cat([predict(teacher, e.images) for e in self.examples.values()])

    def __call__(self, student: nn.Module) -> dict[str, float]:
        logits = {d: predict(student, e.images) for d, e in self.examples.items()}
        by_domain = {d: scores(z, self.examples[d].labels) for d, z in logits.items()}
        sizes = [len(e) for e in self.examples.values()]
        row = {f"val_loss/{d}": s["nll"] for d, s in by_domain.items()}
        row |= {f"val_accuracy/{d}": s["accuracy"] for d, s in by_domain.items()}
        row["val_loss_pooled"] = float(np.average([s["nll"] for s in by_domain.values()], weights=sizes))
        if self.teacher is not None:
            student_logits = torch.cat(list(logits.values()))
            row["val_kd_loss"] = kd(student_logits.double(), self.teacher.double(), temperature=self.temperature).item()
        return row

    def accuracy(self, row: dict) -> float:
        return float(np.mean([row[f"val_accuracy/{d}"] for d in self.examples]))


def evaluate(run, choices: Mapping[str, object], split: Split | None = None, *, batchnorm=None) -> pd.DataFrame:
    """Score several averages of one run, paired, and keep the scores with the run.

    As ``score_choices``, whose table it returns; the table is also written into the run's folder (scores.csv), newest
    value per strategy and domain, what was chosen beside it (choices.json), and what was predicted image by image
    (predictions.npz). Not so when ``batchnorm`` is given: that is a different number by the same name.
    """
    table, found = _score_choices(run, choices, split, batchnorm)
    if batchnorm is None:  # even the run's own policy, given here, recalibrates raw iterates that it leaves alone
        _remember(run, table, choices)
        keep(run, found, choices)
    return table


def score_choices(run, choices: Mapping[str, object], split: Split | None = None, *, batchnorm=None) -> pd.DataFrame:
    """Score several averages of one run, paired: ``strategy, domain, role, accuracy, nll, ece, n, note``.

    choices    {label: coefficients}; a ``NoWindow`` in place of coefficients gives a row of NaN with its reason as note
    split      default the run's own
    batchnorm  policy for this call, default the run's
    """
    return _score_choices(run, choices, split, batchnorm)[0]


def _score_choices(run, choices: Mapping[str, object], split: Split | None, batchnorm: str | None):
    """The table of ``score_choices``, and what was predicted: ``{strategy: {domain: Predicted}}``."""
    split = split or run.split
    run.check_split(split)
    tables, found = [], {}
    for label, coefficients in choices.items():
        if isinstance(coefficients, NoWindow):
            table = pd.DataFrame([{"domain": d, "role": r, "n": len(e)} for d, r, e in scored_domains(split)])
            table[list(METRICS)] = np.nan
            note = str(coefficients)
        else:
            model = run.model(coefficients, split=split, batchnorm=batchnorm)
            model.to(_device(), memory_format=torch.channels_last)
            (table, found[label]), note = _judged(model, split), getattr(coefficients, "note", "")
        table.insert(0, "strategy", label)
        tables.append(table.assign(note=note))
    return pd.concat(tables, ignore_index=True)[["strategy", "domain", "role", *METRICS, "n", "note"]], found


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _remember(run, table: pd.DataFrame, choices: Mapping[str, object]) -> None:
    """Keep the newest score per strategy and domain in the run's folder, and what each strategy chose."""
    both = pd.concat([run.scores, table], ignore_index=True)
    newest = both.drop_duplicates(["strategy", "domain", "role"], keep="last")
    write_with(run.folder / "scores.csv", lambda path: newest.to_csv(path, index=False))
    run.remember_choices(choices)


class Averages:
    """Evaluates many averages of one run on fixed images: parameters are swapped in place, images stay on the device.

    ``logits(state)`` returns {domain: (n, classes)} and recalibrates BatchNorm first when that is the run's policy.
    """

    def __init__(self, run, split: Split, roles: tuple[str, ...] = ("source",)):
        self.run, self.split = run, split
        self.device = _device()
        self.model = run.blank_model().to(self.device, memory_format=torch.channels_last)
        self.parts = scored_domains(split, roles)
        self.images = {d: torch.as_tensor(np.ascontiguousarray(e.images)).to(self.device) for d, _, e in self.parts}
        self.labels = {d: torch.as_tensor(e.labels) for d, _, e in self.parts}
        self.calibrates = run.settings["batchnorm"] == "recalibrate" and bool(batchnorms(self.model))
        self.batches = run.calibration_batches(split, self.device) if self.calibrates else []
        self.counters = {n: t for n, t in run.segments.initial.items() if not t.is_floating_point()}

    def copy(self) -> Averages:
        """One more model on the same images, for another thread."""
        other = copy.copy(self)
        other.model = copy.deepcopy(self.model)
        return other

    def logits(self, state: State, *, raw: bool = False) -> dict[str, Tensor]:
        """``raw``: the state is one iterate with statistics of its own; it is not recalibrated."""
        self.model.load_state_dict({**self.counters, **state})
        if self.calibrates and not raw:
            recalibrate(self.model, self.batches)
        return {domain: predict(self.model, images) for domain, images in self.images.items()}

    def buffers(self, step: int) -> State:
        """Running statistics of the iterate at ``step``, which ends a stored segment: for the policy ``last``."""
        names = {name for name, _ in self.model.named_buffers()}
        state = self.run.segments.read(int(np.searchsorted(self.run.segments.edges, step)), "end")
        return {n: t for n, t in state.items() if n in names}


def source_score(run, split: Split | None = None, *, metric: str = "accuracy") -> Callable[[np.ndarray], float]:
    """``score(coefficients) -> float`` for strategies that search: the average's mean source-validation score.

    Domains weigh the same. Larger is better: nll is returned negated. Memoised, so searches may ask twice.
    """
    if metric not in ("accuracy", "nll"):
        raise ValueError(did_you_mean("metric", metric, ("accuracy", "nll")))
    split = split or run.split
    averages = Averages(run, split)
    known: dict[tuple, float] = {}

    def score(coefficients) -> float:
        values = np.asarray(coefficients, dtype=np.float64)
        of, initial = getattr(coefficients, "of", "mean"), getattr(coefficients, "initial", 0.0)
        key = (values.tobytes(), of, initial)
        if key not in known:
            # plain averaging here, recalibration in place below: the model is swapped, not built again
            state = run.average(coefficients, split=split, batchnorm="average" if averages.calibrates else None)
            stored, _ = run.stored_coefficients(coefficients)
            one = np.count_nonzero(stored) == 1 and not initial
            raw = one and (of == "end" or run.segments.iterates[stored.argmax()] == 1)
            by_domain = averages.logits(state, raw=raw)
            sign = 1 if metric == "accuracy" else -1
            known[key] = sign * float(np.mean([scores(z, averages.labels[d])[metric] for d, z in by_domain.items()]))
        return known[key]

    return score
