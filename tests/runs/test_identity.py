"""Students, teachers, objectives, splits and recordings are known by content; what a model has seen is never forgotten."""

import copy
import dataclasses
import enum
import functools
import json
import shutil
import subprocess
import sys
import types
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import wakd_kit as wk
from wakd_kit.data.domains import other_split
from wakd_kit.models.build import Adapter, Output, as_tap
from wakd_kit.models.tap import mark
from wakd_kit.objectives import combine
from wakd_kit.objectives import objectives as registry
from wakd_kit.runs.identity import (
    check_unseen,
    difference,
    of_objectives,
    of_recording,
    of_student,
    of_teacher,
    provenance_of,
    same,
    seen_by,
    seen_in_training,
    sketch,
    sources_seen,
    structure,
)
from wakd_kit.written import written

from ..conftest import SMALL, small_images

TINY = SMALL


def net(activation: nn.Module, *, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return as_tap(nn.Sequential(nn.Flatten(), nn.Linear(768, 8), activation, nn.Linear(8, 4)))


@pytest.mark.parametrize("again", [{"seed": 1}, {"validation": 0.4}, "whole"])
def test_images_to_validate_on_that_were_trained_on_are_counted(again, tmp_path):
    domains = wk.load_domains("digits")

    def split(**changes):
        return wk.leave_one_out(domains, "photo", **{"seed": 0, "validation": 0.2, **changes})

    def train(student, split, name, **settings):
        given = {"steps": 1, "segment_length": 1, "batch_size": 8, "save_to": tmp_path / name, "progress": False}
        return wk.train(student, split, **given, **settings)

    network = functools.partial(wk.build_model, "resnet10t", 10, **TINY)
    old = train(network(), split().whole() if again == "whole" else split(), "old")
    new = split() if again == "whole" else split(**again)
    seen = [np.isin(part.rows, old.split.train[name].rows).sum() for name, part in new.val.items()]
    said = f"was trained on {sum(seen)} of the {sum(map(len, new.val.values()))} source validation images"
    assert sum(seen)
    with pytest.warns(UserWarning, match=f"teacher {said}.* optimistic"):
        train(network(), new, "taught", teacher=old, objectives="kd")
    with pytest.warns(UserWarning, match=f"student {said}.* chosen by"):
        train(old.model(), new, "on")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(
            old.model(), wk.leave_one_out(domains, "photo", validation=0.1) if again != "whole" else new.whole(), "kept"
        )


def through_json(identity):
    return json.loads(json.dumps(identity))


@pytest.mark.parametrize(
    "other",
    [nn.Tanh(), nn.LeakyReLU(0.2), nn.Sequential(nn.ReLU())],
    ids=["another activation", "another slope", "another nesting"],
)
def test_two_networks_with_the_same_shapes_are_two_students(other):
    ours = nn.LeakyReLU(0.1) if isinstance(other, nn.LeakyReLU) else nn.ReLU()
    assert not same(of_student(net(ours)), of_student(net(other)))


@pytest.mark.parametrize("name", ["resnet10t_w16", "vit_d64", "mixer_d64", "mobilenetv3_small_050"])
def test_a_student_built_again_is_the_same_student_and_one_of_another_seed_is_not(name):
    first, again = (of_student(wk.build_model(name, 4, seed=0)) for _ in range(2))
    assert first == through_json(again)
    moved = wk.build_model(name, 4, seed=0).to(memory_format=torch.channels_last)
    assert of_student(moved) == first
    other = of_student(wk.build_model(name, 4, seed=1))
    assert other["structure"] == first["structure"] and not same(first, other)


def test_a_student_that_was_trained_since_is_another_student():
    tap = wk.build_model("resnet10t", 4, seed=0, **TINY)
    before = of_student(tap)
    with torch.no_grad():
        for parameter in tap.parameters():
            parameter.add_(1e-3)
    assert not same(before, of_student(tap))


def test_last_bits_of_statistics_are_no_difference_and_other_statistics_are():
    tap = wk.build_model("resnet10t", 4, seed=0, **TINY)
    before, rounded = of_teacher(tap), copy.deepcopy(tap)
    for name, buffer in rounded.named_buffers():
        if "running" in name:
            buffer.mul_(1 + 1e-6)
    assert same(before, through_json(of_teacher(rounded)))
    for change in ("bn1.running_mean", "layer2.0.bn1.running_var"):
        other = copy.deepcopy(tap)
        other.model.get_buffer(change).add_(0.1)
        assert not same(before, of_teacher(other)), change
    other = copy.deepcopy(tap)
    other.mean.add_(0.3)
    assert not same(before, of_teacher(other))
    other = copy.deepcopy(tap)
    other.size = (8, 8)
    assert not same(before, of_teacher(other))


def test_a_sketch_moves_with_any_tensor_whatever_its_kind():
    state = {"a": torch.arange(12_000.0), "b": torch.zeros(3), "c": torch.ones(2, dtype=torch.complex64)}
    state |= {"d": torch.tensor(3), "e": torch.zeros(0), "f": torch.ones(4, dtype=torch.bfloat16)}
    first = sketch(state.items())
    assert first == sketch(dict(reversed(state.items())).items())
    for name in ("a", "b", "c", "d", "f"):
        changed = state[name].clone()
        changed.view(-1)[-5:] += changed.abs().max().to(changed.dtype) + 1
        moved = sketch({**state, name: changed}.items())
        assert max(abs(a - b) for a, b in zip(first, moved)) > 1e-4, name


def read_late(model, images):
    return Output(model(images), model(images) * SCALE)


SCALE = 2.0


def test_own_code_belongs_to_the_structure(monkeypatch):
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 4))
    first = structure(Adapter(model, read_late))
    assert structure(Adapter(model, read_late)) == first
    assert structure(Adapter(model, lambda model, images: Output(model(images), model(images)))) != first
    assert structure(Adapter(model, functools.partial(read_late))) != first
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert structure(Adapter(model, read_late)) != first


class Slotted:
    __slots__ = ("scale",)

    def __init__(self, scale):
        self.scale = scale

    def read(self, model, images):
        return read_late(model, images * self.scale)


@dataclasses.dataclass
class Settings:
    scale: float

    def __post_init__(self):
        self.parent = self


class Scale(enum.Enum):
    SMALL, LARGE = 0.5, 2.0


class Scaled(nn.Module):
    def __init__(self, cfg, spec=None):
        super().__init__()
        self.net, self.cfg, self.spec = nn.Sequential(nn.Flatten(), nn.Linear(768, 4)), cfg, spec

    def forward(self, x):
        return self.net(x) * self.cfg.scale


@pytest.mark.parametrize("held", [Slotted, Settings, lambda scale: types.SimpleNamespace(scale=scale), Scale])
def test_settings_held_in_an_object_belong_to_the_structure(held):
    small, again, large = (structure(as_tap(Scaled(held(scale)))) for scale in (0.5, 0.5, 2.0))
    assert small == again != large


def test_settings_of_a_method_s_object_and_those_called_spec_belong_to_the_structure():
    small, again, large = (structure(Adapter(nn.Flatten(), Slotted(scale).read)) for scale in (0.5, 0.5, 2.0))
    assert small == again != large
    assert structure(as_tap(Scaled(None, spec=1))) != structure(as_tap(Scaled(None, spec=2)))


def typed(source: str) -> dict:
    """What a cell defines, with its source where a notebook keeps it."""
    import linecache

    name = f"<cell {abs(hash(source))}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    space = {"__name__": "__main__"}
    exec(compile(source, name, "exec"), space)
    return space


CELL = """
def helper(x):
    return {0} * x

def my_loss(student, teacher, labels, *, strength=1.0):{1}
    return strength * helper(student.logits.square().mean())
"""


@pytest.fixture
def declared():
    added = []

    def declare(function, name="my_loss"):
        registry._entries.pop(name, None)
        added.append(name)
        registry.declare(kind="logits", needs="", source="here", name=name)(function)
        return of_objectives(combine([name]))

    yield declare
    for name in added:
        registry._entries.pop(name, None)
        registry._about.pop(name, None)


def test_an_edited_objective_is_another_one_and_a_comment_is_no_edit(declared):
    first = declared(typed(CELL.format(1, ""))["my_loss"])
    assert list(first) == ["my_loss"]
    assert declared(typed(CELL.format(1, "  # of squares"))["my_loss"]) == first
    assert declared(typed(CELL.format(2, ""))["my_loss"]) != first  # in what it calls
    assert of_objectives(combine(["ce", "kd"])) == {}


@pytest.mark.parametrize(
    "held", ["Path('a.pt'), Path('b.pt')", "torch.float32, torch.float64", "range(2), range(3)", "b'a', b'b'"]
)
def test_what_an_objective_reads_counts_by_what_it_holds(declared, held):
    cell = "import torch\nfrom pathlib import Path\nHELD = ({})[{}]\ndef my_loss(s, t, labels):\n    return s.logits.mean() * len(str(HELD))\n"
    first, again, other = (declared(typed(cell.format(held, n))["my_loss"]) for n in (0, 0, 1))
    assert first == again != other


def test_two_of_one_name_are_two_and_a_table_may_hold_who_reads_it(declared):
    cell = """
near, far = lambda x: 2 * x, lambda x: {0} * x
def power_of(k):
    return lambda x: x**k
one, two = power_of(1), power_of({1})
def my_loss(s, t, labels):
    return near(one(s.logits.mean())) + far(two(s.logits.mean())) + len(TABLE)
TABLE = {{"mine": my_loss}}
"""
    first, again, second_lambda, second_closure = (
        declared(typed(cell.format(*n))["my_loss"]) for n in ((3, 3), (3, 3), (4, 3), (3, 4))
    )
    assert first == again and second_lambda != first != second_closure


def test_the_body_of_a_cached_property_is_code(declared):
    cell = (
        "import functools, torch\nclass Mine(torch.nn.Module):\n    @functools.cached_property\n    def share(self):\n        return {}\n"
        "    def forward(self, s, t, labels):\n        return self.share * s.logits.mean()\n"
    )
    first, again, other = (declared(typed(cell.format(n))["Mine"]) for n in (1, 1, 2))
    assert first == again != other


SCALED = "import functools\ndef scaled(f):\n    @functools.wraps(f)\n    def inner(*a): return {} * f(*a)\n    return inner\n"
USED = {
    "a wrapper": SCALED + "@scaled\ndef my_loss(s, t, labels): return s.logits.mean()",
    "a helper's wrapper": SCALED + "@scaled\ndef f(x): return x\ndef my_loss(s, t, labels): return f(s.logits.mean())",
    "a method of an object": "class C:\n    def __init__(self): self.k = {}\n    def f(self, x): return self.k * x\nf = C().f\n",
    "the class of an object": "class C:\n    def __call__(self, x): return {} * x\nf = C()\n",
    "the class of an object in a list": "class C:\n    def __call__(self, x): return {} * x\nh = [C()]\ndef f(x): return h[0](x)\n",
    "a class that decorates": "class C:\n    def __init__(self, f): self.f = f\n    def __call__(self, x): return {} * x\n@C\ndef f(x): return x\n",
    "a layer": "import torch\nclass M(torch.nn.Module):\n    def forward(self, x): return {} * x\nf = torch.nn.Sequential(M())\n",
    "what a wrapper calls by its attribute": "import functools\ndef g(x): return {} * x\n@functools.wraps(g)\ndef f(*a): return f.__wrapped__(*a)\ndel g\n",
    "a class with modules of its own": "class C:\n    modules = [{}]\nf = lambda x: x * C().modules[0]\nh = C()\n",
    "a dataclass that was typed": "import dataclasses\n@dataclasses.dataclass\nclass C:\n    a: int = 1\n    def __call__(self, x): return {} * x\nf = C()\n",
    "a setter": "class C:\n    @property\n    def a(self): return 1\n    @a.setter\n    def a(self, x): self.k = {} * x\ndef f(x): return C().a * x\n",
    "what torch wraps": "import torch\n@torch.no_grad()\ndef f(x): return {} * x\n",
}


@pytest.mark.parametrize("form", USED)
def test_what_an_objective_uses_is_code_in_whatever_form(declared, form):
    cell = USED[form] + "\ndef my_loss(s, t, labels): return f(s.logits.mean())\n" * ("my_loss" not in USED[form])
    first, again, other = (declared(typed(cell.format(n))["my_loss"]) for n in (1, 1, 2))
    assert first == again != other


def test_many_objects_and_a_chain_of_classes_are_written_once_each():
    cells = [
        f"class C{i}:\n    def __call__(self, x): return a{i}(x) + b{i}(x)\na{i - 1}, b{i - 1} = C{i}(), C{i}()\n"
        for i in range(1, 25)
    ]
    cells[-1] = cells[-1].replace("a24(x) + b24(x)", "x")
    own = "def my_loss(x): return a0(x) + b0(x)\n"
    first, again, other = (
        written(typed("".join([*cells[:-1], cells[-1].replace("return x", f"return {n} * x"), own]))["my_loss"])
        for n in (1, 1, 2)
    )
    assert first == again != other and len(first) < 10_000


def test_what_a_dataclass_writes_itself_is_no_code_of_one_s_own():
    """It is compiled anew by each Python; what was copied or pickled before makes no difference."""
    first = written(Settings)
    copy.copy(Settings(1.0))
    assert written(Settings) == first and "__post_init__" in first and "__eq__" not in first


FILES = {
    "own_pack/__init__.py": "",
    "own_pack/deep.py": "FACTOR = 1",
    "own_pack/core.py": "from .deep import FACTOR\nfrom . import core\ndef base(x): return FACTOR * x",
    "own_util.py": "try:\n    from .none import base\nexcept ImportError:\n    from own_pack.core import base\ndef f(x): return base(x)",
    "own_loss.py": "import own_util\ndef my_loss(s, t, labels): return own_util.f(s.logits.mean())",
    "own_late.py": "def my_loss(s, t, labels):\n    import json, none\n    from own_pack import core\n    return core.base(s.logits.mean())",
    "own_pack/late.py": "class my_loss:\n    def forward(self, s, t, labels):\n        from .core import base\n        return base(s.logits.mean())",
    "own_whole.py": "import own_pack.core\ndef my_loss(s, t, labels): return own_pack.core.base(s.logits.mean())",
}


@pytest.mark.parametrize("name", ["own_loss", "own_whole", "own_late", "own_pack.late"])
def test_what_a_module_of_one_s_own_imports_is_code(tmp_path, name):
    """In processes of their own: the digest is the same in two, and another after an edit of any file."""
    for file, source in FILES.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(source)

    def digest_now(before="pass") -> str:
        said = f"{before}; import sys; sys.path.insert(0, '.'); import {name}; from wakd_kit.written import written; print(written({name}.my_loss))"
        given = {"cwd": tmp_path, "capture_output": True, "text": True, "check": True}
        return subprocess.run([sys.executable, "-B", "-c", said], **given).stdout

    first = digest_now()
    assert "FACTOR = 1" in first and digest_now("import colorsys, json.tool") == first
    (tmp_path / "own_pack/deep.py").write_text("FACTOR = 2")
    assert digest_now() != first


def test_a_class_typed_into_a_notebook_has_a_source(declared):
    cell = "import torch\nclass Mine(torch.nn.Module):\n    def forward(self, s, t, labels):\n        return {} * s.logits.mean()\n"
    first, again, other = (declared(typed(cell.format(n))["Mine"]) for n in (1, 1, 2))
    assert first == again != other


def test_code_without_a_source_is_known_by_what_it_was_compiled_to(declared):
    made = [{} for _ in range(3)]
    for space, factor in zip(made, (1, 1, 2)):
        exec(f"def my_loss(student, teacher, labels):\n    return {factor} * student.logits.mean()", space)
    first, again, other = (declared(space["my_loss"]) for space in made)
    assert first == again != other


def recipe(**changes):
    known = {
        "benchmark": "folder:/a",
        "target": "w",
        "seed": 0,
        "validation": 0.2,
        "classes": ["x"],
        "fingerprint": "f",
    }
    return {**known, "sources": ["n", "s"], **changes}


def test_splits_are_compared_by_content():
    assert other_split(recipe(), recipe(benchmark="folder:/b", options={"size": 3})) is None
    assert other_split(recipe(), {k: v for k, v in recipe().items() if k != "sources"}) is None
    for key, value in {"fingerprint": "g", "target": "s", "seed": 1, "validation": 0.3, "sources": ["n"]}.items():
        assert other_split(recipe(), recipe(**{key: value})) == key


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({}, None),
        ({"seen": [1]}, None),
        ({"split": recipe(benchmark="folder:/b")}, None),
        ({"student": {"name": "n", "weights": "/b/w.pth", "started_from": "w (SHA-256 1)"}}, None),
        ({"student": {"name": "n", "weights": "/a/w.pth", "started_from": "w (SHA-256 2)"}}, "student="),
        ({"split": recipe(fingerprint="g")}, "another split: fingerprint 'f', this call has 'g'"),
        ({"identity": {"structure": "a", "initial": [1.5]}}, "other initial parameters"),
        ({"identity": {"structure": "b", "initial": [0.5]}}, "another structure"),
        ({"code": {"mine": "b"}}, "another version of mine: its source was edited since, or"),
        (
            {"teacher": {"run": "t", "fingerprint": "a", "buffers": [0.7], "split": recipe()}},
            "another teacher, of other buffers",
        ),
        ({"teacher": None}, "a teacher, and this call has none"),
        ({"steps": 3}, "steps=2, this call has 3"),
    ],
)
def test_two_trainings_differ_by_content_and_in_words(change, sentence):
    recorded = {
        "steps": 2,
        "student": {"name": "n", "weights": "/a/w.pth", "started_from": "w (SHA-256 1)"},
        "identity": {"structure": "a", "initial": [0.5]},
        "code": {"mine": "a"},
        "split": recipe(),
        "teacher": {"run": "t", "fingerprint": "a", "buffers": [0.5], "split": recipe()},
    }
    asked = {
        **recorded,
        "teacher": {"run": "u", "fingerprint": "a", "buffers": [0.50001], "split": recipe(benchmark="digits")},
    }
    found = difference(recorded, {**asked, **change})
    assert found is None if sentence is None else sentence in found, found
    before = {key: value for key, value in recorded.items() if key not in ("identity", "code")}
    before["teacher"] = {"run": "t", "fingerprint": "a"}
    assert difference(before, asked) is None


def saw(**changes):
    return mark(nn.Identity(), {"split": recipe(**changes)})


@pytest.mark.parametrize(
    ("teacher", "leaks"),
    [
        ({}, False),
        ({"sources": ["n", "west"]}, True),
        ({"sources": ["west"], "fingerprint": "other size", "classes": ["other"]}, False),
        ({"sources": ["west"], "fingerprint": "other size"}, False),
        ({"sources": ["west"], "fingerprint": "other size", "benchmark": None}, True),
        ({"sources": ["north"], "fingerprint": "x", "contents": {"north": "of west"}}, True),
        ({"sources": ["west"], "fingerprint": "x", "contents": {"west": "others"}, "kind": ""}, False),
    ],
)
def test_what_a_teacher_has_seen_is_decided_by_content(split, teacher, leaks):
    given = {"classes": list(split.classes), "fingerprint": split.domains.fingerprint, "sources": ["north"], **teacher}
    ours = copy.copy(split)
    known = {**split.recipe, "contents": {"west": "of west"}, "kind": "", "benchmark": None}
    object.__setattr__(ours, "__class__", type("Known", (type(split),), {"recipe": property(lambda self: known)}))
    if leaks:
        with pytest.raises(ValueError, match=r"trained on 'west'.*, the domain that should be unseen here"):
            check_unseen(saw(**given), ours)
    else:
        check_unseen(saw(**given), ours)


def test_what_was_seen_is_handed_down_and_found_behind_wrappers(domains, split):
    other = wk.leave_one_out(domains, "north", seed=0)
    first = mark(nn.Identity(), {"split": {**other.recipe, "sources": list(other.sources)}})
    second = mark(
        nn.Identity(),
        {"split": {**split.recipe, "sources": list(split.sources)}, "seen": seen_in_training(split, first)},
    )
    assert {one["domain"] for one in seen_by(second)} == {"north", "east", "south", "west"}
    for wrapped in (second, as_tap(second), nn.DataParallel(second), torch.compile(second, backend="eager")):
        with pytest.raises(ValueError, match="The teacher, or a model that it learned from, was trained on 'west'"):
            check_unseen(wrapped, split)
    assert provenance_of(nn.Identity()) is None


def tiny(split, **settings):
    return wk.build_model("resnet10t", len(split.classes), seed=0, **TINY, **settings)


def quick(student, split, folder, **settings):
    known = {
        "steps": 4,
        "segment_length": 2,
        "batch_size": 8,
        "batchnorm_batches": 2,
        "device": "cpu",
        "progress": False,
    }
    return wk.train(student, split, save_to=folder, **{**known, **settings})


@pytest.fixture(scope="module")
def leaking(domains, tmp_path_factory):
    """A run that has seen west, as a run, as an exported file and as a folder for timm's hub."""
    other = wk.leave_one_out(domains, "north", seed=0)
    folder = tmp_path_factory.mktemp("leaks")
    run = quick(tiny(other), other, folder / "teacher")
    wk.export(run, wk.averaging.last(run.source_curves), folder / "teacher.safetensors", split=other, scores=False)
    wk.export(run, wk.averaging.last(run.source_curves), folder / "hub", split=other, scores=False)
    return run


LEAK = "or a model that it learned from, was trained on 'west', the domain that should be unseen here"


def test_a_teacher_that_saw_the_target_is_refused_however_it_is_handed_over(leaking, domains, split, tmp_path):
    exported = wk.build_model("resnet10t", 4, weights=leaking.folder.with_suffix(".safetensors"), **TINY)
    trained = tiny(split)
    quick(trained, wk.leave_one_out(domains, "north", seed=0), tmp_path / "in memory")
    for teacher in (leaking, leaking.model(), leaking.model().model, exported, exported.model, trained):
        with pytest.raises(ValueError, match=f"The teacher, {LEAK}"):
            quick(tiny(split), split, tmp_path / "run", objectives="kd", teacher=teacher)
    assert [path.name for path in tmp_path.iterdir()] == ["in memory"]


class Around(nn.Module):
    """Networks under names of one's own."""

    def __init__(self, *backbones):
        super().__init__()
        self.backbones = nn.ModuleList(backbones)

    def forward(self, images):
        return sum(backbone(images, maps=False).logits for backbone in self.backbones)


def test_what_a_network_within_a_module_saw_is_known_and_handed_down(leaking, domains, split, tmp_path):
    around, body = Around(tiny(split), leaking.model()), nn.Sequential(leaking.model().model)
    for module in (around, body, Around(as_tap(leaking.model().model))):
        with pytest.raises(ValueError, match=f"The teacher, {LEAK}"):
            quick(tiny(split), split, tmp_path / "run", objectives="kd", teacher=module)
        with pytest.raises(ValueError, match=f"The student, {LEAK}"):
            quick(copy.deepcopy(module), split, tmp_path / "run")
    assert sources_seen(around, split) == ["east", "south"] and sources_seen(Around(tiny(split)), split) is None
    north = wk.leave_one_out(domains, "north", seed=1).only("east")
    for name, settings in {"taught": {"teacher": around, "objectives": "kd"}, "begun": {}}.items():
        student = tiny(split) if settings else around
        with pytest.warns(UserWarning, match=f"{'teacher' if settings else 'student'} was trained on .* of the"):
            run = quick(student, north, tmp_path / name, **settings)
        assert "west" in {one["domain"] for one in run.settings["seen"]}
        with pytest.raises(ValueError, match=f"The teacher, {LEAK}"):
            quick(tiny(split), split, tmp_path / "run", objectives="kd", teacher=student)


def test_a_student_that_starts_from_what_saw_the_target_is_refused(leaking, split, tmp_path):
    files = leaking.folder.with_suffix(".safetensors"), leaking.folder.with_name("hub") / "model.safetensors"
    wrapped_again = as_tap(leaking.model().model)
    for student in (
        *(tiny(split, weights=file) for file in files),
        leaking.model(),
        tiny(split, inherit=leaking.model(), by="channels"),
        tiny(split, inherit=wrapped_again, by="channels"),
    ):
        with pytest.raises(ValueError, match=f"The student, {LEAK}"):
            quick(student, split, tmp_path / "run")


def test_a_student_of_a_teacher_that_saw_the_target_is_refused_as_well(leaking, domains, split, tmp_path):
    north = wk.leave_one_out(domains, "north", seed=0).only("east")
    taught = quick(tiny(north), north, tmp_path / "taught", objectives="kd", teacher=leaking)
    assert "west" in {one["domain"] for one in taught.settings["seen"]}
    started = quick(taught.model(), wk.leave_one_out(domains, "north", seed=0).only("south"), tmp_path / "started")
    for teacher in (taught, wk.load_run(started.folder, split=started.split)):
        with pytest.raises(ValueError, match=f"The teacher, {LEAK}"):
            quick(tiny(split), split, tmp_path / "run", objectives="kd", teacher=teacher)


def test_a_file_that_is_not_the_one_of_its_card_is_refused(leaking, tmp_path):
    file = shutil.copy(leaking.folder.with_suffix(".safetensors"), tmp_path)
    card = json.loads(leaking.folder.with_suffix(".safetensors.json").read_text())
    (tmp_path / "teacher.safetensors.json").write_text(json.dumps({**card, "sha256": "0" * 64}))
    with pytest.raises(ValueError, match="is not the file that the card beside it describes"):
        wk.build_model("resnet10t", 4, weights=file, **TINY)
    (tmp_path / "teacher.safetensors.json").write_text(json.dumps(card)[:100])
    with pytest.raises(ValueError, match="is cut off or was edited"):
        wk.build_model("resnet10t", 4, weights=file, **TINY)


def test_a_finished_run_of_another_network_or_start_is_not_handed_back(split, tmp_path):
    settings = {"resume": True, "batchnorm": "frozen"}
    run = quick(net(nn.ReLU()), split, tmp_path / "run", **settings)
    assert quick(net(nn.ReLU()), split, tmp_path / "run", **settings).settings == run.settings
    for other, sentence in (
        (net(nn.Tanh()), "another structure"),
        (net(nn.ReLU(), seed=1), "other initial parameters"),
    ):
        with pytest.raises(ValueError, match=sentence):
            quick(other, split, tmp_path / "run", **settings)


def test_a_teacher_with_other_statistics_or_normalisation_does_not_resume(split, tmp_path):
    def taught(teacher):
        return quick(tiny(split), split, tmp_path / "run", objectives="kd", teacher=teacher, resume=True)

    taught(tiny(split))
    shifted, other = tiny(split), tiny(split)
    shifted.model.bn1.running_mean.add_(1)
    other.mean.add_(0.3)
    for teacher in (shifted, other):
        with pytest.raises(ValueError, match="another teacher, of other buffers"):
            taught(teacher)
    taught(tiny(split))


def test_a_teacher_of_a_file_that_was_moved_is_the_same_teacher(split, tmp_path):
    file = tmp_path / "here.safetensors"
    save_file(dict(tiny(split).model.state_dict()), file)

    def taught():
        teacher = wk.build_model("resnet10t", split.classes, weights=file, **TINY)
        return quick(tiny(split), split, tmp_path / "run", objectives="kd", teacher=teacher, resume=True)

    run = taught()
    file = file.rename(tmp_path / "there.safetensors")
    assert taught().settings == run.settings


def test_a_run_in_another_place_is_the_same_run(tmp_path):
    def split_at(folder):
        return wk.leave_one_out(wk.load_domains(f"folder:{folder}", size=16), "south", seed=0)

    here = split_at(small_images(tmp_path / "images"))
    run = quick(tiny(here), here, tmp_path / "run")
    there = split_at((tmp_path / "images").rename(tmp_path / "moved"))
    again = quick(tiny(there), there, tmp_path / "run", resume=True)
    assert again.settings["split"]["benchmark"] == run.settings["split"]["benchmark"] != there.recipe["benchmark"]
    taught = quick(tiny(there), there, tmp_path / "taught", objectives="kd", teacher=tmp_path / "run")
    other = wk.leave_one_out(there.domains, "north", seed=0)
    with pytest.raises(ValueError, match="was trained on 'north', the domain that should be unseen"):
        quick(tiny(other), other, tmp_path / "leak", objectives="kd", teacher=taught)


def test_a_measurement_is_of_a_recording(leaking):
    before = of_recording(leaking)
    assert of_recording(wk.load_run(leaking.folder, split=leaking.split)) == before
    for changed in ("table", "index", "settings"):
        run = wk.load_run(leaking.folder, split=leaking.split)
        if changed == "table":
            run.table.loc[0, "seconds"] += 1
        elif changed == "index":
            run.segments.index.pop()
        else:
            run.settings["batchnorm_batches"] = 9
        assert of_recording(run) != before, changed


class TwoHeaded(nn.Module):
    """Gives a second head while it is trained, as GoogLeNet does."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 4)

    def forward(self, images):
        z = self.head(images.mean((2, 3)))
        return (z, z) if self.training else z


def test_a_head_that_is_there_in_training_only_is_refused_before_anything_is_made(split, tmp_path):
    with pytest.raises(TypeError, match=r"In training mode, TwoHeaded returned tuple; expected \(n, classes\) logits"):
        quick(TwoHeaded(), split, tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_an_adapter_whose_read_gives_no_output_is_refused(split, tmp_path):
    student = Adapter(TwoHeaded(), lambda model, images: model.head(images.mean((2, 3))))
    with pytest.raises(TypeError, match="read of TwoHeaded returned Tensor; expected an Output"):
        quick(student, split, tmp_path / "run")
