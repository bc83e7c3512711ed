"""DDK's shares: a table by hand, what is recorded of them, and that moving ones resume."""

import math

import numpy as np
import pytest
import torch

from wakd_kit.checks import make
from wakd_kit.data.batches import SourceBatches
from wakd_kit.files import Stopped
from wakd_kit.names import ParameterError
from wakd_kit.runs.gap import by_gap
from wakd_kit.runs.network import predict
from wakd_kit.runs.settings import Settings
from wakd_kit.runs.validate import scores

from .stopped import quick, stopped_and_resumed
from .victims import small_split


def test_three_updates_of_three_domains_by_hand():
    # perplexities of the student after each 1,000 steps, the teacher's are 2, 2, 4
    student, teacher = [[6, 4, 8], [4, 4, 8], [3, 4, 6], [2, 3, 6]], [2, 2, 4]
    e = math.exp
    shares = by_gap(np.divide(student[0], teacher))
    np.testing.assert_allclose(shares, np.array([e(3), e(2), e(2)]) / (e(3) + 2 * e(2)), rtol=1e-12)
    np.testing.assert_allclose(shares, [0.576117, 0.211942, 0.211942], atol=1e-6)
    table = []
    for losses in student[1:]:
        psi = shares * np.exp(np.divide(losses, teacher))  # equation 2
        by_hand = 0.5 * psi / psi.sum() + 0.5 / 3  # equation 3
        shares = by_gap(np.divide(losses, teacher), shares, smoothing=0.5)
        np.testing.assert_allclose(shares, by_hand, rtol=1e-12)
        table.append(shares)
    by_pocket_calculator = [
        [0.454725, 0.272637, 0.272637],
        [0.359860, 0.357642, 0.282499],
        [0.293801, 0.374984, 0.331215],
    ]
    np.testing.assert_allclose(table, by_pocket_calculator, atol=2e-6)


def test_gaps_of_any_size_give_shares():
    many = by_gap(np.array([700.0, 699.0, 1e300]), np.array([0.5, 0.5, 0.0]), smoothing=0.5)
    assert np.isfinite(many).all() and many.sum() == pytest.approx(1) and many[2] == pytest.approx(2 / 3)


@pytest.fixture(scope="module")
def split():
    return small_split()


@pytest.fixture(scope="module")
def teacher(split, tmp_path_factory):
    return quick(split, tmp_path_factory.mktemp("teacher") / "run", learning_rate=1e-3)


GAPS = {"name": "gap", "every": 0.3, "smoothing": 0.75}


@pytest.mark.parametrize("after", [1, 6])
def test_a_run_of_moving_shares_stopped_anywhere_resumes_bit_equal(split, teacher, tmp_path, monkeypatch, after):
    monkeypatch.setenv("WAKD_CACHE", str(tmp_path / "cache"))
    settings = {"sampling": GAPS, "teacher": teacher, "objectives": ["ce", "kd"], "segment_length": 1, "steps": 8}
    run = stopped_and_resumed(split, tmp_path, monkeypatch, after=after, **settings)
    assert not [*(tmp_path / "cache").glob("teachers/*/logits-*")], (
        "what is drawn by the student's losses is never kept"
    )
    shares = run.table[["share/a", "share/b"]].to_numpy()
    np.testing.assert_allclose(shares.sum(1), 1)
    # 0.3 of 8 steps are 2: those of steps 1 and 2 are of the start, then they change after every other
    assert [len({*map(tuple, shares[k : k + 2])}) for k in (0, 2, 4, 6)] == [1] * 4 and len({*map(tuple, shares)}) == 4
    nll = [scores(predict(teacher.model(split=split), e.images), e.labels)["nll"] for e in split.val.values()]
    for k in (2, 4, 6):
        losses = run.table.loc[k - 1, ["val_loss/a", "val_loss/b"]].to_numpy(float)
        expected = by_gap(np.exp(losses - nll), shares[k - 1], smoothing=0.75)
        np.testing.assert_allclose(shares[k], expected, rtol=1e-5)


def test_batches_are_drawn_by_the_shares_in_force_each_domain_in_epochs(split):
    def batches(shared, streaming="never"):
        data = SourceBatches(split, 8, {"name": "gap"}, 0, torch.device("cpu"), streaming=streaming)
        for step, shares in shared:
            data.share(step, np.array(shares))
        return data

    data = batches([(0, [0.9, 0.1])])
    seen = [data.batch(step)[2] for step in range(1, 41)]
    data.share(40, np.array([0.0, 1.0]))
    seen += [data.batch(step)[2] for step in range(41, 61)]
    of = [part["domains"][:, 0].mean().item() for part in seen]
    assert np.mean(of[:40]) == pytest.approx(0.9, abs=4 * (0.09 / 320) ** 0.5) and of[40:] == [0.0] * 20
    second = np.concatenate([part["index"][part["domains"][:, 1] == 1] for part in seen])
    count = len(split.train["b"])
    whole = len(second) // count * count
    assert (np.sort(second[:whole].reshape(-1, count), 1) == np.sort(second[:count])).all()
    again, streamed = (batches([(0, [0.9, 0.1]), (40, [0.0, 1.0])], how) for how in ("never", "always"))
    for step in (45, 3, 41, 60):
        assert torch.equal(again.index(step), seen[step - 1]["index"])
        assert torch.equal(streamed.batch(step)[2]["index"], seen[step - 1]["index"])
    streamed = batches([(0, [0.9, 0.1])], "always")
    streamed.batch(40)  # by now the next ones are on their way, drawn by shares of before
    streamed.share(40, np.array([0.0, 1.0]))
    assert torch.equal(streamed.batch(41)[2]["index"], seen[40]["index"])


def test_gaps_are_said_in_full_and_need_a_teacher(split, tmp_path):
    whole = {"name": "gap", "every": 0.03, "smoothing": 0.5}
    assert (
        make(Settings, {"sampling": "gap"}).sampling == make(Settings, {"sampling": {"name": "gap"}}).sampling == whole
    )
    for change, sentence in (
        ({"sampling": {"name": "gaps"}}, "Did you mean 'gap'"),
        ({"sampling": {"name": "gap", "every": 0}}, "every is a positive number; got 0"),
        ({"sampling": {"name": "gap", "smoothing": 2}}, "smoothing is a number from 0 to 1; got 2"),
    ):
        with pytest.raises(ParameterError, match=sentence):
            make(Settings, change)
    with pytest.raises(ValueError, match="compares the student with its teacher, and there is none"):
        quick(split, tmp_path / "run", sampling="gap")


def test_a_validation_that_is_no_number_is_a_sentence(split, teacher, tmp_path):
    class Blind(torch.nn.Module):
        """Learns, and gives no number when it is looked at."""

        def __init__(self):
            super().__init__()
            self.net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12, 3))

        def forward(self, images):
            return self.net(images) if self.training else self.net(images) * float("nan")

    with pytest.raises(Stopped, match="is no number after step 0: lower learning_rate"):
        quick(split, tmp_path / "run", Blind(), teacher=teacher, objectives=["ce", "kd"], sampling="gap")
