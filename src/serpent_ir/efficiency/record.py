"""What a profile found, and its file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from serpent_ir.efficiency.cell import Cell, Settings
from serpent_ir.errors import DataError
from serpent_ir.text_file import write_json

FORMAT, VERSION = "serpent-ir profile", 1

TRAINING_WORK = 3
"""A training step multiplies about three times as much as a forward pass: backwards there are two products for each."""


@dataclass(frozen=True)
class Result:
    """One cell and what is known of it.

    parameters: how many. gmac: billions of multiply-accumulates of a forward pass of one image. status: of `Status`;
    reason: one line that explains it, or None. seconds: `median`, `lower_quartile` and `upper_quartile` of a pass and
    the number of `runs`. memory: bytes, `peak`, `baseline` and `working`. scan_backend: what ran the scan.
    limit: the bytes or seconds that it was beyond, None when it was beyond none that was set.
    """

    cell: Cell
    parameters: int
    gmac: float
    status: str
    reason: str | None = None
    seconds: dict[str, Any] | None = None
    memory: dict[str, Any] | None = None
    scan_backend: str | None = None
    limit: float | None = None

    @property
    def images_per_second(self) -> float | None:
        return None if self.seconds is None else self.cell.batch / self.seconds["median"]

    @property
    def work(self) -> float:
        """GMAC of a pass."""
        return work(self.cell, self.gmac)

    def as_json(self) -> dict[str, Any]:
        return {
            **asdict(self.cell),
            "parameters": self.parameters,
            "gmac": self.gmac,
            "status": self.status,
            "reason": self.reason,
            "seconds": self.seconds,
            "images_per_second": self.images_per_second,
            "memory": self.memory,
            "scan_backend": self.scan_backend,
            "limit": self.limit,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any], settings: Settings) -> Result:
        """settings: of the profile, whose limits those of older files are."""
        content = {"limit": settings.limit(content["status"]), **content}
        cell = Cell(**{field.name: content[field.name] for field in fields(Cell)})
        return cls(cell, **{field.name: content[field.name] for field in fields(cls) if field.name != "cell"})


def work(cell: Cell, gmac: float) -> float:
    """GMAC of a pass of the cell, about, when a forward pass of one image has `gmac`."""
    return gmac * cell.batch * (TRAINING_WORK if cell.mode == "training" else 1)


@dataclass
class Profile:
    """The machine, how cells were measured last, and a result for each cell."""

    machine: dict[str, Any]
    settings: Settings
    results: dict[Cell, Result]

    def as_json(self) -> dict[str, Any]:
        """Plain dictionaries and lists."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "machine": self.machine,
            "settings": asdict(self.settings),
            "cells": [result.as_json() for result in self.results.values()],
        }

    def write(self, path: Path) -> None:
        """Raises FileWriteError when the file cannot be written."""
        write_json(self.as_json(), path)


def read_profile(path: Path) -> Profile:
    """The profile in a file. Raises DataError when it cannot be read or is none."""
    remedy = "Give another --out, or replace the file with --fresh."
    expected = "a file that `serpent profile` wrote"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})", expected, remedy) from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error})", expected, remedy) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{path} is no profile", expected, remedy)
    if content.get("version") != VERSION:
        raise DataError(f"{path} has version {content.get('version')!r}", f"version {VERSION}", remedy)
    try:
        settings = Settings(**content["settings"])
        results = [Result.from_json(cell, settings) for cell in content["cells"]]
        return Profile(dict(content["machine"]), settings, {result.cell: result for result in results})
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged ({type(error).__name__}: {error})", expected, remedy) from error
