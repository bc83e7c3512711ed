"""Augmented views: what a setting says is what happens to the pixels, image by image."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from wakd_kit.data import augment as module
from wakd_kit.data.augment import PRESETS, VARIATIONS, Views, augment, calibration_views, to_float, views_from

NONE = PRESETS["none"].settings()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def only(**settings) -> Views:
    return views_from({**NONE, **settings})


@pytest.fixture
def images():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8))


@pytest.mark.parametrize("preset", PRESETS)
def test_views_are_floats_in_range_laid_out_for_convolutions(images, preset):
    x = augment(images, PRESETS[preset], generator())
    assert x.shape == (8, 3, 16, 16) and x.dtype == torch.float32
    assert x.min() >= 0 and x.max() <= 1
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_the_generator_decides_everything(images):
    one, again, other = (augment(images, Views(), generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_every_image_gets_draws_of_its_own(images):
    views = augment(images[:1].repeat(8, 1, 1, 1), Views(), generator())
    differences = (views[:, None] - views[None]).abs().amax((2, 3, 4))
    assert (differences + torch.eye(8)).min() > 0.01


def test_none_is_the_image_itself(images):
    torch.testing.assert_close(augment(images, PRESETS["none"], generator()), to_float(images), rtol=0, atol=1e-5)


def test_flip_mirrors_left_and_right_and_nothing_else(images):
    flipped = augment(images, only(flip=1), generator())
    torch.testing.assert_close(flipped, to_float(images).flip(3), rtol=0, atol=1e-5)


def test_flip_happens_as_often_as_asked(images):
    views = augment(images[:1].repeat(400, 1, 1, 1), only(flip=0.25), generator())
    mirrored = (views - to_float(images[:1]).flip(3)).abs().amax((1, 2, 3)) < 1e-4
    assert 70 < mirrored.sum() < 130


def test_a_crop_shows_its_share_of_the_image():
    ramp = torch.arange(64, dtype=torch.uint8).mul(4).view(1, 1, 64, 1).expand(50, 64, 64, 3)
    views = augment(ramp, only(scale=(0.25, 0.25)), generator())[:, 0, 0]  # half the width
    shown = (views[:, -1] - views[:, 0]) * 255 / 4
    torch.testing.assert_close(shown, torch.full((50,), 31.5), rtol=0, atol=1.0)
    assert views[:, 0].min() * 255 / 4 < 4 and views[:, -1].max() * 255 / 4 > 59, "crops lie anywhere"


def test_rotation_keeps_the_distance_to_the_centre():
    y, x = np.mgrid[:33, :33] - 16
    rings = torch.from_numpy((6 * np.hypot(x, y)).astype(np.uint8))[None, :, :, None].expand(5, -1, -1, 3)
    arrow = rings.clone()
    arrow[:, 14:19, 20:30] = 255
    turned = augment(rings, only(rotation=40), generator())
    inside = torch.from_numpy(np.hypot(x, y) < 15)
    assert (turned - to_float(rings))[:, :, inside].abs().max() < 0.03
    assert (augment(arrow, only(rotation=40), generator()) - to_float(arrow)).abs().mean() > 0.005


def test_grey_drops_colour_and_keeps_lightness(images):
    x = augment(images, only(gray=1), generator())
    luma = torch.einsum("c,nchw->nhw", torch.tensor([0.299, 0.587, 0.114]), to_float(images))
    for channel in range(3):
        torch.testing.assert_close(x[:, channel], luma, rtol=0, atol=1e-3)


def test_colour_changes_leave_grey_images_grey(images):
    grey = images[..., :1].expand(-1, -1, -1, 3)
    x = augment(grey, only(brightness=0.5, contrast=0.5, saturation=0.9, hue=0.5), generator())
    assert (x.amax(1) - x.amin(1)).max() < 1e-3


def test_hue_keeps_lightness():
    muted = torch.randint(90, 160, (6, 8, 8, 3), dtype=torch.uint8, generator=generator())  # stays inside [0, 1]
    x, before = augment(muted, only(hue=0.5), generator()), to_float(muted)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    torch.testing.assert_close((x * weights).sum(1), (before * weights).sum(1), rtol=0, atol=1e-4)
    assert (x - before).abs().mean() > 0.02


def test_colour_matrix_equals_one_operation_after_another(images):
    n, rng = len(images), np.random.default_rng(1)
    brightness, contrast, saturation = rng.uniform(0.5, 1.5, (3, n))
    hue, gray = rng.uniform(-math.pi, math.pi, n), rng.random(n) < 0.5
    x = to_float(images)
    settings = [torch.tensor(v, dtype=torch.float32) for v in (brightness, contrast, saturation, hue)]
    matrix = module._colour(*settings, torch.tensor(gray))
    as_it_lies = torch.eye(2, 3).expand(n, -1, -1)
    found = module.viewed(images, as_it_lies, matrix, settings[0], 1 - settings[1], torch.tensor(LIGHT))
    for i in range(n):
        expected = one_by_one(x[i].double().numpy(), brightness[i], contrast[i], saturation[i], hue[i], gray[i])
        np.testing.assert_allclose(found[i], expected.clip(0, 1), atol=1e-5)


LIGHT = [0.299, 0.587, 0.114]
TO_YIQ = [LIGHT, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]


@pytest.mark.parametrize("n", [1, 5, 8])
@pytest.mark.parametrize("views", [*PRESETS.values(), Views(rotation=30, flip=0.3)])
def test_views_of_a_seed_are_what_they_always_were(n, views):
    """Bit for bit those of eleven draws, one after the other, on the images' device: recordings are continued with them."""
    images = torch.randint(0, 256, (n, 12, 12, 3), dtype=torch.uint8, generator=generator(1))
    one, other = generator(n), generator(n)
    assert torch.equal(augment(images, views, one), eleven_draws(images, views, other))
    assert torch.equal(one.get_state(), other.get_state())


def eleven_draws(images, views, generator):
    x, n, yiq = to_float(images), len(images), torch.tensor(TO_YIQ)

    def uniform(low, high):
        return torch.rand(n, generator=generator) * (high - low) + low

    area, ratio = uniform(*views.scale), uniform(*map(math.log, views.ratio)).exp()
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    angle = uniform(-views.rotation, views.rotation) * (math.pi / 180)
    mirror = torch.where(uniform(0, 1) < views.flip, -1.0, 1.0)
    shift_x, shift_y = uniform(-1, 1) * (1 - width), uniform(-1, 1) * (1 - height)
    rows = [width * angle.cos() * mirror, -height * angle.sin(), shift_x]
    rows += [width * angle.sin() * mirror, height * angle.cos(), shift_y]
    grid = F.affine_grid(torch.stack(rows, 1).view(n, 2, 3), list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    brightness, contrast, saturation = (
        uniform(1 - s, 1 + s) for s in (views.brightness, views.contrast, views.saturation)
    )
    hue, gray = uniform(-views.hue, views.hue) * (2 * math.pi), uniform(0, 1) < views.gray
    chroma = torch.where(gray, torch.zeros_like(saturation), saturation)
    turn = torch.zeros(n, 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = chroma * hue.cos()
    turn[:, 1, 2], turn[:, 2, 1] = -chroma * hue.sin(), chroma * hue.sin()
    matrix = torch.linalg.inv(yiq) @ turn @ yiq * (brightness * contrast)[:, None, None]
    luma = torch.einsum("c,nc->n", yiq[0], x.mean((2, 3))) * brightness
    offset = ((1 - contrast) * luma)[:, None, None].expand(-1, 3, 1)
    return torch.baddbmm(offset, matrix, x.flatten(2)).view_as(x).clamp_(0, 1)


def one_by_one(image, brightness, contrast, saturation, hue, gray):
    """Brightness, contrast, saturation, hue and grey of one (3, H, W) image, the slow way."""
    light = np.array(LIGHT)
    image = brightness * image
    image = contrast * image + (1 - contrast) * np.tensordot(light, image, 1).mean()
    image = saturation * image + (1 - saturation) * np.tensordot(light, image, 1)
    to_yiq = np.array(TO_YIQ)
    y, i, q = np.tensordot(to_yiq, image, 1)
    turned = np.stack([y, i * math.cos(hue) - q * math.sin(hue), i * math.sin(hue) + q * math.cos(hue)])
    image = np.tensordot(np.linalg.inv(to_yiq), turned, 1)
    return np.broadcast_to(np.tensordot(light, image, 1), image.shape) if gray else image


STRONGER = {
    "rotation": (20.0, 2.0, 40.0),
    "brightness": (0.2, 3.0, 0.6),
    "contrast": (0.4, 0.5, 0.2),
    "saturation": (0.3, 2.0, 0.6),
    "hue": (0.1, 2.5, 0.25),
    "scale": ((0.8, 1.0), 2.0, (0.6, 1.0)),
    "ratio": ((0.8, 1.25), 2.0, (0.64, 1.5625)),
}


@pytest.mark.parametrize("name", VARIATIONS)
def test_strengths_are_those_of_views_that_vary_so_much_more(images, name):
    own, times, stronger = STRONGER[name]
    strengths = torch.tensor([times if other == name else 1.0 for other in VARIATIONS])
    base = {**NONE, "rotation": 5.0, "hue": 0.05}  # what is not asked about stays
    x = augment(images, views_from(base | {name: own}), generator(3), strengths=strengths)
    y = augment(images, views_from(base | {name: stronger}), generator(3))
    torch.testing.assert_close(x, y, atol=2e-5, rtol=0)
    assert not torch.allclose(x, augment(images, views_from(base | {name: own}), generator(3)), atol=1e-3)


@pytest.mark.parametrize("name", VARIATIONS)
def test_gradients_reach_strengths(images, name):
    views, k = views_from({"rotation": 15.0}), [*VARIATIONS].index(name)
    weigh = torch.randn(len(images), 3, *images.shape[1:3], generator=generator(5))

    def smooth(strengths):
        x = augment(images, views, generator(4), strengths=strengths)
        return (F.avg_pool2d(x, 8).double() * F.avg_pool2d(weigh, 8).double()).sum()

    strengths = torch.ones(len(VARIATIONS), requires_grad=True)
    (gradient,) = torch.autograd.grad(smooth(strengths), [strengths])
    step = torch.zeros(len(strengths)).index_fill(0, torch.tensor(k), 2e-3)
    with torch.no_grad():
        difference = (smooth(strengths + step) - smooth(strengths - step)) / 4e-3
    assert gradient[k].item() == pytest.approx(difference.item(), rel=0.1, abs=0.02)
    assert abs(gradient[k]) > 1e-3


def test_however_strong_there_is_something_to_see(images):
    x = augment(images, views_from("photographs"), generator(6), strengths=torch.full((7,), 50.0))
    assert x.isfinite().all() and x.min() >= 0 and x.max() <= 1


def test_settings_come_back_as_the_same_views():
    views = Views(scale=(0.5, 0.9), hue=0.2)
    assert views_from(views.settings()) == views == views_from(views)
    assert views_from("digits") is PRESETS["digits"]


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("photograph", "Did you mean 'photographs'"),
        ({"flips": 0.5}, "Did you mean 'flip'"),
        ({"scale": 0.8}, "scale is .low, high. with 0 < low <= high <= 1; got 0.8"),
        ({"scale": [0.8, 1.2]}, "scale is .low, high."),
        ({"scale": ["a", "b"]}, "scale is .low, high."),
        ({"ratio": [2, 1]}, "ratio is .low, high."),
        ({"hue": 0.7}, "hue is a number from 0 to 0.5; got 0.7"),
        ({"flip": True}, "flip is a number"),
        ({"rotation": -5}, "rotation is a number from 0 to 180"),
    ],
)
def test_impossible_views_are_a_sentence(setting, sentence):
    with pytest.raises(ValueError, match=sentence):
        views_from(setting)


def test_calibration_views_are_source_training_images_each_at_most_once(split):
    batches = calibration_views(split, PRESETS["none"], 5, 16, seed=0, device="cpu")
    assert [len(b) for b in batches] == [16] * 5
    pixels = {im.tobytes() for b in batches for im in (255 * b.permute(0, 2, 3, 1)).round().byte().numpy()}
    train = {im.tobytes(): name for name, e in split.train.items() for im in e.images}
    assert len(pixels) == 80 and pixels <= set(train)
    assert {train[p] for p in pixels} == set(split.sources), "all sources are among them"


def test_calibration_views_are_the_same_at_every_call(split):
    one, again = (calibration_views(split, Views(), 3, 8, seed=4, device="cpu") for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, again))
    other = calibration_views(split, Views(), 3, 8, seed=5, device="cpu")
    assert not torch.equal(one[0], other[0])


def test_calibration_batches_are_all_full(split):
    """192 training images are four batches of 40 and a rest, which would weigh as much as a full batch."""
    assert [len(b) for b in calibration_views(split, Views(), 99, 40, seed=0, device="cpu")] == [40] * 4
