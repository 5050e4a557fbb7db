"""The check of results that are files: where the map of each goes, and the check itself."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from serpent_ir.errors import ImageWriteError, RestorationError, out_of_memory_as
from serpent_ir.free_memory import affordable
from serpent_ir.restoration.fidelity import Fidelity, check_fidelity
from serpent_ir.restoration.fidelity_map import in_colours
from serpent_ir.restoration.pixels import missing_part
from serpent_ir.tasks import Degradation

BYTES_PER_PIXEL = 300
"""What a check takes, roughly."""


def plan_maps(pairs: Sequence[tuple[Path, Path]]) -> dict[Path, Path]:
    """Output -> its map, for all (input, output): `<stem>-fidelity.png` beside it, `a.jpg-fidelity.png` where another
    output has the same stem.

    Raises ImageWriteError when an output is its input, which is then gone when it is needed, or when a map would
    replace an input or an output.
    """
    stems = Counter(target.with_suffix("") for _, target in pairs)
    maps = {}
    for source, target in pairs:
        if os.path.realpath(source) == os.path.realpath(target):
            raise ImageWriteError(
                f"{target} would replace the input that it is to be checked against", "another output"
            )
        stem = target.stem if stems[target.with_suffix("")] == 1 else target.name
        maps[target] = target.with_name(f"{stem}-fidelity.png")
    taken = {os.path.realpath(path) for pair in pairs for path in pair} & {
        os.path.realpath(path) for path in maps.values()
    }
    if taken:
        raise ImageWriteError(f"{min(taken)} would be a map of fidelity as well", "an image of another name")
    return maps


def check_file(degradation: Degradation | None, source: Path, target: Path, map_path: Path) -> Fidelity:
    """`check_fidelity` of the file `target` that was restored from `source`; its map in colours goes to `map_path`.

    Both are read from the files, so that what is checked is what was written. Raises ImageReadError, ImageWriteError,
    RestorationError when they do not go together or memory does not suffice.
    """
    from serpent_ir.images import Picture, read_image, write_image
    from serpent_ir.images.large import size_of_file

    pixels, free = math.prod(size_of_file(target)), affordable()
    if free is not None and BYTES_PER_PIXEL * pixels > free:
        raise RestorationError(
            f"{target} is too large to be checked: {BYTES_PER_PIXEL * pixels / 1e9:.2g} GB of memory are needed",
            f"at most the {free / 1e9:.2g} GB that are free",
            "Check a part of it.",
        )
    result, picture = read_image(target), read_image(source)
    image = picture.pixels
    if degradation is not None and degradation.channels == 4:
        if picture.alpha is None:
            raise RestorationError(f"{source} has no transparency", "an alpha channel that says what was filled")
        image = torch.cat([image, missing_part(picture.alpha)])
    with out_of_memory_as(RestorationError, f"there is not enough memory to check {target}"):
        fidelity = check_fidelity(result.pixels, image, degradation)
        write_image(Picture(in_colours(fidelity.map)), map_path)
    return fidelity
