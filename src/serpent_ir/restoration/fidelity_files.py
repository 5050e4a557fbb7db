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
from serpent_ir.restoration.plan import identities, spelled
from serpent_ir.tasks import Degradation

BYTES_PER_PIXEL = 300
"""What a check takes, roughly."""


def plan_maps(pairs: Sequence[tuple[Path, Path]]) -> dict[Path, Path]:
    """Output -> its map, for all (input, output): `<stem>-fidelity.png` beside it, `a.jpg-fidelity.png` where the map
    of another output would have the first name, also on file systems that do not tell A from a.

    Raises ImageWriteError when an output is its input, which is then gone when it is needed, or when a map would
    replace an input or an output.
    """
    short = {target: map_name(target, target.stem) for _, target in pairs}
    full = {target: map_name(target, target.name) for _, target in pairs}
    wanted = Counter(spelled(path) for maps in (short, full) for path in maps.values())
    maps = {}
    for source, target in pairs:
        if is_same_file(source, target):
            raise ImageWriteError(
                f"{target} would replace the input that it is to be checked against", "another output"
            )
        maps[target] = short[target] if wanted[spelled(short[target])] == 1 else full[target]
    images = [path for pair in pairs for path in pair]
    files, places = identities(images), {spelled(Path(os.path.realpath(path))) for path in images}
    drawn = identities(maps.values())
    taken = [path for file, path in drawn.items() if file in files]
    taken += [path for path in maps.values() if spelled(Path(os.path.realpath(path))) in places]
    if taken:
        raise ImageWriteError(f"{min(taken)} would be a map of fidelity as well", "an image of another name")
    return maps


def map_name(target: Path, stem: str) -> Path:
    return target.with_name(f"{stem}-fidelity.png")


def is_same_file(source: Path, target: Path) -> bool:
    """Whether both are one file, under whatever names."""
    same_place = os.path.realpath(source) == os.path.realpath(target)
    return same_place or bool(identities([source]).keys() & identities([target]).keys())


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
