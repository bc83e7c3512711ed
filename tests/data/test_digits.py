"""The embedded benchmark: what a split and a comparison over domains rely on."""

import socket
from itertools import combinations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from wakd_kit.data.digits import SIZE, STYLES, render_digits


@pytest.fixture(scope="module")
def domains():
    return render_digits(seed=0)


def test_shapes_and_dtypes(domains):
    assert tuple(domains) == STYLES == ("ink", "photo", "sketch", "neon")
    for images, labels, originals in domains.values():
        assert images.shape == (len(labels), SIZE, SIZE, 3) and labels.shape == originals.shape
        assert (images.dtype, labels.dtype, originals.dtype) == (np.uint8, np.int64, np.int64)


def test_same_seed_gives_the_same_bytes(domains):
    again = render_digits(seed=0)
    for style in STYLES:
        for first, second in zip(domains[style], again[style]):
            np.testing.assert_array_equal(first, second)


def test_another_seed_deals_and_draws_anew():
    zero, one = (render_digits(seed=seed, renderings=1) for seed in (0, 1))
    for style in STYLES:
        assert set(zero[style][2]) != set(one[style][2])
        shared, at_zero, at_one = np.intersect1d(zero[style][2], one[style][2], return_indices=True)
        assert len(shared) > 0
        assert (zero[style][0][at_zero] != one[style][0][at_one]).any(axis=(1, 2, 3)).all()


def test_every_original_is_drawn_in_one_domain_only(domains):
    drawn = np.concatenate([np.unique(originals) for _, _, originals in domains.values()])
    np.testing.assert_array_equal(np.sort(drawn), np.arange(1797))


@pytest.mark.parametrize("renderings", [1, 3])
def test_each_original_is_rendered_as_often_as_asked(renderings):
    for images, _, originals in render_digits(renderings=renderings).values():
        assert (np.unique(originals, return_counts=True)[1] == renderings).all()
        assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images), "two renderings are equal"


def test_labels_are_those_of_the_originals(domains):
    target = load_digits().target
    for _, labels, originals in domains.values():
        np.testing.assert_array_equal(labels, target[originals])


@pytest.mark.parametrize("style", STYLES)
def test_classes_are_balanced(domains, style):
    shares = np.bincount(domains[style][1], minlength=10) / len(domains[style][1])
    assert shares.min() > 0.05 and shares.max() < 0.20


@pytest.mark.parametrize("style", STYLES)
def test_no_image_is_blank(domains, style):
    images = domains[style][0].astype(np.float32)
    assert images.std(axis=(1, 2)).max(axis=1).min() > 8, "an image is (nearly) one colour"


@pytest.mark.parametrize("style", STYLES)
def test_the_drawing_shows_its_original(domains, style):
    """Strokes fall rather where their own scan has ink than where another one has: a mix-up of rows would break it."""
    images, _, originals = domains[style]
    grey = images.mean(axis=3)
    contrast = np.abs(grey - np.median(grey, axis=(1, 2), keepdims=True))
    coarse = contrast.reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4)).reshape(len(images), -1)
    scans = load_digits().data
    lead = _correlation(coarse, scans[originals]) - _correlation(coarse, scans[np.roll(originals, len(originals) // 2)])
    assert lead.mean() > 4 * lead.std() / np.sqrt(len(lead))


@pytest.mark.parametrize("pair", combinations(STYLES, 2), ids="-".join)
def test_two_styles_differ_in_colour_or_edges(domains, pair):
    """At least one statistic of an image lies more than 1.2 standard deviations apart."""
    one, other = (_statistics(domains[style][0]) for style in pair)
    apart = np.abs(one.mean(axis=0) - other.mean(axis=0)) / np.sqrt((one.var(axis=0) + other.var(axis=0)) / 2)
    assert apart.max() > 1.2, dict(zip(("brightness", "contrast", "saturation", "warmth", "edges"), apart.round(2)))


def test_needs_no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("render_digits opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)
    render_digits(renderings=1)


@pytest.mark.parametrize("settings", [{"renderings": 0}, {"seed": -1}])
def test_impossible_settings_are_named(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        render_digits(**settings)


def _correlation(a, b):
    """Pearson correlation of matching rows."""
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (a, b))
    return (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))


def _statistics(images):
    """Brightness, contrast, saturation, warmth and edge strength of each image, (n, 5)."""
    pixels = images.astype(np.float32) / 255
    grey = pixels.mean(axis=3)
    edges = np.abs(np.diff(grey, axis=1)).mean(axis=(1, 2)) + np.abs(np.diff(grey, axis=2)).mean(axis=(1, 2))
    saturation = (pixels.max(axis=3) - pixels.min(axis=3)).mean(axis=(1, 2))
    warmth = (pixels[..., 0] - pixels[..., 2]).mean(axis=(1, 2))
    return np.stack([grey.mean(axis=(1, 2)), grey.std(axis=(1, 2)), saturation, warmth, edges], axis=1)
