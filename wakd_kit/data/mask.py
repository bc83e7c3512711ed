"""Parts of a benchmark's images that a file names: what pretraining may have shown, and what it cannot have.

    image,part
    sketch/dog/5281.png,in
    9f86d081884c7d65,out

An image is a file below the benchmark's folder, or the digest of one (64 bits of its BLAKE2b, as ``digest`` has it), which holds
wherever the folder lies. Images that are not listed are in no part. After DomainBed-OOP, which splits targets by CLIP's alignment.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd

from ..files import path_of
from .catalog import DataProblem
from .domains import Domains
from .folders import content

DIGEST = re.compile("[0-9a-fA-F]{16}")


def digest(file: str | os.PathLike) -> str:
    """What stands for a file in a mask, 16 hexadecimal digits."""
    return f"{content(Path(file)):016x}"


def parts_of(domains: Domains, mask: str | os.PathLike) -> dict[str, np.ndarray]:
    """``{domain: (n,) the part of each image, "" for none}``. Raises ``DataProblem`` for a mask that cannot be read, that names an image
    that is not there, or that is of a benchmark whose images come from no files."""
    file, root = path_of(mask), Path((domains.spec or "").partition(":")[2])
    if domains.files is None:
        raise DataProblem(f"{file} names files, and the images of {domains.spec or 'arrays in memory'} come from none.")
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataProblem(f"{file} is no table that can be read ({error}).") from None
    if {*table} != {"image", "part"}:
        raise DataProblem(f"{file} has the columns image and part; got {', '.join(table)}.")
    named: dict[int, str] = {}
    known = {int(key) for keys in domains.files.values() for key in keys}
    for image, part in zip(table["image"], table["part"]):
        if not DIGEST.fullmatch(image) and not (root / image).is_file():
            raise DataProblem(f"{file} names {image!r}, which is no file below {root}, and no digest of 16 digits.")
        key = int(image, 16) if DIGEST.fullmatch(image) else content(root / image)
        if key not in known and not DIGEST.fullmatch(image):
            raise DataProblem(f"{file} names {image!r}, which is no image of {domains.spec}.")
        if named.setdefault(key, part) != part:
            raise DataProblem(f"{file} puts {image} into {named[key]!r} and into {part!r}.")
    if named and not known & named.keys():
        raise DataProblem(f"{file} names {len(named)} images, and none of them is one of {domains.spec}.")
    return {name: np.array([named.get(int(key), "") for key in keys]) for name, keys in domains.files.items()}
