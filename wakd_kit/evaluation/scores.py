"""Scores of models and of averages: accuracy, negative log-likelihood and calibration, per domain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ..averaging import NoWindow, average_of
from ..averaging.curves import noted
from ..checks import explained
from ..data.domains import Domains, Examples, Split
from ..files import write_with
from ..names import did_you_mean, one_line
from ..runs.identity import check_unseen
from ..runs.network import Network, predict, scored_domains
from ..runs.record import measuring
from ..runs.validate import METRICS, scores
from .predictions import Predicted, keep, kept, predicted


@explained
def evaluate_model(model: nn.Module, split: Split) -> pd.DataFrame:
    """One row per domain: ``domain, role, accuracy, nll, ece, worst_group, group, n``; see ``worst_group``.

    The role is "source" (its validation part) or "target" (the whole unseen domain). Raises ``ValueError`` for a model that
    is known to have been trained on that one.
    """
    check_unseen(model, split, who="model")
    parts = scored_domains(split)
    return pd.DataFrame(judged(parts, _logits(model, parts), split.domains))


def judged(
    parts: Sequence[tuple[str, str, Examples]], logits: Mapping[str, Tensor] | None, domains: Domains, **about
) -> list[dict]:
    """A row per domain of a network's ``parts``: ``about``, then as ``evaluate_model``, of {domain: (n, classes)} logits; NaN
    without any."""
    none, rows = dict.fromkeys((*METRICS, "worst_group"), np.nan) | {"group": ""}, []
    for d, role, e in parts:
        row = {**scores(logits[d], e.labels), **worst_group(logits[d], e, domains)} if logits else none
        note = {"note": noted(about["note"], row["accuracy"])} if logits and "note" in about else {}
        rows.append({**about, **note, "domain": d, "role": role, **row, "n": len(e)})
    return rows


def worst_group(logits: Tensor, examples: Examples, domains: Domains) -> dict[str, float | str]:
    """``worst_group``: the lowest accuracy (a fraction) of a group of one domain's images, and which ``group``: those of a class, or
    where the benchmark has attributes those of a class that share one (Sagawa et al. 2020, arXiv 1911.08731)."""
    if not torch.isfinite(logits).all():
        return {"worst_group": np.nan, "group": ""}
    correct = (logits.argmax(1).numpy() == examples.labels).astype(float)
    attributes = np.zeros(len(examples), dtype=int) if examples.attributes is None else examples.attributes
    groups, member = np.unique(np.stack([examples.labels, attributes]), axis=1, return_inverse=True)
    accuracy = np.bincount(member.ravel(), weights=correct) / np.bincount(member.ravel())
    (label, attribute), worst = groups[:, accuracy.argmin()], accuracy.min()
    named = [domains.classes[label], *([] if examples.attributes is None else [domains.attributes[attribute]])]
    return {"worst_group": float(worst), "group": ", ".join(named)}


def _logits(model: nn.Module, parts: Sequence[tuple[str, str, Examples]]) -> dict[str, Tensor]:
    return {domain: predict(model, examples.images) for domain, _, examples in parts}


@explained
def evaluate(run, choices: Mapping[str, object], split: Split | None = None, *, batchnorm=None) -> pd.DataFrame:
    """Score several averages of one run, paired, and keep the scores with the run.

    As ``score_choices``, whose table it returns; the table is also written into the run's folder (scores.csv), newest
    value per strategy and domain, what was chosen beside it (choices.json), and what was predicted image by image
    (predictions.npz). Not so when ``batchnorm`` is given: that is a different number by the same name.

    >>> table = wk.evaluate(run, wk.choose(run, ["last", {"name": "wakd", "begin": 0.5}]))
    >>> table[["strategy", "domain", "role"]].tail(2).to_string(index=False, header=False).split()
    ['wakd', 'neon', 'source', 'wakd', 'sketch', 'target']
    """
    network = _ready(run, choices, split, batchnorm)
    choices = {str(label): choice for label, choice in choices.items()}  # as files have them
    if batchnorm is not None:  # even the run's own policy, given here, recalibrates raw iterates that it leaves alone
        return _measured(network, choices)[0]
    with measuring(run.folder):  # where nothing can be kept or added is said before anything is computed
        _ = run.scores, kept(run)
    table, found = _measured(network, choices)
    with measuring(run.folder):
        known, scores = run.choices, run.scores
        other = [label for label in known.keys() & choices.keys() if _average(known[label]) != _average(choices[label])]
        if other and len(scores):  # a kill in between leaves an average without a score, and none with that of another
            scores = scores[~scores["strategy"].isin(other)]
            _write(run, scores)
        run.remember_choices(choices)
        both = pd.concat([scores, table], ignore_index=True)
        _write(run, both.drop_duplicates(["strategy", "domain", "role"], keep="last"))
        keep(run, found)
    return table


def _average(choice) -> object:
    return str(choice) if isinstance(choice, NoWindow) else average_of(choice)


def _write(run, scores: pd.DataFrame) -> None:
    write_with(run.folder / "scores.csv", lambda path: scores.to_csv(path, index=False))


def score_choices(run, choices: Mapping[str, object], split: Split | None = None, *, batchnorm=None) -> pd.DataFrame:
    """Score several averages of one run, paired: ``strategy, domain, role, accuracy, nll, ece, worst_group, group, n, note``.

    choices    {label: coefficients}; a ``NoWindow`` in place of coefficients gives a row of NaN with its reason as note
    split      default the run's own
    batchnorm  policy for this call, default the run's
    """
    return _measured(_ready(run, choices, split, batchnorm), choices)[0]


def measured(run, choices: Mapping[str, object]) -> dict[str, dict[str, Predicted]]:
    """What several averages of one run predict: ``{strategy: {domain: Predicted}}``. Nothing is kept."""
    return _measured(_ready(run, choices), choices)[1]


def _ready(run, choices: Mapping[str, object], split: Split | None = None, batchnorm: str | None = None) -> Network:
    """The network that choices are scored in; whatever cannot be scored is refused here, before the first average is."""
    network = Network(run, split, batchnorm=batchnorm)
    if not isinstance(choices, Mapping) or not choices:
        raise ValueError(f"Give averages to score as {{label: coefficients}}, one or more; got {choices!r}.")
    for label, coefficients in choices.items():
        one_line("label of an average", str(label))
        if not isinstance(coefficients, NoWindow):
            run.stored_coefficients(coefficients)
    return network


def _measured(network: Network, choices: Mapping[str, object]):
    """The table of ``score_choices``, and what was predicted."""
    rows, found = [], {}
    for label, choice in choices.items():
        none, logits = isinstance(choice, NoWindow), None
        if not none:
            logits = _logits(network.take(choice), network.parts)
            found[label] = {d: predicted(logits[d], e.labels, role) for d, role, e in network.parts}
        note = str(choice) if none else getattr(choice, "note", "")
        rows += judged(network.parts, logits, network.split.domains, strategy=label, note=note)
    return pd.DataFrame(rows)[COLUMNS], found


COLUMNS = ["strategy", "domain", "role", *METRICS, "worst_group", "group", "n", "note"]


def source_score(run, split: Split | None = None, *, metric: str = "accuracy") -> Callable[[np.ndarray], float]:
    """``score(coefficients) -> float`` for strategies that search: the average's mean source-validation score.

    Domains weigh the same. Larger is better: nll is returned negated. Memoised, so searches may ask twice.
    """
    if metric not in ("accuracy", "nll"):
        raise ValueError(did_you_mean("metric", metric, ("accuracy", "nll")))
    network = Network(run, split, roles=("source",))
    sign = 1 if metric == "accuracy" else -1
    known: dict[tuple, float] = {}

    def score(coefficients) -> float:
        key = average_of(coefficients)
        if key not in known:
            network.take(coefficients)
            known[key] = sign * source_mean(network.outputs(), network.labels, metric)
        return known[key]

    return score


def source_mean(logits: Mapping[str, Tensor], labels: Mapping[str, Tensor], metric: str) -> float:
    """The mean over source domains, which weigh the same, of a metric of each domain's (n, classes) logits."""
    return float(np.mean([scores(z, labels[domain])[metric] for domain, z in logits.items()]))
