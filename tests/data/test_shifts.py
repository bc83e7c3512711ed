"""Correlation and corruption shift: stated amounts, by count; corruptions by the slow formulas of their paper."""

import io
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from torch import nn

import wakd_kit as wk
from wakd_kit.data.batches import learnt_from
from wakd_kit.data.coloured import render_coloured
from wakd_kit.data.corrupted import CORRUPTIONS, SEVERITIES, corrupt
from wakd_kit.data.domains import split_of
from wakd_kit.models.tap import mark
from wakd_kit.runs.identity import check_unseen

from ..conftest import small_images


@pytest.fixture(scope="module")
def coloured():
    return wk.load_domains("coloured_digits")


@pytest.fixture(scope="module")
def corrupted(tmp_path_factory):
    return wk.load_domains("corrupted:digits", cache=tmp_path_factory.mktemp("cache"))


# ---- coloured digits


def test_colour_goes_with_the_label_by_the_stated_share_in_every_class(coloured):
    assert coloured.attributes == ("red", "green") and coloured.classes == ("0 to 4", "5 to 9")
    for name, share in {"agree90": 0.9, "agree80": 0.8, "agree10": 0.1}.items():
        examples = coloured[name]
        for label in (0, 1):
            own = examples.attributes[examples.labels == label]
            assert (own == label).sum() == round(share * len(own))


def test_no_scan_is_in_two_domains_and_pixels_have_the_colour_that_is_told(coloured):
    scans = [set(examples.originals) for examples in coloured.values()]
    assert sum(map(len, scans)) == len(set.union(*scans)) == 1797
    for examples in coloured.values():
        mean = np.asarray(examples.images, dtype=float).mean((1, 2))
        assert ((mean[:, 1] > mean[:, 0]) == examples.attributes).mean() > 0.98


def test_label_noise_turns_its_share_of_scans_and_settings_that_cannot_be_are_refused():
    (images, labels, originals, _), _ = render_coloured(agree=(1.0, 0.5), noise=0.25, renderings=1).values()
    from sklearn.datasets import load_digits

    assert images.shape[1:] == (32, 32, 3) and images.dtype == np.uint8
    assert (labels != (load_digits().target[originals] >= 5)).mean() == pytest.approx(0.25, abs=0.002)
    for wrong in ({"agree": (0.9, 0.9)}, {"agree": (1.2, 0.1)}, {"agree": (0.5,)}, {"noise": -0.1}):
        with pytest.raises(ValueError, match="two or more different shares"):
            render_coloured(**wrong)
    with pytest.raises(ValueError, match="takes no path"):
        wk.load_domains("coloured_digits:here")


def test_attributes_go_with_their_images_through_a_split(coloured):
    split = wk.leave_one_out(coloured, "agree10", seed=3)
    for name in split.sources:
        for part in (split.train[name], split.val[name]):
            mean = np.asarray(part.images, dtype=float).mean((1, 2))
            assert ((mean[:, 1] > mean[:, 0]) == part.attributes).mean() > 0.97
    assert split.recipe["attributes"] == ["red", "green"]
    assert len(wk.leave_one_out(coloured, ["agree10", "agree80"]).target_for_testing_only.attributes) == 2396


# ---- corruptions


def test_no_original_is_in_two_domains_and_every_severity_has_every_kind_of_the_same_images(corrupted):
    digits = wk.load_domains("digits")
    assert corrupted.attributes == ("clean", *CORRUPTIONS)
    clean = {(name, o) for name in digits for o in corrupted[name].originals}
    assert all((corrupted[name].attributes == 0).all() for name in digits)
    seen = set()
    for severity in SEVERITIES:
        examples = corrupted[f"severity{severity}"]
        n = len(examples) // len(CORRUPTIONS)
        assert examples.attributes.tolist() == [k for k in range(1, 9) for _ in range(n)]
        assert len({tuple(part) for part in examples.labels.reshape(8, n)}) == 1
        mine = {(list(digits)[o >> 40], o & (1 << 40) - 1) for o in examples.originals.tolist()}
        assert not mine & clean and not mine & seen
        seen |= mine
    whole = {(name, o) for name, e in digits.items() for o in e.originals.tolist()}
    assert seen | clean == whole and len(seen) / len(whole) == pytest.approx(0.25, abs=0.01)


def test_what_learned_from_a_domain_has_seen_what_was_made_of_it(corrupted, tmp_path):
    digits, severities = wk.load_domains("digits"), [f"severity{severity}" for severity in SEVERITIES]
    other = wk.load_domains("corrupted:digits", cache=tmp_path, seed=1)

    def sees(domains, target, of, unseen) -> bool:
        """Whether a model that was trained on one benchmark without a target has seen another's."""
        taught, judged = (
            wk.leave_one_out(whole, out, only=[n for n in digits if n != out] if isinstance(out, str) else ())
            for whole, out in ((domains, target), (of, unseen))
        )
        try:
            check_unseen(mark(nn.Identity(), {"split": json.loads(json.dumps(taught.recipe))}), judged)
        except ValueError:
            return True
        return False

    assert sees(digits, "sketch", corrupted, "photo") and not sees(digits, "sketch", corrupted, "sketch")
    assert sees(digits, "sketch", corrupted, severities) and sees(corrupted, "sketch", digits, "photo")
    assert not sees(corrupted, severities, corrupted, severities) and sees(corrupted, severities, other, severities)


def test_a_domain_is_not_unseen_beside_what_was_made_of_it(corrupted):
    for target, others in (("ink", "severity1, severity2"), (["ink", "severity1"], "severity2, severity3")):
        with pytest.raises(ValueError, match=f"ink would not be unseen: {others}.* are made of its images, too"):
            wk.leave_one_out(corrupted, target)
    assert wk.leave_one_out(corrupted, "ink", only=["photo", "neon"]).sources == ("photo", "neon")
    assert len(wk.leave_one_out(corrupted, ["ink", *(f"severity{s}" for s in SEVERITIES)]).sources) == 3
    recipe = wk.leave_one_out(corrupted, "ink", only=["photo"]).recipe  # what was recorded before is read as it is
    assert split_of({**recipe, "sources": ["photo", "severity1"]}, corrupted).sources == ("photo", "severity1")


def test_rows_of_a_corrupted_benchmark_are_among_the_images_of_its_domains(corrupted):
    split = wk.leave_one_out(corrupted, "severity3")
    for name, rows in learnt_from(split)[1].items():
        assert np.array_equal(corrupted[name].images[rows[-3:]], split.train[name].images[-3:]), name


def test_a_corrupted_benchmark_is_read_again_and_another_seed_is_another(corrupted, tmp_path):
    again = wk.load_domains("corrupted:digits", cache=tmp_path)
    assert again.fingerprint == corrupted.fingerprint == wk.load_domains("corrupted:digits", cache=tmp_path).fingerprint
    assert wk.load_domains("corrupted:digits", cache=tmp_path, share=0.1).fingerprint != corrupted.fingerprint
    with pytest.raises(KeyError, match="Unknown benchmark 'digit'"):
        wk.load_domains("corrupted:digit")


def test_a_corrupted_array_that_was_cut_off_is_made_again(corrupted, tmp_path):
    wk.load_domains("corrupted:digits", cache=tmp_path)
    for bytes_left, file in zip((0, 100, 100_000), sorted(tmp_path.glob("corrupted-*.npy"))):
        os.truncate(file, bytes_left)
    assert wk.load_domains("corrupted:digits", cache=tmp_path).fingerprint == corrupted.fingerprint


IMAGES = (np.random.default_rng(0).random((6, 32, 32, 3)) * 200 + 20).astype(np.uint8)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_corruptions_are_those_of_the_paper(severity):
    """Slow and obvious: the formulas of Hendrycks' script for small images, on numpy, PIL and scipy."""
    x, at = IMAGES / 255, severity - 1

    def close(name: str, wanted: np.ndarray, within: float) -> None:
        found = corrupt(IMAGES, name, severity).astype(float)
        assert np.abs(found - 255 * np.clip(wanted, 0, 1)).max() <= within, name

    c = (0.75, 0.5, 0.4, 0.3, 0.15)[at]
    mean = x.mean((1, 2), keepdims=True)
    close("contrast", (x - mean) * c + mean, 0.51)
    c = (0.05, 0.1, 0.15, 0.2, 0.3)[at]
    import colorsys

    hsv = np.apply_along_axis(lambda p: colorsys.rgb_to_hsv(*p), 3, x[:1])
    hsv[..., 2] = np.clip(hsv[..., 2] + c, 0, 1)
    bright = np.apply_along_axis(lambda p: colorsys.hsv_to_rgb(*p), 3, hsv)
    assert np.abs(corrupt(IMAGES[:1], "brightness", severity) - 255 * bright).max() <= 0.51
    sigma = (0.4, 0.6, 0.7, 0.8, 1)[at]
    close("gaussian blur", np.stack([ndimage.gaussian_filter(i, (sigma, sigma, 0), mode="mirror") for i in x]), 1.0)
    quality, side = (80, 65, 58, 50, 40)[at], int(32 * (0.95, 0.9, 0.85, 0.75, 0.65)[at])
    for i, image in enumerate(IMAGES):
        Image.fromarray(image).save(data := io.BytesIO(), "JPEG", quality=quality)
        jpeg = np.asarray(Image.open(data), dtype=float)
        assert np.abs(corrupt(IMAGES[i : i + 1], "jpeg", severity)[0] - jpeg).mean() < 2
    for i, image in enumerate(IMAGES):
        small = Image.fromarray(image).resize((side, side), Image.Resampling.BOX)
        boxes = np.asarray(small.resize((32, 32), Image.Resampling.BOX))
        assert np.array_equal(corrupt(IMAGES[i : i + 1], "pixelate", severity)[0], boxes)
    noise = corrupt(np.full_like(IMAGES, 128), "gaussian noise", severity) / 255 - 128 / 255
    assert noise.std() == pytest.approx((0.04, 0.06, 0.08, 0.09, 0.10)[at], rel=0.03)
    shot = corrupt(np.full_like(IMAGES, 128), "shot noise", severity) / 255
    assert shot.std() == pytest.approx(np.sqrt(0.502 / (500, 250, 100, 75, 50)[at]), rel=0.05)
    hit = corrupt(np.full_like(IMAGES, 128), "impulse noise", severity)
    assert (hit != 128).mean() == pytest.approx((0.01, 0.02, 0.03, 0.05, 0.07)[at], rel=0.2) and set(
        np.unique(hit)
    ) == {0, 128, 255}


def test_large_images_are_corrupted_as_imagenet_c():
    large = np.full((2, 96, 96, 3), 128, np.uint8)
    assert (corrupt(large, "gaussian noise", 1) / 255).std() == pytest.approx(0.08, rel=0.03)
    assert np.array_equal(corrupt(large, "shot noise", 3), corrupt(large, "shot noise", 3))


def test_copies_in_two_domains_are_on_one_side_and_of_one_severity(tmp_path):
    root = small_images(tmp_path / "images")
    for file in [file for file in (root / "north").rglob("*") if file.is_file()]:
        shutil.copy(file, root / "south" / file.relative_to(root / "north").with_name(f"copy {file.name}"))
    found = wk.load_domains(f"corrupted:folder:{root}", size=32, cache=tmp_path, share=0.4)
    left = {name: {image.tobytes() for image in found[name].images} for name in ("north", "south")}
    assert len(left["north"]) > 0 and left["north"] < left["south"]
    dealt = [set(found[f"severity{severity}"].originals) for severity in SEVERITIES]
    assert sum(map(len, dealt)) == len(set().union(*dealt))


def test_a_benchmark_that_cannot_be_dealt_to_severities_is_a_sentence(tmp_path):
    root = small_images(tmp_path / "images")
    with pytest.raises(ValueError, match=r"share 0.05 sets \d+ images aside, too few for 5 severities"):
        wk.load_domains(f"corrupted:folder:{root}", size=32, share=0.05, cache=tmp_path)
    (root / "east").rename(root / "severity1")
    with pytest.raises(ValueError, match="called severity1 to severity5; rename 'severity1'"):
        wk.load_domains(f"corrupted:folder:{root}", size=32, cache=tmp_path)
