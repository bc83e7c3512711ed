"""wakd_kit: weight-averaged knowledge distillation under domain shift.

Train once and record the trajectory; every averaging strategy is a pure function of source curves that returns one
coefficient per segment.

    import wakd_kit as wk

    split = wk.leave_one_out(wk.load_domains("digits"), target="sketch", seed=0)
    student = wk.build_model("resnet10t_w16", classes=split.classes)
    run = wk.train(student, split, objectives=[{"name": "ce"}], steps=600, save_to="runs/demo")
    choices = wk.choose(run, ["last", "wakd", "swad"])
    table = wk.evaluate(run, choices, split)
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for editors; at run time a name is imported when it is first used
    from . import averaging, landscape, objectives
    from .data.domains import Domains, Split, domains_from_arrays, leave_one_out, load_domains
    from .evaluation.choose import choices_table, choose
    from .evaluation.export import export
    from .evaluation.scores import evaluate, evaluate_model, source_score
    from .evaluation.soups import Soup
    from .evaluation.windows import window_map, window_map_proxy
    from .models.build import build_model
    from .results import differences as comparison
    from .runs.run import Run, load_run
    from .runs.train import train

# torch and timm take seconds to import: a step of a study that only starts a kernel, and averaging curves, need neither
_DEFINED_IN = {
    "Domains": "data.domains",
    "Run": "runs.run",
    "Soup": "evaluation.soups",
    "Split": "data.domains",
    "build_model": "models.build",
    "choices_table": "evaluation.choose",
    "choose": "evaluation.choose",
    "domains_from_arrays": "data.domains",
    "evaluate": "evaluation.scores",
    "evaluate_model": "evaluation.scores",
    "export": "evaluation.export",
    "leave_one_out": "data.domains",
    "load_domains": "data.domains",
    "load_run": "runs.run",
    "source_score": "evaluation.scores",
    "train": "runs.train",
    "window_map": "evaluation.windows",
    "window_map_proxy": "evaluation.windows",
}

__all__ = [
    "Domains",
    "Run",
    "Soup",
    "Split",
    "averaging",
    "build_model",
    "choices_table",
    "choose",
    "comparison",
    "domains_from_arrays",
    "evaluate",
    "evaluate_model",
    "export",
    "landscape",
    "leave_one_out",
    "load_domains",
    "load_run",
    "objectives",
    "source_score",
    "train",
    "window_map",
    "window_map_proxy",
]


def __getattr__(name: str):
    if name in _DEFINED_IN:
        value = getattr(importlib.import_module(f".{_DEFINED_IN[name]}", __name__), name)
    elif name == "comparison":
        value = importlib.import_module(".results.differences", __name__)
    elif not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}"):
        value = importlib.import_module(f".{name}", __name__)  # a room: wk.models, wk.averaging, ...
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
