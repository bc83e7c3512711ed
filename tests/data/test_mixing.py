"""Mixed views: pixels, labels and shares by hand."""

import numpy as np
import pytest
import torch

from wakd_kit.data.augment import mixed
from wakd_kit.data.mixing import Mix, boxes, drawn_mix

LABELS = torch.arange(10) % 3


def numbered(n=10, size=8):
    """Views of which every pixel is the number of its image."""
    return torch.arange(n).float()[:, None, None, None].expand(n, 3, size, size).clone()


@pytest.mark.parametrize("per", ["batch", "example"])
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_mixup_is_a_share_of_each_and_so_are_labels(per, share):
    mix = Mix("mixup", alpha=0.7, share=share, per=per)
    partner, own, of_pixels = drawn_mix(10, (8, 8), mix, np.random.default_rng(3))
    x, soft = mixed(numbered(), LABELS, mix, np.random.default_rng(3), 3)
    assert sorted(partner) == list(range(10)) and of_pixels.shape == (10, 1, 1)
    assert (own == 1).sum() == 10 - round(10 * share)
    assert len(np.unique(own)) == {"batch": 1, "example": round(10 * share)}[per] + (share < 1)
    for i in range(10):
        expected = own[i] * i + (1 - own[i]) * partner[i]
        torch.testing.assert_close(x[i], torch.full((3, 8, 8), expected))
        by_hand = np.zeros(3, np.float32)
        by_hand[LABELS[i]] += own[i]
        by_hand[LABELS[partner[i]]] += 1 - own[i]
        np.testing.assert_allclose(soft[i], by_hand, rtol=1e-6)


@pytest.mark.parametrize("per", ["batch", "example"])
def test_cutmix_puts_a_box_of_another_and_labels_by_area(per):
    mix = Mix("cutmix", share=0.8, per=per)
    partner, own, _ = drawn_mix(10, (8, 8), mix, np.random.default_rng(5))
    x, soft = mixed(numbered(), LABELS, mix, np.random.default_rng(5), 3)
    assert ((own == 1).sum() >= 2) and (own < 1).any()
    for i in range(10):
        kept = x[i, 0] == i
        assert ((x[i] == i) | (x[i] == partner[i])).all() and torch.equal(x[i, 0], x[i, 2])
        if partner[i] != i:
            assert own[i] == kept.float().mean()
            rows, columns = torch.where(~kept)
            assert len(rows) == len(rows.unique()) * len(columns.unique()), "it is a box"
        assert soft[i].sum() == pytest.approx(1) and soft[i, LABELS[i]] >= own[i] - 1e-6
    assert len(np.unique(own[own < 1])) > 1 if per == "example" else len(np.unique(own[own < 1])) == 1


def test_a_box_by_hand():
    class Centre:
        def integers(self, side, size):
            return np.array([0, 3])[:size]

    inside = boxes(np.array([0.25, 1.0]), (8, 8), Centre())
    assert inside[0].sum() == 2 * 2 and inside[0][:2, :2].all()  # 4 wide around 0: half of each side lies outside
    assert inside[1].sum() == 7 * 7 and inside[1][:7, :7].all()  # 8 wide around 3: from -1 to 7


def test_places_drawn_with_replacement_leave_fewer_pure_than_their_share():
    mix, n, rng = Mix("mixup", share=0.1, replacement=True, per="example"), 64, np.random.default_rng(0)
    pure = [(drawn_mix(n, (8, 8), mix, rng)[1] == 1).mean() for _ in range(300)]
    assert np.mean(pure) == pytest.approx(1 - (1 - 1 / n) ** int(0.9 * n), abs=4 * np.std(pure) / 300**0.5)
    exact = Mix("mixup", share=0.1, per="example")
    assert {(drawn_mix(n, (8, 8), exact, rng)[1] == 1).sum() for _ in range(20)} == {64 - 6}


def test_the_released_wakd_trainer_mixes_images_alone():
    mix = Mix("mixup", alpha=0.2, labels="own")
    x, labels = mixed(numbered(), LABELS, mix, np.random.default_rng(0), 3)
    assert labels is LABELS and not torch.equal(x, numbered())


def test_nobody_is_mixed_with_itself_where_that_is_asked_for():
    rng, mix = np.random.default_rng(0), Mix("cutmix", apart=True)
    partners = [drawn_mix(3, (8, 8), mix, rng)[0] for _ in range(50)]
    assert all((partner != np.arange(3)).all() for partner in partners)
    assert {tuple(partner) for partner in partners} == {(1, 2, 0), (2, 0, 1)}
