"""A step on an accelerator without one: tensors that say they are CUDA's and hold no numbers (torch's FakeTensors).

Operations that mix devices raise, and every copy between them and every number that the host reads is seen.
"""

import contextlib

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from wakd_kit.averaging import ema_recurrence
from wakd_kit.data import augment as module
from wakd_kit.data.augment import Views, augment
from wakd_kit.models.build import build_model, recalibrate, training_mode
from wakd_kit.objectives import combine, objectives
from wakd_kit.objectives.base import each_tensor
from wakd_kit.runs.record import Recorder

from ..families import SIDE, tiny
from ..objectives.test_matrix import ONE_FAMILY

CUDA = torch.device("cuda")


class Watch(TorchDispatchMode):
    """What goes from one device to another: ``copies`` are (from, to, shape), ``reads`` operations whose number the host
    waits for."""

    def __init__(self):
        super().__init__()
        self.copies, self.reads = [], []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, str(function)
        if name.startswith("aten._local_scalar_dense") and args[0].device.type == "cuda":
            self.reads.append(name)
        if name.startswith(("aten._to_copy", "aten.copy_")):
            source = args[1] if name.startswith("aten.copy_") else args[0]
            target = args[0].device if name.startswith("aten.copy_") else kwargs.get("device") or source.device
            if isinstance(source, torch.Tensor) and torch.device(target).type != source.device.type:
                self.copies.append((source.device.type, torch.device(target).type, tuple(source.shape)))
        return function(*args, **kwargs)


@contextlib.contextmanager
def on_cuda(*models: nn.Module):
    """The models' parameters and buffers as fake tensors of CUDA, and operations watched."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        for part in (part for model in models if model is not None for part in model.modules()):
            for kind in (part._parameters, part._buffers):
                for name, tensor in [(n, t) for n, t in kind.items() if t is not None]:
                    fake = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=CUDA)
                    trained = isinstance(tensor, nn.Parameter)
                    kind[name] = nn.Parameter(fake, requires_grad=tensor.requires_grad) if trained else fake
        try:
            with Watch() as watch:
                yield watch
        finally:
            module._ranges.cache_clear()  # what was computed here is fake


WAITS = {"lfme"}  # an expert's batch are its domain's images: how many the host has to know
# puts something after stages that are layers on maps; reads attention
ALIKE = ONE_FAMILY | {"a2d", "qkv_relations"}  # their teacher is of the same family
UNSUITED = {"vit": {"ccfp"}, "resnet": {"a2d", "qkv_relations"}}


@pytest.mark.parametrize("family", ["resnet", "vit"])
def test_every_objective_stays_on_the_device_and_the_host_waits_for_nothing(family):
    """On the outputs of one pair, in float32 and as autocast gives them; those with a tail on a student of their own.

    Gradients are not taken: without a device torch runs no backward pass of one.
    """
    teacher, combined = (
        tiny("resnet", seed=1).eval().requires_grad_(False),
        {name: combine(name) for name in objectives if name not in {"vl2v"} | WAITS | UNSUITED.get(family, set())},
    )
    students, images = {}, torch.rand(6, 3, SIDE, SIDE)
    twin = tiny(family, seed=1).eval().requires_grad_(False)  # for what compares a student with its own architecture
    with torch.no_grad():
        taught = {True: twin(images, maps="attention"), False: teacher(images)}
        for name, terms in combined.items():
            tail = name if objectives.about(name).tail else ""
            student = students.setdefault(tail, terms.extended(tiny(family), teacher))
            terms.prepare(student.eval()(images, maps="attention"), taught[name in ALIKE], steps=10)
            terms.learn_examples(torch.arange(20) % 5)
            training_mode(student, "recalibrate")
    with on_cuda(teacher, twin, *students.values(), *combined.values()) as watch:
        images = torch.empty(6, 3, SIDE, SIDE, device=CUDA)
        labels = index = torch.zeros(6, dtype=torch.long, device=CUDA)
        domains = torch.ones(6, 3, device=CUDA)
        ours = {tail: student(images, maps="attention") for tail, student in students.items()}
        theirs = {True: twin(images, maps="attention"), False: teacher(images)}
        found = {}
        for name, terms in combined.items():
            for kind in (torch.float32, torch.bfloat16):
                both = ours.get(name, ours[""]), theirs[name in ALIKE]
                pair = [each_tensor(output, lambda t: t.to(kind)) for output in both]  # noqa: B023
                loss, losses = terms(*pair, labels, step=5, index=index, domains=domains, images=images)
                found[name, kind] = {t.device.type for t in (loss, *losses.values())}
    assert {key: places for key, places in found.items() if places != {"cuda"}} == {} and len(found) > 80
    assert watch.reads == [] and watch.copies == []


def test_views_go_to_the_device_in_one_copy(monkeypatch):
    monkeypatch.setattr(module, "upload", lambda tensor, device: tensor.to(device))  # nothing is pinned without CUDA
    with on_cuda() as watch:
        images = torch.empty(4, 32, 32, 3, dtype=torch.uint8, device=CUDA)
        views = augment(images, Views(), torch.Generator())
        assert (views.device.type, views.shape) == ("cuda", (4, 3, 32, 32))
    assert watch.reads == [] and watch.copies == [("cpu", "cuda", (4 * (6 + 9 + 1 + 1) + 3,))]


def test_the_recorder_stays_on_the_device():
    model = tiny("resnet")
    with on_cuda(model) as watch:
        recorder = Recorder(model, [], [ema_recurrence(10, decay=0.9)])
        for _ in range(3):
            recorder.add()
        assert {total.device.type for total in recorder._sums.values()} == {"cuda"}
    assert watch.reads == [] and watch.copies == []


def test_recalibration_waits_for_nothing():
    model = tiny("resnet")
    with on_cuda(model) as watch:
        recalibrate(model, [torch.empty(4, 3, SIDE, SIDE, device=CUDA) for _ in range(3)])
    assert watch.reads == []


def test_a_seeded_model_begins_no_device(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)  # torch would ask both for the state of their noise
    state = torch.get_rng_state()
    assert build_model("resnet10t_w8", 2, seed=3).spec["seed"] == 3
    assert torch.equal(torch.get_rng_state(), state)


def test_a_watch_sees_what_the_host_waits_for():
    with on_cuda() as watch:
        with contextlib.suppress(Exception):  # there is no number to be had
            torch.ones((), device=CUDA).item()
        torch.ones(2).to(CUDA)
        with pytest.raises(RuntimeError, match="device"):
            torch.ones(2, device=CUDA) + torch.ones(2)
    assert len(watch.reads) == 1 and watch.copies == [("cpu", "cuda", (2,))]
