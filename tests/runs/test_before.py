"""Scores before training: PARC by hand and by scipy, DisWOT by hand, spread of views, and that nothing but sources enters."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from sklearn.preprocessing import StandardScaler

import wakd_kit as wk
from wakd_kit.runs.before import diswot, parc, table, view_spread

from ..conftest import SMALL, patterns


def small(split, seed=0, **settings):
    return wk.build_model("resnet10t", split.classes, seed=seed, **{**SMALL, **settings})


def reference(features, labels) -> float:
    """As the authors' steps are: standardise, correlate, compare the triangles. Their ties are lost to rounding, ours are not."""
    features = StandardScaler().fit_transform(features)
    apart = [np.round(1 - np.corrcoef(rows), 12) for rows in (features, np.eye(labels.max() + 1)[labels])]
    return 100 * spearmanr(*(one[np.triu_indices(len(labels), 1)] for one in apart))[0]


def test_parc_is_that_of_scipy_and_scikit_learn():
    rng = np.random.default_rng(0)
    labels = rng.integers(5, size=60)
    for strength in (0.0, 0.5, 3.0):
        features = strength * rng.normal(size=(5, 12))[labels] + rng.normal(size=(60, 12))
        assert parc(features, labels) == pytest.approx(reference(features, labels), abs=1e-9)
        assert parc(7 * features + 3, labels) == pytest.approx(parc(features, labels), abs=1e-9)


def test_parc_of_four_images_by_hand():
    #  standardised: (-1, -1), (-1, 1), (1, -1), (1, 1): rows correlate 1 or -1 or not at all; two dimensions alike never
    features = [[0, 0, 1], [0, 1, 1], [1, 0, 0], [1, 1, 0]]
    rows = np.array([[-1, -1, 1], [-1, 1, 1], [1, -1, -1], [1, 1, -1]], float)
    distances = np.round(1 - np.corrcoef(rows), 12)
    of_pairs = [distances[i, j] for i in range(4) for j in range(i + 1, 4)]
    same = [0, 1, 1, 1, 1, 0]  # 0 where two images are of one class: 01 and 23
    assert parc(features, [0, 0, 1, 1]) == pytest.approx(100 * spearmanr(of_pairs, same)[0])
    assert parc(rows, [0, 0, 1, 1]) == parc(np.c_[rows, np.full(4, 9.0)], [0, 0, 1, 1]), (
        "what never changes says nothing"
    )
    with pytest.raises(ValueError, match="of two classes or more; got 4 features and 4 labels of 1 classes"):
        parc(features, [1, 1, 1, 1])


def by_hand(student, teacher, x, y) -> float:
    """DisWOT of two networks that stand at their Gaussians already, loop by loop."""
    relations, outer = [], []
    for model in (student, teacher):
        output = model(x)
        F.cross_entropy(output.logits, y).backward()
        f = output.maps[-1].detach().flatten(1)
        relations.append(torch.stack([row / row.norm() for row in f @ f.T]))
        g = model.model.fc.weight.grad
        outer.append([torch.stack([row / row.norm() for row in torch.outer(one, one)]) for one in g])
    sp = (relations[0] - relations[1]).square().sum() / len(x) ** 2
    icc = torch.stack([(a - b).square().sum() / len(a) for a, b in zip(*outer)]).mean()
    return float(-sp - icc)


def test_diswot_by_hand(split):
    student, teacher = small(split), small(split, layers=(1, 1, 1, 0))
    draw = torch.Generator().manual_seed(0)
    x, y = torch.rand(8, 3, 16, 16, generator=draw), torch.arange(8) % 4
    found = diswot(teacher, student, x, y, seed=3)
    for model in (student, teacher):
        model.train()
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                    module.weight.copy_(torch.randn(module.weight.shape, generator=generator))
                    if module.bias is not None:
                        module.bias.zero_()
                elif isinstance(module, torch.nn.BatchNorm2d):
                    module.weight.fill_(1), module.bias.zero_()
    assert found == pytest.approx(by_hand(student, teacher, x, y), abs=1e-5) and found < 0


def test_diswot_of_a_network_with_itself_is_0_and_what_it_was_before_does_not_matter(split):
    x, y = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 4
    one, other = small(split, seed=0), small(split, seed=1)
    assert diswot(one, other, x, y) == pytest.approx(0, abs=1e-6)
    before = {name: value.clone() for name, value in one.state_dict().items()}
    wide = small(split, channels=(4, 8, 8, 16), layers=(1, 1, 1, 1))
    with pytest.raises(ValueError, match=r"the student has 8 features, the teacher 16\. Say semantic='classes'"):
        diswot(wide, one, x, y)
    assert diswot(wide, one, x, y, semantic="classes") < -0.01
    assert all(torch.equal(value, one.state_dict()[name]) for name, value in before.items())
    with pytest.raises(ValueError, match="has none"):
        diswot(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 4)), one, x, y)


class Fixed(torch.nn.Module):
    """Logits that a list says, batch after batch."""

    def __init__(self, probs):
        super().__init__()
        self.probs, self.asked = probs, 0

    def forward(self, images):
        p = torch.tensor(self.probs[self.asked % len(self.probs)])
        self.asked += 1
        return p.log().expand(len(images), -1)


def test_the_spread_of_views_by_hand(split):
    probs = [[0.9, 0.1], [0.7, 0.3], [0.5, 0.5], [0.3, 0.7]]  # groups of two: 0.8, 0.4
    found = view_spread(Fixed(probs), split, groups=2, steps=2, batch_size=8)
    assert found == pytest.approx(0.4 / np.sqrt(2), abs=1e-6)  # unbiased over groups, alike for both classes
    teacher = Fixed(probs)  # clean and mixed are of one group
    assert view_spread(teacher, split, mix={"name": "cutmix"}, groups=2, steps=1, batch_size=8) == pytest.approx(found)
    assert teacher.asked == 4
    with pytest.raises(ValueError, match="choose one of 'mixup', 'cutmix'"):
        view_spread(teacher, split, mix={"name": "cutmixx"})
    with pytest.raises(ValueError, match="at least two; got 1"):
        view_spread(teacher, split, groups=1)


def test_a_ranking_takes_sources_alone(run, split):
    students = {"small": small(split), "wide": small(split, channels=(4, 8, 8, 16), layers=(1, 1, 1, 1))}
    given = {"images": 60, "groups": 2}
    found = table({"trained": run, "not": small(split, seed=5)}, students, split, **given)
    assert list(found.columns) == ["teacher", "student", "parc", "view_spread", "diswot", "seconds"] and len(found) == 4
    assert list(found["teacher"]) == ["trained"] * 2 + ["not"] * 2, "who has learned the classes comes first"
    assert found["diswot"].iloc[0] >= found["diswot"].iloc[1]
    arrays = {name: patterns(i) for i, name in enumerate(("north", "east", "south", "west"))}
    arrays["west"] = np.zeros_like(arrays["west"][0]), arrays["west"][1]
    blind = wk.leave_one_out(wk.domains_from_arrays(arrays, split.classes), "west", seed=0)
    again = table({"trained": run, "not": small(split, seed=5)}, students, blind, **given)
    pd.testing.assert_frame_equal(found.drop(columns="seconds"), again.drop(columns="seconds"))


def test_who_has_seen_the_unseen_domain_is_not_scored(run, domains, split):
    other = wk.leave_one_out(domains, "north", seed=0)
    with pytest.raises(ValueError, match="The teacher mine, or a model that it learned from, was trained on 'north'"):
        table({"mine": run}, {"small": small(split)}, other)


def test_scores_have_a_name_of_their_own():
    assert wk.scores.parc is parc and {*wk.scores.__all__} == {"diswot", "parc", "table", "view_spread"}


def test_a_loaded_run_of_arrays_in_memory_has_the_split_that_is_given(copied, split):
    copied.deploy(wk.averaging.window(copied.source_curves, begin=0))
    given = {"images": 16, "groups": 2}
    first = table({"t": copied}, {"s": small(split)}, split, **given)
    for again in (copied.folder, wk.load_run(copied.folder)):
        found = table({"t": again}, {"s": small(split)}, split, **given)
        pd.testing.assert_frame_equal(first.drop(columns="seconds"), found.drop(columns="seconds"))
