"""The embedded benchmark: real handwritten digits, drawn in four styles, with nothing to download.

The handwriting is the 1,797 scans of `sklearn.datasets.load_digits` (UCI Optical Recognition of Handwritten Digits,
Alpaydin and Kaynak 1998); the photographs are the two of `sklearn.datasets.load_sample_image`. Both ship inside
scikit-learn. Each style is one domain: ink, photo, sketch, neon. No original is drawn in two styles, so that an
unseen domain holds unseen handwriting as well.

Arrays here are float32 in [0, 1] until the last step: masks (n, 32, 32), images (n, 32, 32, 3), colours (n, 1, 1, 3).
"""

import numpy as np
from scipy import ndimage
from sklearn.datasets import load_digits, load_sample_image

STYLES = ("ink", "photo", "sketch", "neon")
SIZE = 32


def render_digits(seed: int = 0, renderings: int = 2) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Draw every handwritten digit of scikit-learn `renderings` times, in the style of its domain.

    The originals are dealt to the four domains in disjoint quarters, stratified by class; every rendering draws its
    own pose, stroke width, colours and background.

    Args:
        seed: fixes the quarters and every random draw. On one machine the same seed gives the same bytes.
        renderings: images per original, at least 1.

    Returns:
        For each style, in the order of `STYLES`, a tuple of
        images (n, 32, 32, 3) uint8, RGB;
        labels (n,) int64, the digit 0 to 9;
        originals (n,) int64, the row of the scan in `load_digits`, 0 to 1796. All renderings of one original are
        neighbours; a split has to keep them on one side.

    Raises:
        ValueError: `renderings` below 1, or a negative seed.
    """
    if renderings < 1:
        raise ValueError(f"renderings is {renderings}; every handwritten digit is drawn at least once.")
    if seed < 0:
        raise ValueError(f"seed is {seed}; give an integer from 0 up.")
    scans = load_digits()
    quarters = _stratified_quarters(scans.target, np.random.default_rng([seed, len(STYLES)]))
    domains = {}
    for index, (style, quarter) in enumerate(zip(STYLES, quarters)):
        rng = np.random.default_rng([seed, index])  # a stream per style: changing one style leaves the others alone
        originals = np.repeat(quarter, renderings)
        heights = _pose(scans.images[originals].astype(np.float32) / 16, rng)
        images = _PAINTERS[style](heights, rng)
        pixels = np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)
        domains[style] = (pixels, scans.target[originals].astype(np.int64), originals)
    return domains


def _stratified_quarters(labels, rng):
    """Four disjoint sorted arrays of rows: each class is shuffled, then dealt like cards, on from class to class."""
    shuffled = np.concatenate([rng.permutation(np.flatnonzero(labels == digit)) for digit in np.unique(labels)])
    return [np.sort(shuffled[start :: len(STYLES)]).astype(np.int64) for start in range(len(STYLES))]


# ---- from scan to stroke


def _pose(scans, rng):
    """Scans (n, 8, 8) enlarged to 32x32 under a random rotation, shear, scale and shift: a smooth height map."""
    n, fine = len(scans), 64
    # Bicubic enlargement is separable and the same for all: one small matrix, with a blank cell around the scan.
    padded = np.pad(scans, ((0, 0), (1, 1), (1, 1)))
    enlarge = ndimage.zoom(np.eye(10), (fine / 10, 1), order=3, mode="grid-constant", grid_mode=True)
    enlarge = enlarge.astype(np.float32)
    heights = enlarge @ padded @ enlarge.T

    angle, shear = rng.uniform(-0.26, 0.26, n), rng.uniform(-0.25, 0.25, n)
    scale = rng.uniform(1.8, 2.4, (n, 2))  # fine pixels per drawn pixel: the scan covers 21 to 28 of 32 pixels
    shift = rng.uniform(-3, 3, (n, 2))
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1).reshape(n, 2, 2)
    slant = np.stack([np.ones(n), np.zeros(n), shear, np.ones(n)], -1).reshape(n, 2, 2)
    grid = np.stack(np.meshgrid(*[np.arange(SIZE) - (SIZE - 1) / 2] * 2, indexing="ij")).reshape(2, -1)
    points = (turn @ slant * scale[:, None]) @ grid + shift[:, :, None] + (fine - 1) / 2
    return _bilinear(heights, np.clip(points, 0, fine - 1.001)).reshape(n, SIZE, SIZE)


def _bilinear(stack, points):
    """Values of stack (n, h, w) at points (n, 2, m), in pixels of the stack and inside it."""
    corner = points.astype(np.intp)
    (y, x), (dy, dx) = np.moveaxis(corner, 1, 0), np.moveaxis((points - corner).astype(np.float32), 1, 0)
    flat, width = stack.reshape(-1), stack.shape[2]
    at = np.arange(len(stack))[:, None] * stack[0].size + y * width + x
    top = flat[at] * (1 - dx) + flat[at + 1] * dx
    return top * (1 - dy) + (flat[at + width] * (1 - dx) + flat[at + width + 1] * dx) * dy


def _stroke(heights, level, *, sharpness=18.0):
    """Mask of the stroke in [0, 1]: 1 where the height exceeds `level`; a lower level is a broader pen."""
    return 1 / (1 + np.exp(sharpness * (level - heights)))


def _outline(heights, level, width):
    """Mask of a line `width` pixels wide around the stroke that `_stroke` would fill at the same level."""
    slope = np.hypot(*np.gradient(heights, axis=(1, 2)))
    distance = np.abs(heights - level) / (slope + 0.02)  # in pixels, to first order; the floor spares flat places
    return np.clip(width - distance, 0, 1)


# ---- the four styles: heights (n, 32, 32) to images (n, 32, 32, 3)


def _paint_ink(heights, rng):
    """A pen on lined or squared paper, the page unevenly lit."""
    n = len(heights)
    paper = _hsv(rng.uniform(0.08, 0.17, n), rng.uniform(0.02, 0.16, n), rng.uniform(0.86, 1.0, n))
    rule = _hsv(rng.uniform(0.5, 0.68, n), rng.uniform(0.3, 0.7, n), rng.uniform(0.5, 0.82, n))
    pen = _hsv(rng.choice([0.0, 0.62, 0.64, 0.66, 0.4], n), rng.uniform(0.5, 0.95, n), rng.uniform(0.05, 0.45, n))
    page = _mix(paper, rule, _ruling(n, rng) * _each(rng, 0.5, 1.0, n))
    stroke = _stroke(heights, _each(rng, 0.4, 0.6, n), sharpness=24) * _each(rng, 0.75, 1.0, n)
    uneven = 1 - 0.2 * _clouds(n, rng, 1.5)  # ink flows unevenly
    lit = 1 - _each(rng, 0.0, 0.25, n) * _ramp(n, rng)
    return _mix(page, pen, stroke * uneven) * lit[..., None] + _grain(n, rng, 0.015)


def _paint_photo(heights, rng):
    """|patch - digit| over real photograph crops, as MNIST-M (Ganin and Lempitsky 2015)."""
    n = len(heights)
    stroke = _stroke(heights, _each(rng, 0.35, 0.5, n))
    return np.abs(_photograph_crops(n, rng) - stroke[..., None])


def _paint_sketch(heights, rng):
    """The outline of the digit in pencil on drawing paper."""
    n = len(heights)
    paper = _hsv(rng.uniform(0.07, 0.14, n), rng.uniform(0.05, 0.25, n), rng.uniform(0.8, 0.97, n))
    pencil = _hsv(rng.uniform(0, 1, n), rng.uniform(0.0, 0.15, n), rng.uniform(0.1, 0.35, n))
    level = _each(rng, 0.15, 0.35, n)
    outline = _outline(heights, level, _each(rng, 1.2, 1.7, n))
    shading = _stroke(heights, level) * _each(rng, -0.3, 0.35, n)  # about half of the drawings are lightly shaded
    tooth = 1 - 0.5 * rng.random((n, SIZE, SIZE), dtype=np.float32)  # graphite only catches the paper's tooth
    return _mix(paper, pencil, np.maximum(outline, shading) * tooth) + _grain(n, rng, 0.02)


def _paint_neon(heights, rng):
    """A glowing tube bent around the digit, before a dark wall that runs from one hue to another."""
    n = len(heights)
    hue = rng.random(n)
    walls = [
        _hsv(hue + rng.uniform(0.15, 0.85, n), rng.uniform(0.6, 1, n), rng.uniform(0.05, 0.5, n)) for _ in range(2)
    ]
    lamp = _hsv(hue, rng.uniform(0.75, 1, n), rng.uniform(0.8, 1, n))
    level = _each(rng, 0.2, 0.4, n)
    tube = _outline(heights, level, _each(rng, 1.2, 1.7, n))
    glow = np.clip(1.8 * ndimage.gaussian_filter(tube, (0, 1.6, 1.6)), 0, 1) * _each(rng, 0.5, 0.9, n)
    glow = np.maximum(glow, _stroke(heights, level) * _each(rng, -0.6, 1.0, n))  # some signs have a lit face as well
    lit = 1 - (1 - _mix(*walls, _ramp(n, rng))) * (1 - lamp * glow[..., None])  # light adds: a "screen" blend
    core = 1 - 0.45 * (1 - lamp)  # the lamp's hue, over-exposed
    return _mix(lit, core, tube * _each(rng, 0.7, 1.0, n))


_PAINTERS = {"ink": _paint_ink, "photo": _paint_photo, "sketch": _paint_sketch, "neon": _paint_neon}


# ---- material


def _each(rng, low, high, n):
    """One draw per image, shaped to multiply masks."""
    return rng.uniform(low, high, (n, 1, 1)).astype(np.float32)


def _mix(below, above, cover):
    """`above` painted over `below` where the mask `cover` is 1."""
    return below + (above - below) * cover[..., None]


def _hsv(hue, saturation, value):
    """RGB colours (n, 1, 1, 3) from arrays (n,); hue in turns, any real number."""
    sector = (6 * hue[:, None] + np.array([5, 3, 1])) % 6
    rgb = value[:, None] * (1 - saturation[:, None] * np.clip(np.minimum(sector, 4 - sector), 0, 1))
    return rgb.astype(np.float32)[:, None, None, :]


def _ruling(n, rng):
    """Mask of horizontal lines, and for half of the images vertical ones as well."""
    period, thickness = _each(rng, 5, 11, n), _each(rng, 0.8, 1.6, n)
    position = np.arange(SIZE, dtype=np.float32)
    rows = (position[:, None] + _each(rng, 0, 11, n)) % period < thickness
    columns = (position[None, :] + _each(rng, 0, 11, n)) % period < thickness
    squared = rng.random((n, 1, 1)) < 0.5
    return (rows | (columns & squared)).astype(np.float32)


def _ramp(n, rng):
    """A linear ramp from 0 to 1 across each image, in a random direction."""
    angle, position = _each(rng, 0, 2 * np.pi, n), np.linspace(-0.5, 0.5, SIZE, dtype=np.float32)
    return 0.5 + (np.cos(angle) * position[:, None] + np.sin(angle) * position[None, :]) / np.sqrt(2)


def _clouds(n, rng, width):
    """Smooth noise in [0, 1], features about `width` pixels wide."""
    noise = ndimage.gaussian_filter(rng.random((n, SIZE, SIZE), dtype=np.float32), (0, width, width))
    return np.clip(0.5 + (noise - 0.5) * 3.5 * width, 0, 1)


def _grain(n, rng, amount):
    """Grey noise to add to an image: the texture of paper."""
    return amount * rng.standard_normal((n, SIZE, SIZE, 1), dtype=np.float32)


def _photograph_crops(n, rng):
    """Square crops of 48 to 127 pixels of the two photographs, averaged down to 32x32 through summed-area tables."""
    crops = np.empty((n, SIZE, SIZE, 3), np.float32)
    chosen = rng.integers(0, 2, n)
    for photo, name in enumerate(("china.jpg", "flower.jpg")):
        table = np.pad(load_sample_image(name).astype(np.int64), ((1, 0), (1, 0), (0, 0))).cumsum(0).cumsum(1)
        here = np.flatnonzero(chosen == photo)
        width = rng.integers(48, 128, (len(here), 1))
        steps = np.arange(SIZE + 1) * width // SIZE
        rows = rng.integers(0, table.shape[0] - width) + steps
        columns = rng.integers(0, table.shape[1] - width) + steps
        sums = np.diff(np.diff(table[rows[:, :, None], columns[:, None, :]], axis=1), axis=2)
        areas = np.diff(rows)[:, :, None] * np.diff(columns)[:, None, :]
        crops[here] = sums / (255 * areas[..., None])
    return crops
