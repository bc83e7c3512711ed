"""What is kept of a teacher: bit for bit what it would give, paid once, bounded, and asked again where it is not whole."""

import itertools
import json
import os

import numpy as np
import pytest
import torch

import wakd_kit as wk
from wakd_kit.checks import make
from wakd_kit.cli import main
from wakd_kit.data.augment import views_from
from wakd_kit.models.build import as_tap
from wakd_kit.objectives import combine
from wakd_kit.objectives import objectives as REGISTRY
from wakd_kit.runs import settings as of_training
from wakd_kit.runs import teacher as taught
from wakd_kit.runs import train as training
from wakd_kit.runs.prepare import source_features
from wakd_kit.runs.settings import Settings
from wakd_kit.runs.teacher import Heard

from ..conftest import SMALL

BATCH, SIDE = 6, 32
CPU = torch.device("cpu")
PLAIN = {"teacher": "as it is", "validation": "float32"}
WRITE = taught.Series.write


def tiny(seed=0):
    return wk.build_model("resnet10t", 5, seed=seed, **SMALL)


@pytest.fixture(scope="module")
def split():
    found = {}
    for i, name in enumerate("abc"):
        rng, labels = np.random.default_rng(i), np.arange(30) % 5
        images = 40 * labels[:, None, None, None] + 20 * i + rng.normal(0, 30, (30, SIDE, SIDE, 3))
        found[name] = images.clip(0, 255).astype(np.uint8), labels
    return wk.leave_one_out(wk.domains_from_arrays(found, tuple("vwxyz")), "c", 0)


@pytest.fixture(scope="module")
def teacher():
    return tiny(seed=1)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WAKD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Asked:
    """Counts the batches of views that a teacher is shown; a hook would keep it from being kept at all."""

    def __init__(self, teacher, monkeypatch):
        self.batches = 0
        forward = type(teacher).forward

        def counted(tap, images, **options):
            self.batches += tap is teacher and len(images) == BATCH
            return forward(tap, images, **options)

        monkeypatch.setattr(type(teacher), "forward", counted)


def trained(split, teacher, folder, listed="kd", steps=3, **given):
    given = {"segment_length": 2, "batch_size": BATCH, "learning_rate": 1e-2, "batchnorm_batches": 1, **given}
    return wk.train(
        tiny(), split, objectives=listed, teacher=teacher, steps=steps, save_to=folder, device="cpu",
        progress=False, **given,
    )  # fmt: skip


def same(one, other):
    assert one.table.drop(columns="seconds").equals(other.table.drop(columns="seconds"))
    for k, which in itertools.product(range(len(one.segments)), ("mean", "end")):
        ours, theirs = one.segments.read(k, which), other.segments.read(k, which)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture(scope="module")
def filled(split, teacher, tmp_path_factory):
    """A cache that a first student has filled with all that is ever kept."""
    folder = tmp_path_factory.mktemp("filled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WAKD_CACHE", str(folder))
        asked = Asked(teacher, patch)
        trained(split, teacher, folder / "first", ["rkd", "prototypes"])
    assert asked.batches == 3
    return folder


def _reads(name):
    """What an objective reads of its teacher, and its own name where its student keeps a part of it: one at a time can."""
    about = REGISTRY.about(name)
    return *(what for what in ("maps", "pooled") if about.reads(what, "teacher")), *[name] * bool(about.tail)


# vl2v learns from a file, and from no teacher; this one, convolutional, has no attention to read
TAUGHT = [name for name in REGISTRY if name != "vl2v" and not REGISTRY.about(name).reads("attention", "student")]
ALIKE = {reads: [name for name in TAUGHT if _reads(name) == reads] for reads in sorted(map(_reads, TAUGHT))}


@pytest.mark.parametrize("reads", ALIKE, ids=" ".join)
def test_every_objective_learns_the_same_from_what_is_kept(split, teacher, filled, tmp_path, monkeypatch, reads):
    monkeypatch.setenv("WAKD_CACHE", str(filled))
    asked, listed = Asked(teacher, monkeypatch), ALIKE[reads]
    without = trained(split, teacher, tmp_path / "without", listed, teacher_cache=0)
    assert asked.batches == 3 and {f"train/{name}" for name in listed} <= {*without.table}
    same(without, trained(split, teacher, tmp_path / "with", listed))
    assert asked.batches == (6 if "maps" in reads else 3)


def test_the_first_student_records_what_it_would_without(split, teacher, cache, tmp_path):
    without = trained(split, teacher, tmp_path / "without", ["kd", "rkd"], teacher_cache=0)
    assert not cache.exists()
    first = trained(split, teacher, tmp_path / "first", ["kd", "rkd"])
    same(without, first)
    (folder,) = (cache / "teachers").iterdir()
    kept = {"about.json", "validation.safetensors"}
    kept |= {f"{name}-0000001-0000003.safetensors" for name in ("logits", "pooled")}
    assert {file.name for file in folder.iterdir()} == kept
    assert "teacher_cache" not in first.settings
    trained(split, teacher, tmp_path / "first", ["kd", "rkd"], teacher_cache=1.0, resume=True)  # the same run


def test_validation_and_centres_are_asked_once(split, teacher, filled, monkeypatch):
    monkeypatch.setenv("WAKD_CACHE", str(filled))
    combined, settings = combine("prototypes"), make(Settings, {"batch_size": BATCH, "views": _views(split)})
    expected = source_features(teacher, split), torch.cat([torch.from_numpy(e.labels) for e in split.train.values()])
    monkeypatch.setattr(type(teacher), "forward", None)
    heard = Heard(teacher, split, combined, settings, CPU, PLAIN)
    assert all(torch.equal(*pair) for pair in zip(heard.features(), expected))
    assert heard.validation().shape == (sum(len(e) for e in split.val.values()), 5)


def _views(split):
    return views_from(split.domains.views).settings()


def test_a_longer_training_asks_only_for_what_is_new(split, teacher, cache, tmp_path, monkeypatch):
    trained(split, teacher, tmp_path / "short", steps=3)
    asked = Asked(teacher, monkeypatch)
    long = trained(split, teacher, tmp_path / "long", steps=5)
    assert asked.batches == 2
    same(trained(split, teacher, tmp_path / "without", steps=5, teacher_cache=0), long)
    assert sorted(f.name[:22] for f in cache.rglob("logits*")) == ["logits-0000001-0000003", "logits-0000004-0000005"]


def test_what_a_kill_has_lost_is_asked_again_and_no_more(split, teacher, cache, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def dies(row):
        if row["step"] == 4:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(training, "SECONDS", 0)  # a checkpoint with every segment
        patch.setattr(taught, "PIECE", 1)  # every step a file, the last of which a kill has no time for
        patch.setattr(taught.Series, "write", lambda series: series.begin > 2 or WRITE(series))
        trained(split, teacher, tmp_path / "run", steps=7, sink=dies)
    assert sorted(f.name[:22] for f in cache.rglob("logits*")) == ["logits-0000001-0000001", "logits-0000002-0000002"]
    asked = Asked(teacher, monkeypatch)
    resumed = trained(split, teacher, tmp_path / "run", steps=7, resume=True)
    assert asked.batches == 3
    after = trained(split, teacher, tmp_path / "after", steps=7)
    assert asked.batches == 3 + 2  # 3 and 4, before the checkpoint that it went on from
    without = trained(split, teacher, tmp_path / "without", steps=7, teacher_cache=0)
    same(without, resumed)
    same(without, after)


def test_two_students_side_by_side(split, teacher, cache, monkeypatch):
    monkeypatch.setattr(taught, "PIECE", 1)
    monkeypatch.setattr(taught, "LOOK", 2)
    settings = make(Settings, {"batch_size": BATCH, "views": _views(split)})
    views = torch.rand(9, BATCH, 3, SIDE, SIDE)
    with torch.no_grad():
        teacher.eval()
        expected = [teacher(x, maps=False).logits for x in views]
    one, other = (Heard(teacher, split, combine("kd"), settings, CPU, PLAIN) for _ in range(2))
    asked = Asked(teacher, monkeypatch)
    for step in range(1, 9):  # the other is a step behind, so that it looks before and after the file is there
        assert torch.equal(one(step, views[step]).logits, expected[step])
        if step > 1:
            assert torch.equal(other(step - 1, views[step - 1]).logits, expected[step - 1])
    assert 8 <= asked.batches < 16


@pytest.mark.parametrize("how", ["cut", "changed", "empty", "other"])
def test_a_file_that_is_not_whole_is_asked_again(split, teacher, cache, tmp_path, monkeypatch, how):
    first = trained(split, teacher, tmp_path / "first")
    (file,) = cache.rglob("logits*")
    whole = file.read_bytes()
    file.write_bytes(
        {"cut": whole[:-7], "changed": whole[:-1] + bytes([whole[-1] ^ 1]), "empty": b"", "other": b"x" * 99}[how]
    )
    asked = Asked(teacher, monkeypatch)
    same(first, trained(split, teacher, tmp_path / "second"))
    assert asked.batches == 3 and file.read_bytes() == whole


def _folders(cache):
    return sorted(path.name for path in (cache / "teachers").iterdir())


@pytest.mark.parametrize(
    "given",
    [{"seed": 1}, {"batch_size": 8}, {"sampling": "balanced"}, {"views": "none"}, {"precision": "bfloat16"}],
    ids=str,
)
def test_other_views_or_numbers_are_kept_apart(split, teacher, cache, tmp_path, given):
    trained(split, teacher, tmp_path / "first", steps=2)
    trained(
        split,
        teacher,
        tmp_path / "same",
        ["dkd", "ce"],
        steps=2,
        learning_rate=0.1,
        optimiser="sgd",
        warmup=1,
        freeze="head",
    )
    assert len(_folders(cache)) == 1
    trained(split, teacher, tmp_path / "other", steps=2, **given)
    assert len(_folders(cache)) == 2


def test_the_last_bit_of_a_teacher_counts_and_so_do_images_threads_and_its_size(split, teacher, monkeypatch):
    settings = make(Settings, {"views": _views(split)})

    def key(tap=teacher, of=split, given=settings):
        return json.dumps(taught._key(tap, of, given, CPU, PLAIN))

    keys = [
        key(),
        key(of=wk.leave_one_out(split.domains, "b", 0)),
        key(of=split.only("a")),
        key(tiny(seed=2)),
    ]
    changed = tiny(seed=1)
    assert key(changed) == keys[0]
    norm = next(m for m in changed.modules() if hasattr(m, "running_mean"))
    norm.running_mean.copy_(norm.running_mean.nextafter(torch.tensor(9.0)))
    keys.append(key(changed))
    larger = tiny(seed=1)
    larger.size = (48, 48)
    keys.append(key(larger))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    keys.append(key())
    assert len(set(keys)) == len(keys)


def test_a_setting_that_nobody_thought_of_is_part_of_the_key():
    assert {taught.inside, taught.prepare} < {*taught.CODE}
    assert set(of_training.NAMES) >= taught.ASIDE >= {*of_training.NOT_RECORDED}
    assert set(of_training.NAMES) - taught.ASIDE >= {"seed", "batch_size", "sampling", "views", "precision"}


class Dropping(torch.nn.Module):
    """Draws in eval as well."""

    def __init__(self):
        super().__init__()
        self.classify = torch.nn.Linear(3, 5)

    def forward(self, images):
        return torch.nn.functional.dropout(self.classify(images.mean((2, 3))), 0.5, training=True)


def test_a_teacher_that_draws_or_has_hooks_is_asked_at_every_step(split, cache, tmp_path):
    trained(split, as_tap(Dropping()), tmp_path / "draws")
    hooked = tiny(seed=1)
    hooked.model.register_forward_hook(lambda module, given, output: None)
    trained(split, hooked, tmp_path / "hooked")
    assert not list(cache.rglob("*.safetensors"))


def test_a_teacher_that_nothing_is_learned_from_is_said(split, teacher, tmp_path):
    with pytest.warns(UserWarning, match=r"Nothing is learned from the teacher by \['ce'\], it only measures"):
        run = trained(split, teacher, tmp_path / "ce", "ce", steps=2)
    assert "val_kd_loss" in run.table


def test_nothing_exceeds_the_bound_and_the_oldest_goes_first(split, teacher, cache, tmp_path):
    trained(split, teacher, tmp_path / "0", steps=2)
    size = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
    (first,) = _folders(cache)
    for seed in (1, 2):
        os.utime(cache / "teachers" / first, (seed, seed))
        trained(split, teacher, tmp_path / str(seed), steps=2, seed=seed, teacher_cache=2.5 * size / 1e9)
    assert first not in _folders(cache) and len(_folders(cache)) == 2
    with pytest.warns(
        UserWarning, match=r"teacher_cache=1e-06 GB are full: what the teacher gives from here on is not kept"
    ):
        full = trained(split, teacher, tmp_path / "full", steps=2, seed=3, teacher_cache=1e-6)
    same(full, trained(split, teacher, tmp_path / "without", steps=2, seed=3, teacher_cache=0))
    assert sum(file.stat().st_size for file in cache.rglob("*.safetensors")) <= 1000


def test_a_cache_that_cannot_be_written_is_said_and_does_without(split, teacher, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WAKD_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match=r"is not kept, and every student asks it: .*set WAKD_CACHE"):
        trained(split, teacher, tmp_path / "run")
    monkeypatch.setenv("WAKD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "teachers").write_text("")
    with pytest.warns(UserWarning, match=r"cannot be written \(Not a directory\)"):
        trained(split, teacher, tmp_path / "other")


def test_a_cache_of_another_user_is_read_and_stops_nothing(split, teacher, cache, tmp_path, monkeypatch):
    first = trained(split, teacher, tmp_path / "first", steps=2)
    (folder,), (file,) = (cache / "teachers").iterdir(), cache.rglob("logits*")
    left = folder / "logits.safetensors.01234567.part"
    left.write_text("x")
    os.utime(left, (1, 1))

    unlink = type(file).unlink

    def refused(path, *given, **settings):
        if "teachers" in str(path):
            raise PermissionError(1, "Operation not permitted")
        unlink(path, *given, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(os, "utime", refused)
        same(first, trained(split, teacher, tmp_path / "second", steps=2))
    assert not left.exists(), "what a killed student left"
    file.write_bytes(b"")
    with monkeypatch.context() as patch:
        patch.setattr(os, "utime", refused)
        patch.setattr(type(file), "unlink", refused)
        same(first, trained(split, teacher, tmp_path / "third", steps=2))


def test_doctor_lists_and_drops(split, teacher, cache, tmp_path, capsys):
    trained(split, teacher, tmp_path / "run")
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "what teachers gave 0.00 MB" in said and "(resnet10t), target c, seed 0, batches of 6" in said
    assert "wakd doctor --drop-teachers" in said
    assert main(["doctor", "--drop-teachers"]) == 0
    assert "batches of" not in capsys.readouterr().out and not list(cache.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("listed", "expected"),
    [("ce", 0), ("kd", 4 * 10 * 6 * 7), (["ce", "fitnet"], 0), ("rkd", 5e9), ("prototypes", 5e9)],
)
def test_what_it_takes_is_known_beforehand(listed, expected):
    settings = make(Settings, {"objectives": combine(listed).specs, "steps": 10, "batch_size": 6})
    assert taught.most_bytes(settings, 7) == expected


def test_what_a_run_deploys_is_calibrated_once(split, cache, tmp_path, monkeypatch):
    run = trained(split, None, tmp_path / "run", "ce", steps=4, teacher_cache=0)
    run.deploy(wk.averaging.window(run.source_curves, begin=0))
    model, settings = run.model(split=split), make(Settings, {})
    expected = model.state_dict()
    for time in range(2):
        found = taught.deployed(wk.load_run(run.folder, split=split), split, settings)
        assert found.provenance == model.provenance and not found.training
        assert all(torch.equal(tensor, expected[name]) for name, tensor in found.state_dict().items())
        if not time:
            monkeypatch.setattr("wakd_kit.runs.network.recalibrate", None)
    run.deploy(wk.averaging.window(run.source_curves, begin=2))
    with pytest.raises(TypeError):  # another average has others
        taught.deployed(run, split, settings)


def test_statistics_are_of_the_average_as_it_is_taken_now(split, cache, tmp_path, monkeypatch):
    run, settings = trained(split, None, tmp_path / "run", "ce", steps=4, teacher_cache=0), make(Settings, {})
    run.deploy(wk.averaging.window(run.source_curves, begin=0))
    taught.deployed(run, split, settings)
    taken = type(run)._weighted_sum

    def otherwise(self, *given):
        return {name: 1.5 * t if t.is_floating_point() else t for name, t in taken(self, *given).items()}

    monkeypatch.setattr(type(run), "_weighted_sum", otherwise)
    found, expected = taught.deployed(run, split, settings), run.model(split=split)
    assert all(torch.equal(*each) for each in zip(found.state_dict().values(), expected.state_dict().values()))


def test_a_teacher_is_calibrated_on_the_device_of_its_training(split, cache, tmp_path, monkeypatch):
    run = trained(split, None, tmp_path / "teacher", "ce", steps=4, teacher_cache=0)
    run.deploy(wk.averaging.window(run.source_curves, begin=0))
    asked = []
    monkeypatch.setattr("wakd_kit.runs.network.device_of", lambda given: asked.append(given) or CPU)
    trained(split, run, tmp_path / "student", "kd", steps=2)
    assert asked == [CPU], "not whatever there is"
