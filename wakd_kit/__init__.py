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
    from . import averaging, comparison, landscape, objectives
    from .domains import Domains, Split, domains_from_arrays, leave_one_out, load_domains
    from .evaluation import evaluate, evaluate_model, source_score
    from .exporting import export
    from .fitting import choices_table, choose
    from .models import build_model
    from .run import Run, load_run
    from .soups import Soup
    from .training import train
    from .windows import window_map, window_map_proxy

# torch and timm take seconds to import: a step of a study that only starts a kernel, and averaging curves, need neither
_DEFINED_IN = {
    "Domains": "domains",
    "Run": "run",
    "Soup": "soups",
    "Split": "domains",
    "build_model": "models",
    "choices_table": "fitting",
    "choose": "fitting",
    "domains_from_arrays": "domains",
    "evaluate": "evaluation",
    "evaluate_model": "evaluation",
    "export": "exporting",
    "leave_one_out": "domains",
    "load_domains": "domains",
    "load_run": "run",
    "source_score": "evaluation",
    "train": "training",
    "window_map": "windows",
    "window_map_proxy": "windows",
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
    elif not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}"):
        value = importlib.import_module(f".{name}", __name__)  # wk.models, wk.figures, ...
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
