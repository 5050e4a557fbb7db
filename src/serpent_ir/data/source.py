"""Where photographs come from, as a recipe or a command line says it."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from serpent_ir.errors import DataError
from serpent_ir.urls import shown

Layout = Literal["auto", "folder", "ffhq", "shards", "paired"]
Split = Literal["all", "train", "val"]


@dataclass(frozen=True)
class PhotographSource:
    """Clean photographs, and how they lie there.

    path: a folder, or shards; relative to the current folder. It may begin with ~ and hold environment variables
        ($NAME, ${NAME}).
    shrink: range of the random factor by which a crop is scaled down (1.0 keeps the size); scaling down hides the
        traces of JPEG compression.
    layout: `folder`: all images below it. `ffhq`: 00000.png to 69999.png, in the folder or in folders below it.
        `shards`: WebDataset archives (.tar), one, a folder of them, or several by brace notation
        (train-{000000..000059}.tar), on this machine or behind a URL that fsspec knows. `paired`: images of equal names
        and sizes below clean/ and degraded/. `auto`: shards where the path ends in .tar, else a folder, but no pairs.
    split: of FFHQ; `train` is numbers 0 to 59999, `val` 60000 to 69999.
    size: photographs whose shorter side is longer than this many pixels are scaled down to it; None: none is.

    Raises DataError unless 1 <= shrink[0] <= shrink[1], size >= 1, a split is FFHQ's, and pairs are left in their size.
    """

    path: str
    shrink: tuple[float, float] = (1.0, 1.0)
    layout: Layout = "auto"
    split: Split = "all"
    size: int | None = None

    def __post_init__(self) -> None:
        def need(fine: bool, came: str, expected: str) -> None:
            if not fine:
                raise DataError(f"photographs in {shown(self.path)}: {came}", expected)

        lowest, highest = self.shrink
        fine = 1.0 <= lowest <= highest < float("inf")
        need(fine, f"shrink is {self.shrink}", "two factors, 1 <= lowest <= highest")
        need(self.size is None or self.size >= 1, f"size is {self.size}", "a positive number of pixels")
        need(self.split == "all" or self.layout == "ffhq", f"split is {self.split!r}", "a split only for layout ffhq")
        whole = self.size is None and highest == 1.0
        need(self.layout != "paired" or whole, "pairs with size or shrink", "pairs, which keep their size")

    @classmethod
    def from_text(cls, text: str) -> PhotographSource:
        """As a command line says it: DIR, or DIR:1.35-2 with the range of `shrink`; shards likewise.

        A folder that `serpent data prepare` has filled stands for its shards. Raises DataError for a range that is
        none, and when a variable is not set.
        """
        match = re.fullmatch(r"(.+):(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)", text)
        source = cls(text) if match is None else cls(match[1], (float(match[2]), float(match[3])))
        prepared = not source.is_shards and any(Path(source.expanded()).glob("shard-*.tar"))
        return dataclasses.replace(source, layout="shards") if prepared else source

    @property
    def is_shards(self) -> bool:
        return self.layout == "shards" or (self.layout == "auto" and shown(self.path).endswith(".tar"))

    @property
    def label(self) -> str:
        """The last part of the path, without what leads there on this machine or gives access to a server."""
        return PurePosixPath(shown(self.path)).name

    def expanded(self) -> str:
        """The path with ~ and variables in place. Raises DataError when a variable is not set."""
        expanded = os.path.expandvars(os.path.expanduser(self.path))
        if "$" in expanded:
            raise DataError(
                f"data folder {shown(self.path)!r} names an environment variable that is not set",
                remedy="Set the variable, or name the folders on the command line.",
            )
        return expanded

    def folder(self) -> Path:
        """The folder itself.

        Raises DataError when a variable is not set, the folder does not exist, or holds pairs of which nothing is said.
        """
        path = self.expanded()
        folder = Path(path)
        if not folder.is_dir():
            raise DataError(f"data folder {shown(path)!r} does not exist", "a folder of photographs")
        if self.layout == "auto" and all((folder / side).is_dir() for side in ("clean", "degraded")):
            raise DataError(
                f"{self.path!r} holds clean/ and degraded/, as pairs do",
                "a folder of clean photographs",
                f"Name {folder / 'clean'}; or say in a recipe that they are pairs: `layout: paired`.",
            )
        return folder

    def as_dict(self) -> dict[str, Any]:
        """Path and shrink, and what else differs from the defaults, as in a YAML file."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        values = dataclasses.asdict(self)
        kept = {name: value for name, value in values.items() if name == "shrink" or value != defaults[name]}
        return {**kept, "shrink": list(self.shrink)}


def by_places(sources: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Sources as `as_dict` gives them, to be compared: a path says where it leads, however it was written."""

    def place(path: str) -> str:
        return path if "://" in path else os.path.realpath(os.path.expandvars(os.path.expanduser(path)))

    return [{**source, "path": place(source["path"])} for source in sources]
