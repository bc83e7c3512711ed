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

from . import averaging, comparison, landscape, objectives
from .domains import Domains, Split, domains_from_arrays, leave_one_out, load_domains
from .evaluation import evaluate, evaluate_model, source_score
from .export import export
from .fitting import choices_table, choose
from .models import build_model
from .run import Run, load_run
from .soups import Soup
from .training import train
from .windows import window_map, window_map_proxy

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
