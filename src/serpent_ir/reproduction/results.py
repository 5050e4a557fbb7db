"""What is known of a row, from the files in its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from serpent_ir.reproduction.plan import Plan, read_own_file, read_plan
from serpent_ir.reproduction.tables import Row, Table


@dataclass(frozen=True)
class RowResult:
    """plan: None when the row was never begun. result: the content of `result.json`; None until the row is made."""

    row: Row
    plan: Plan | None = None
    result: dict[str, Any] | None = None

    @property
    def status(self) -> str:
        """done, failed, unfinished or not begun."""
        if self.result is not None:
            return str(self.result["status"])
        return "not begun" if self.plan is None else "unfinished"

    @property
    def is_done(self) -> bool:
        return self.status == "done"

    @property
    def names(self) -> tuple[str, ...]:
        """Of the photographs that were scored."""
        return () if self.result is None else tuple(image["name"] for image in self.result["images"])

    def values(self, side: str, metric: str) -> list[float]:
        """One score of each photograph; side: `input` or `output`."""
        return [] if self.result is None else [image[side][metric] for image in self.result["images"]]

    def mean(self, side: str, metric: str) -> float:
        return fmean(self.values(side, metric))


def result_file(folder: Path) -> Path:
    return folder / "result.json"


def is_done(folder: Path) -> bool:
    result = read_result(folder)
    return result is not None and result["status"] == "done"


def read_result(folder: Path) -> dict[str, Any] | None:
    """The content of a row's `result.json`; None without one. Raises DataError when it cannot be read."""

    def result_of(content: dict[str, Any]) -> dict[str, Any]:
        content["status"]
        return content

    return read_own_file(result_file(folder), result_of, "Remove it: the row is scored again.")


def results_of(table: Table, out: Path) -> list[RowResult]:
    """All rows of the table, with what their folders below `out` hold."""
    found = []
    for row in table.rows:
        folder = out / row.name
        found.append(RowResult(row, read_plan(folder), read_result(folder)))
    return found
