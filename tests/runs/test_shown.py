"""Mixed batches in training: what is picked, who hears what, and that a stopped run goes on bit for bit."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import wakd_kit as wk
from wakd_kit.checks import make
from wakd_kit.data.augment import VARIATIONS, views_from
from wakd_kit.models.tap import Output
from wakd_kit.names import ParameterError
from wakd_kit.objectives import combine, declare, objectives
from wakd_kit.runs import teacher as taught
from wakd_kit.runs.settings import Settings
from wakd_kit.runs.shown import Shown

from .stopped import quick, stopped_and_resumed
from .victims import small_split

KD_OF_BOTH = ["ce", {"name": "kd", "weight": 0.9}, {"name": "kd", "on": "mixed"}]
PICK = {"name": "cutmix", "apart": True, "pick": "student"}


@pytest.fixture(scope="module")
def split():
    return small_split()


@pytest.fixture(scope="module")
def teacher(split, tmp_path_factory):
    return quick(split, tmp_path_factory.mktemp("teacher") / "run")


class Grey(torch.nn.Module):
    """A network whose logits are the mean of each channel, times a factor."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor))

    def forward(self, x, maps=True):
        logits = self.factor * x.mean((2, 3))
        return Output(logits, logits)


def shown(second, **settings):
    objectives = [{"name": "ce", "on": "mixed"}] if second else ["ce"]
    made = make(Settings, {"second": second, "objectives": objectives, **settings})
    return Shown(views_from("none"), made, Grey(9.0), Grey(-30.0), 3)


def entropy(logits):
    return torch.distributions.Categorical(logits=logits).entropy()


def divergence(images, temperature):
    log_s, log_t = (F.log_softmax(network(images).logits / temperature, 1) for network in (Grey(9.0), Grey(-30.0)))
    return F.kl_div(log_s, log_t, log_target=True, reduction="none").sum(1)


WORTH = {
    "student": lambda images: entropy(Grey(9.0)(images).logits),
    "teacher": lambda images: entropy(Grey(-30.0)(images).logits),
    "divergence": lambda images: divergence(images, 2.0),
}


@pytest.mark.parametrize("pick", WORTH)
def test_of_a_pool_the_batch_with_the_largest_worth_is_kept(pick):
    rng = np.random.default_rng(1)
    images, labels = torch.from_numpy(rng.integers(0, 255, (6, 8, 8, 3)).astype(np.uint8)), torch.arange(6) % 3
    second = {"name": "cutmix", "per": "example", "pool": 3, "temperature": 2.0}
    x, (own, soft) = shown({**second, "pick": pick})(images, labels, torch.Generator().manual_seed(4))
    assert torch.equal(own, labels) and x.shape == (12, 3, 8, 8) and soft.shape == (6, 3)
    # the same draws, one batch after the other, nothing picked
    generator = torch.Generator().manual_seed(4)
    everything = shown({**second, "pick": None})
    one = everything(images, labels, generator)
    pool_rng = np.random.default_rng(_seed(4))
    pool = [everything._second(x[:6], labels, pool_rng) for _ in range(3)]
    assert torch.equal(one[0][6:], pool[0][0])
    candidates, labels_of = torch.cat([p[0] for p in pool]), torch.cat([p[1] for p in pool])
    worth = WORTH[pick](candidates).detach()
    best = worth.argsort()[-6:]
    assert torch.equal(x[6:], candidates[best]) and torch.equal(soft, labels_of[best])
    assert worth[best].min() >= worth[[i for i in range(18) if i not in best]].max()


def _seed(seed):
    """What mixes are seeded with: the draw after those of the views."""
    from wakd_kit.data.augment import drawn

    generator = torch.Generator().manual_seed(seed)
    drawn(6, views_from("none"), generator)
    return int(torch.randint(2**62, (), generator=generator))


def test_terms_learn_from_the_batch_that_they_say():
    z, t = torch.randn(6, 3), torch.randn(6, 3)
    labels, soft = torch.arange(4) % 3, torch.tensor([[0.3, 0.7, 0], [0, 0, 1.0]])
    total, terms = combine([*KD_OF_BOTH, {"name": "ce", "on": "mixed"}])(z, t, (labels, soft))
    kd = objectives.get("kd")
    by_hand = [F.cross_entropy(z[:4], labels), kd(z[:4], t[:4]), kd(z[4:], t[4:]), F.cross_entropy(z[4:], soft)]
    assert [*terms] == ["ce[on=views]", "kd[on=views]", "kd[on=mixed]", "ce[on=mixed]"]
    torch.testing.assert_close(torch.stack([*terms.values()]), torch.stack(by_hand))
    torch.testing.assert_close(total, by_hand[0] + 0.9 * by_hand[1] + by_hand[2] + by_hand[3])
    assert combine("ce").specs == [{"name": "ce", "weight": 1.0, "label_smoothing": 0.0}], "as before there was another"


@pytest.mark.parametrize(
    "settings",
    [
        {"mix": {"name": "mixup", "alpha": 0.3, "share": 0.5}, "objectives": ["ce", "kd"]},
        {"second": PICK, "objectives": KD_OF_BOTH},
        {"mix": {"name": "cutmix"}, "second": {"name": "mixup", "pick": "divergence"}, "objectives": KD_OF_BOTH},
        {"second": {"name": "learned"}, "objectives": [*KD_OF_BOTH, {"name": "moments", "on": "mixed"}]},
    ],
    ids=["mixup", "CutMixPick", "both", "learned"],
)
def test_a_mixed_training_stopped_anywhere_resumes_bit_equal(split, teacher, tmp_path, monkeypatch, settings):
    run = stopped_and_resumed(split, tmp_path, monkeypatch, after=6, teacher=teacher, **settings)
    assert run.table.filter(like="train/").notna().all(axis=None)
    plain = quick(split, tmp_path / "plain", teacher=teacher, objectives=["ce", "kd"])
    ends = [r.segments.read(1, "end") for r in (run, plain)]
    assert not all(torch.equal(ends[0][n], ends[1][n]) for n in ends[0])


def test_the_teacher_hears_what_the_student_sees_and_is_kept_where_that_is_known(split, teacher, tmp_path, monkeypatch):
    monkeypatch.setenv("WAKD_CACHE", str(tmp_path / "cache"))
    asked, seen, ask = [], [], taught.Heard.__call__

    def spied(heard, step, x, *batch, **of_batch):
        seen.append(x.clone())
        before = len(asked)
        output = ask(heard, step, x, *batch, **of_batch)
        with torch.no_grad():  # at the last bit batches of another size would be others
            assert torch.allclose(output.logits, heard.teacher(x, maps=False).logits, atol=1e-5)
        del asked[before + 1 :]
        return output

    monkeypatch.setattr(taught.Heard, "__call__", spied)
    mixed = {"objectives": KD_OF_BOTH, "steps": 4, "teacher": teacher}
    quick(split, tmp_path / "one", second={"name": "mixup"}, **mixed)
    assert [len(x) for x in seen] == [16] * 4
    kept = [about for about in (tmp_path / "cache" / "teachers").glob("*/logits-*")]
    assert len(kept) == 1 and taught.read_state(kept[0])["values"].shape == (4, 16, 3)
    series = []
    write = taught.Series.add
    monkeypatch.setattr(taught.Series, "add", lambda *given: (series.append(given[1]), write(*given)))
    quick(split, tmp_path / "two", second={"name": "mixup"}, learning_rate=0.1, **mixed)
    assert not series, "the second student reads what the first has asked"
    quick(split, tmp_path / "other", second={"name": "mixup", "alpha": 0.5}, **mixed)
    assert len(series) == 4, "other mixes, other answers"
    quick(split, tmp_path / "picked", second=PICK, **mixed)
    assert len(series) == 4 and len([*(tmp_path / "cache" / "teachers").glob("*/logits-*")]) == 2


class Brightness(torch.nn.Module):
    """A network that tells two classes by the mean of all channels, as surely as its factor says, or not at all by hue."""

    def __init__(self, factor):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor))

    def forward(self, x, maps=True):
        bright = self.factor * (x.mean((1, 2, 3)) - 0.5)
        logits = torch.stack([-bright, bright], 1)
        return Output(logits, logits)


@pytest.mark.parametrize(("teacher", "student", "stronger"), [(0.0, 20.0, True), (20.0, 0.0, False)])
def test_views_are_learned_that_the_teacher_knows_and_the_student_does_not(teacher, student, stronger):
    views = views_from({**views_from("none").settings(), "brightness": 0.3})
    made = make(
        Settings, {"second": {"name": "learned", "learning_rate": 0.05}, "objectives": [{"name": "ce", "on": "mixed"}]}
    )
    networks = Brightness(student).train(), Brightness(teacher).eval()
    show = Shown(views, made, *networks, 2)
    images = (
        torch.tensor([110, 145], dtype=torch.uint8).repeat(32)[:, None, None, None].expand(-1, 8, 8, 3).contiguous()
    )
    labels, generator = (images[:, 0, 0, 0] > 127).long(), torch.Generator().manual_seed(0)

    def gap():
        with torch.no_grad():
            x = show.learned(images, torch.Generator().manual_seed(1))
            return float(
                F.cross_entropy(networks[1](x).logits, labels) - F.cross_entropy(networks[0](x).logits, labels)
            )

    before = gap()
    assert show.learned.columns() == dict.fromkeys((f"views/{name}" for name in VARIATIONS), 1.0)
    for _ in range(40):
        x, (own, again) = show(images, labels, generator)
    assert x.shape == (128, 3, 8, 8) and torch.equal(own, labels) and torch.equal(again, labels) and not x.requires_grad
    moved = show.learned.columns()
    assert moved["views/brightness"] > 2 if stronger else moved["views/brightness"] < 0.5
    assert moved["views/rotation"] == 1.0, "what the views do not vary has no strength to learn"
    assert gap() < before - 0.02
    assert networks[0].training and not networks[1].training
    assert all(p.grad is None for network in networks for p in network.parameters())


def test_strengths_are_told_along_the_run_and_reach_no_further(split, teacher, tmp_path):
    second = {"name": "learned", "learning_rate": 10.0, "reach": 2.0}
    table = quick(split, tmp_path / "run", teacher=teacher, objectives=KD_OF_BOTH, second=second).table
    strengths = table.filter(like="views/")
    assert [*strengths] == [f"views/{name}" for name in VARIATIONS] and (strengths.iloc[-1] != 1).any()
    assert strengths.min(axis=None) >= 0.5 and strengths.max(axis=None) <= 2


@pytest.fixture(autouse=True)
def most_likely(monkeypatch):
    """An objective of one's own that reads labels as classes."""
    for known in ("_entries", "_about"):
        monkeypatch.setattr(objectives, known, dict(getattr(objectives, known)))

    @declare(kind="labels", needs="labels", source="a test")
    def most_likely(student, teacher, labels):
        return F.cross_entropy(student.logits, labels if labels.ndim == 1 else labels.max(1).indices)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"mix": {"name": "mixupp"}}, "Did you mean 'mixup'"),
        ({"mix": {"name": "mixup", "alpha": 0}}, "alpha is a positive number; got 0"),
        ({"mix": {"name": "mixup", "share": 1.5}}, "share is a number from 0 to 1; got 1.5"),
        ({"mix": "mixup"}, "expected dict or None"),
        ({"mix": {"name": "mixup"}, "batch_size": 1}, "at least 2; got batch_size 1"),
        ({"second": {"name": "cutmix", "pool": 5}, "objectives": [{"name": "ce", "on": "mixed"}]}, "pool decides nothing without pick"),
        ({"second": {"name": "cutmix", "temperature": 9.0}, "objectives": [{"name": "ce", "on": "mixed"}]}, "leave out temperature=9.0"),
        ({"second": {"name": "mixup"}}, 'There is second, and no objective with "on": "mixed"'),
        ({"objectives": ["ce", {"name": "ce", "on": "mixed"}]}, "There is on: mixed, and no second"),
        ({"objectives": [{"name": "ce", "on": "mix"}]}, "on of objective 'ce' is one of 'views', 'mixed'; got 'mix'"),
        ({"mix": {"name": "mixup"}, "objectives": ["ce", "xded"]}, "xded reads the largest class of a label of each image"),
        ({"mix": {"name": "cutmix"}, "objectives": "most_likely"}, "most_likely reads the largest class of a label"),
        ({"mix": {"name": "mixup", "labels": "own"}, "objectives": ["ce", "moments"]}, "moments reads the domains of each image"),
        ({"second": {"name": "mixup", "pick": "teacher"}, "objectives": [{"name": "ce", "on": "mixed"}]}, "there is no teacher"),
        ({"second": {"name": "learned"}, "objectives": [{"name": "ce", "on": "mixed"}]}, "there is no teacher; pass teacher="),
        ({"second": {"name": "learned", "reach": 0.5}, "objectives": [{"name": "ce", "on": "mixed"}]}, "reach is at least 1; got 0.5"),
        ({"second": {"name": "learned", "alpha": 1.0}, "objectives": [{"name": "ce", "on": "mixed"}]}, "alpha"),
    ],
)  # fmt: skip
def test_mixes_that_cannot_be_are_a_sentence(split, tmp_path, change, sentence):
    with pytest.raises((ParameterError, ValueError), match=sentence):
        quick(split, tmp_path / "run", **change)
    assert not list(tmp_path.iterdir())


def test_images_mixed_alone_leave_labels_to_who_reads_the_largest(split, tmp_path):
    run = quick(
        split, tmp_path / "run", mix={"name": "mixup", "labels": "own"}, objectives=["ce", "most_likely"], steps=4
    )
    assert np.isfinite(run.table["train/most_likely"]).all() and (run.table["train/most_likely"] > 0).all()


def test_a_run_recorded_before_there_were_mixes_is_accepted_and_no_other(split, tmp_path):
    import json

    run = quick(split, tmp_path / "run", steps=4)
    file = run.folder / "settings.json"
    before = {k: v for k, v in json.loads(file.read_text()).items() if k not in ("mix", "second")}
    file.write_text(json.dumps(before))
    assert wk.load_run(run.folder).settings == quick(split, tmp_path / "run", steps=4, resume=True).settings
    with pytest.raises(ValueError, match="mix=None, this call has"):
        quick(split, tmp_path / "run", steps=4, resume=True, mix={"name": "mixup"})
