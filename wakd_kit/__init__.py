"""wakd_kit: weight-averaged knowledge distillation under domain shift.

Train once and record the trajectory; every averaging strategy is a function of source curves that returns one
coefficient per segment, and nothing of the unseen domain reaches it.

    import wakd_kit as wk

    split = wk.leave_one_out(wk.load_domains("digits"), target="sketch", seed=0)
    student = wk.build_model("resnet10t_w16", classes=split.classes)
    run = wk.train(student, split, objectives=[{"name": "ce"}], steps=600, save_to="runs/demo")
    choices = wk.choose(run, ["last", "wakd", "swad"])
    table = wk.evaluate(run, choices, split)
"""

# ruff: noqa: F401
import importlib
import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for editors, and for what reads code; at run time a name is imported when it is first used
    from . import averaging, landscape, objectives
    from .data.domains import Domains, Split, domains_from_arrays, leave_one_out, load_domains
    from .evaluation.along import averages_along
    from .evaluation.choose import choices_table, choose
    from .evaluation.export import export
    from .evaluation.lengths import length_sweep
    from .evaluation.scores import evaluate, evaluate_model, source_score
    from .evaluation.soups import Soup
    from .evaluation.windows import window_map, window_map_proxy
    from .models.build import build_model
    from .results import differences as comparison
    from .runs import before as scores
    from .runs.checkpoints import record_checkpoints
    from .runs.run import Run, load_run
    from .runs.train import train

# torch and timm take seconds to import: a step of a study that only starts a kernel, and averaging curves, need neither
_NAMES = {
    "data.domains": ("Domains", "Split", "domains_from_arrays", "leave_one_out", "load_domains"),
    "evaluation.along": ("averages_along",),
    "evaluation.choose": ("choices_table", "choose"),
    "evaluation.export": ("export",),
    "evaluation.lengths": ("length_sweep",),
    "evaluation.scores": ("evaluate", "evaluate_model", "source_score"),
    "evaluation.soups": ("Soup",),
    "evaluation.windows": ("window_map", "window_map_proxy"),
    "models.build": ("build_model",),
    "runs.checkpoints": ("record_checkpoints",),
    "runs.run": ("Run", "load_run"),
    "runs.train": ("train",),
}
_ALIASES = {"comparison": ".results.differences", "scores": ".runs.before"}
_DEFINED_IN = {name: module for module, names in _NAMES.items() for name in names}
__all__ = sorted([*_DEFINED_IN, *_ALIASES, "averaging", "landscape", "objectives"])


def __getattr__(name: str):
    if name in _DEFINED_IN:
        value = getattr(importlib.import_module(f".{_DEFINED_IN[name]}", __name__), name)
    elif name in _ALIASES:
        value = importlib.import_module(_ALIASES[name], __name__)
    elif not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}"):
        value = importlib.import_module(f".{name}", __name__)  # a room: wk.models, wk.averaging, ...
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
