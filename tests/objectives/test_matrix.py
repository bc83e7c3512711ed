"""Every objective between every two of six model families: finite losses and gradients, or a sentence why not."""

import functools

import pytest
import torch

from tests.families import TINY, images, labels, tiny
from wakd_kit import objectives
from wakd_kit.objectives import combine

REGISTRY = objectives.objectives
ONLY_FROM = {"simkd": {"resnet"}}  # its teacher has to classify the plain mean of its last map
BETWEEN = {"qkv_relations": {"vit"}, "a2d": {"vit"}}  # whose attention is over all tokens
ONE_FAMILY = {"miro"}  # its teacher is the network that the student began as


@functools.cache
def teacher(family):
    return tiny(family, seed=1).eval()


@functools.cache
def seen(family, *, student=False):
    """What a model gives on the images, computed once; a student's may be differentiated with respect to it."""
    with torch.no_grad():
        return (tiny(family).eval() if student else teacher(family))(images(), maps="attention")


def leaf(values):
    return values.detach().clone().requires_grad_()


def as_leaves(output):
    return type(output)(*(tuple(map(leaf, v)) if isinstance(v, tuple) else leaf(v) for v in output))


def judge(name, student_family, teacher_family):
    theirs, combined = seen(teacher_family), combine(name)
    if teacher_family not in ONLY_FROM.get(name, TINY):
        with pytest.raises(ValueError, match=r"keeps the teacher's classifier on an averaged map; .* does not"):
            combined.extended(tiny(student_family), teacher(teacher_family))
        return
    ours = seen(student_family, student=True)
    if REGISTRY.about(name).tail:
        with torch.no_grad():
            ours = combined.extended(tiny(student_family), teacher(teacher_family))(images())
    ours = as_leaves(ours)
    if not {student_family, teacher_family} <= BETWEEN.get(name, {*TINY}):
        with pytest.raises(
            ValueError, match=r"attention of the .*, whose output has none\. timm's ViT and DeiT have it"
        ):
            combined.prepare(ours, theirs, steps=10)
        return
    if name in ONE_FAMILY and [m.shape for m in ours.maps] != [m.shape for m in theirs.maps]:
        with pytest.raises(ValueError, match="the network that it began as"):
            combined.prepare(ours, theirs, steps=10)
        return
    combined.prepare(ours, theirs, steps=10)
    combined.learn_centres(theirs.pooled, labels())
    combined.learn_examples(labels())
    of_batch = {"index": torch.arange(6), "domains": torch.eye(2).repeat(3, 1), "images": images()}
    loss, terms = combined(ours, theirs, labels(), step=5, **of_batch)
    loss.backward()
    found = [t.grad for t in (ours.logits, ours.pooled, *ours.maps, *ours.parts, *ours.attention) if t.grad is not None]
    assert loss.isfinite() and all(g.isfinite().all() for g in found)
    assert sum(g.abs().sum() for g in found) > 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in combined.parameters())
    assert set(terms) >= {name}


@pytest.mark.parametrize("student_family", TINY)
@pytest.mark.parametrize("teacher_family", TINY)
def test_every_objective_between_two_families(student_family, teacher_family):
    failed = []  # of all objectives: none hides those after it
    for name in [n for n in REGISTRY if n != "vl2v"]:  # which learns from a file: test_embeddings.py
        try:
            judge(name, student_family, teacher_family)
        except (Exception, pytest.fail.Exception) as problem:
            problem.add_note(name)
            failed.append(problem)
    if failed:
        raise BaseExceptionGroup("objectives that failed", failed)


@pytest.mark.parametrize("student_family", TINY)
def test_a_real_step_reaches_the_parameters_of_every_family(student_family):
    """One student of each family, one backward through the model itself for each of four kinds of objective."""
    student = tiny(student_family).train()
    for spec in ("kd", "fitnet", "rkd", "ofa"):
        student.zero_grad()
        combined = combine(spec)
        output = student(images())
        combined.prepare(output, seen("vit"), steps=2)
        combined(output, seen("vit"), labels(), step=1)[0].backward()
        reached = [n for n, p in student.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
        assert len(reached) > 3, spec
        assert all(p.grad is None or p.grad.isfinite().all() for p in student.parameters())


def test_an_objective_stands_in_the_file_of_its_kind():
    files = {
        "labels": {"logits"},
        "logits": {"logits", "batchwise"},
        "domain shift": {"shift"},
        "across domains": {"domains"},
    }
    for name in REGISTRY:
        package, _, file = REGISTRY.get(name).__module__.rpartition(".")
        kind = REGISTRY.about(name).kind
        assert package != "wakd_kit.objectives" or file in files.get(kind, {kind}), f"{name}, of {kind}, is in {file}"
