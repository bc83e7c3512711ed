"""Several strategies on one run: names and settings in, coefficients or the reason why there are none out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ..names import Registry, UnknownName, did_you_mean, one_line
from . import beyond, profiles, schedule, search, valley
from .curves import Coefficients, Curves, NoWindow, as_curves
from .fitting import fitting

strategies = Registry("strategy")
PACKAGE = __name__.partition(".")[0]

for _strategy in (
    schedule.last,
    valley.best_val,
    schedule.uniform,
    schedule.window,
    schedule.wakd,
    schedule.ema,
    profiles.power,
    profiles.annealed,
    schedule.swa,
    schedule.lawa,
    schedule.wise_ft,
    beyond.bema,
    beyond.extrapolate,
    valley.swad,
    valley.swad_published,
    valley.swad_wakd_repo,
    valley.eoa_wakd_repo,
    search.sma,
    search.iidmax,
    search.greedy_soup,
    search.learned,
):
    strategies.register(_strategy)

SCHEDULE = "a schedule, which reads no validation"
SETTLED = "settled before training"  # a schedule that the run declared
EVALUATIONS = {
    "score": "scores candidate averages on source validation",
    "loss_and_gradient": "is fitted on one half of source validation",
    "held_out_loss": "is stopped on the other half of source validation",
}


def choose(
    curves: Curves,
    wanted: Sequence[str | Mapping[str, Any]],
    score: search.Score | None = None,
    *,
    loss_and_gradient: Callable | None = None,
    held_out_loss: Callable | None = None,
) -> dict[str, Coefficients | NoWindow]:
    """What each strategy picks on one run: label -> ``Coefficients``, or the ``NoWindow`` it raised, in order.

    wanted  names, or {"name": ..., "label": ..., settings...}: ``["last", {"name": "wakd", "begin": 0.2}]``. A label
            left out is the name; when a name comes twice, the settings that differ are added: ``wakd(begin=0.2)``.
    score   source-validation accuracy of an average, for the strategies that try candidates; ``loss_and_gradient``
            and ``held_out_loss`` are for ``learned``

    Names, settings, labels and evaluations are checked before the first strategy runs: ``UnknownName`` or
    ``ValueError`` with a sentence, also where a strategy of one's own stops or returns no coefficients. Settings that do not fit the run (a begin beyond its end) raise as they do in a
    direct call; only "no window found" is an outcome.
    """
    curves = as_curves(curves)
    evaluations = {"score": score, "loss_and_gradient": loss_and_gradient, "held_out_loss": held_out_loss}
    entries = _entries(wanted)
    calls = [(strategies.get(name), _complete(name, settings, evaluations)) for name, _, settings in entries]
    chosen: dict[str, Coefficients | NoWindow] = {}
    for label, (name, _, asked), (strategy, settings) in zip(_labels(entries), entries, calls, strict=True):
        settings, spent = _counted(settings)
        try:
            chosen[label] = _named(name, asked, len(curves), strategy(curves, **settings))
        except NoWindow as reason:
            chosen[label] = reason
        except Exception as error:  # of the user's own function; what an evaluation raises is that one's
            if isinstance(error, ValueError) or spent or strategy.__module__.startswith(f"{PACKAGE}."):
                raise
            raise ValueError(
                f"Strategy {name!r} stopped on curves of {len(curves)} segments, {type(error).__name__}: {error}"
            ) from error
        chosen[label].chosen_by, chosen[label].evaluations = chosen_by(name, asked), len(spent)
    return chosen


def _named(name: str, asked: Mapping[str, Any], segments: int, found: Any) -> Coefficients:
    """What a strategy returned, checked; one of one's own need not say what it is called, nor with which settings it was asked."""
    try:
        found = found if isinstance(found, Coefficients) else Coefficients(found)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Strategy {name!r}: {error}") from error
    if len(found) != segments:
        raise ValueError(
            f"Strategy {name!r} returned {len(found)} coefficients for {segments} segments; return one each."
        )
    if not found.strategy:
        said = ", ".join(f"{setting}={value}" for setting, value in asked.items() if setting not in EVALUATIONS)
        note = f"{found.note or 'coefficients of its own'}{f' ({said})' if said else ''}"
        found = Coefficients(found, **{**found.notes, "strategy": name, "note": note})
    return found


def chosen_by(name: str, settings: Mapping[str, Any] = MappingProxyType({})) -> str:
    """What decides a strategy, in words: a schedule, a source-validation curve, averages scored there, or a rule of its own."""
    known = {**settings_of(name), **settings}
    strategy = strategies.get(name)
    parameters, home = inspect.signature(strategy).parameters, strategy.__module__
    reads = "val_accuracy" if home == valley.__name__ else None  # where it is no setting
    curve = next((known[setting] for setting in ("loss", "by") if setting in known), reads)
    if "loss_and_gradient" in parameters:
        return "fitted on one half of source validation, stopped on the other"
    if "score" in parameters:
        return "averages scored on source validation"
    if curve is not None:
        return f"{curve} on source validation"
    settled = home in (schedule.__name__, profiles.__name__, beyond.__name__)
    return SCHEDULE if settled else "a rule of its own, which may read source validation"


def _counted(settings: dict[str, Any]) -> tuple[dict[str, Any], list[None]]:
    """The settings with evaluations that leave a mark in the list at every call."""
    spent: list[None] = []

    def counted(evaluate: Callable) -> Callable:
        return lambda coefficients: (spent.append(None), evaluate(coefficients))[1]

    evaluated = {n: counted(f) for n, f in settings.items() if n in EVALUATIONS and f is not None}
    return {**settings, **evaluated}, spent


def labels_of(wanted: Sequence[str | Mapping[str, Any]]) -> list[str]:
    """The labels that ``choose`` would return; raises as it does, before there is a run, for what can be known without."""
    entries = _entries(wanted)
    for name, _, settings in entries:
        _complete(name, settings, dict.fromkeys(EVALUATIONS, choose))  # any function: only names are checked
    return _labels(entries)


def settings_of(name: str, steps: int | None = None, exact: str | None = None) -> dict[str, Any]:
    """The settings of a registered strategy and their defaults (``inspect.Parameter.empty`` where one is needed).

    steps  the length of a run: defaults that are read off it are those of such a run, in place of None
    exact  as ``fitting`` takes it
    """
    parameters = inspect.signature(strategies.get(name)).parameters.values()
    found = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in EVALUATIONS}
    return found | (fitting(name, steps, exact) if steps else {})


def _entries(wanted) -> list[tuple[str, str | None, dict[str, Any]]]:
    """Name, label if given, settings of each."""
    found = []
    for item in [wanted] if isinstance(wanted, str | Mapping) else wanted:
        settings = {"name": item} if isinstance(item, str) else item
        if not isinstance(settings, Mapping) or "name" not in settings:
            raise ValueError(f"A wanted strategy is a name or a dict with a 'name'; got {item!r}.")
        settings = dict(settings)
        found.append((settings.pop("name"), settings.pop("label", None), settings))
    return found


def _complete(name: str, settings: dict[str, Any], evaluations: dict[str, Callable | None]) -> dict[str, Any]:
    """The settings, checked by name, with the evaluations that this strategy asks for."""
    parameters, known = inspect.signature(strategies.get(name)).parameters, settings_of(name)
    for setting in settings:
        if setting not in known and setting not in (EVALUATIONS.keys() & parameters.keys()):
            if not known:
                raise UnknownName(f"{name} has no settings; got {setting!r}.")
            raise UnknownName(did_you_mean(f"setting of {name}", setting, known))
        if isinstance(known.get(setting), bool) and not isinstance(settings[setting], bool):
            raise ValueError(f"{setting} of {name} is true or false; got {settings[setting]!r}.")
    complete = dict(settings)
    for evaluation in [e for e in EVALUATIONS if e in parameters and e not in settings]:
        if evaluations[evaluation] is not None:
            complete[evaluation] = evaluations[evaluation]
        elif parameters[evaluation].default is inspect.Parameter.empty:
            raise ValueError(
                f"{name} {EVALUATIONS[evaluation]} and got no {evaluation}. "
                f"Give choose(curves, wanted, {evaluation}=...), or leave {name} out."
            )
    return complete


def _labels(entries: list[tuple[str, str | None, dict[str, Any]]]) -> list[str]:
    """Unique labels: as given, else the name, with the settings that tell entries of one name apart."""
    labels = []
    for name, label, settings in entries:
        alike = [other for other_name, other_label, other in entries if other_name == name and other_label is None]
        differing = [key for key in settings if any(key not in o or o[key] != settings[key] for o in alike)]
        shown = ", ".join(f"{key}={settings[key]}" for key in differing)
        labels.append(one_line("label of a strategy", label or (f"{name}({shown})" if shown else name)))
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(f"Two of the wanted strategies are called {label!r}; give one of them another 'label'.")
    return labels
