"""What became of files, one and many."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Generic, Literal

from serpent_ir.restoration.plan import Job, Place

MEGA = 1e6


@dataclass(frozen=True)
class Seconds:
    """How long a file took to be read, computed, and written; of a batch, each picture counts its share."""

    read: float = 0.0
    compute: float = 0.0
    write: float = 0.0

    @property
    def total(self) -> float:
        return self.read + self.compute + self.write


@dataclass(frozen=True)
class FileOutcome(Generic[Place]):
    """What became of one file.

    status: "done": written to `target`; "skipped": an earlier run did it; "failed": left out for `reason`.
    width, height: of the source, upright; 0 where it was not read. notes: what people should know of it.
    stamp: size and time of change (ns) of the source before it was read. written: bytes of the target.
    """

    job: Job[Place]
    status: Literal["done", "skipped", "failed"]
    reason: str | None = None
    width: int = 0
    height: int = 0
    notes: tuple[str, ...] = ()
    seconds: Seconds = field(default_factory=Seconds)
    stamp: tuple[int, int] | None = None
    written: int = 0

    @property
    def source(self) -> Place:
        return self.job.source

    @property
    def target(self) -> Place:
        return self.job.target

    def as_dict(self) -> dict[str, Any]:
        """What JSON can hold, for other programs."""
        return {
            "source": str(self.source),
            "output": str(self.target),
            "status": self.status,
            "reason": self.reason,
            "seconds": asdict(self.seconds),
            "width": self.width,
            "height": self.height,
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class BatchSummary(Generic[Place]):
    """What became of every image of a folder or list, in the order of the plan, and how many seconds it took in all.

    ignored: the files whose name is not that of an image; a folder is done completely when there are none.
    """

    outcomes: tuple[FileOutcome[Place], ...]
    ignored: tuple[Place, ...]
    seconds: float

    @property
    def done(self) -> list[FileOutcome[Place]]:
        return [outcome for outcome in self.outcomes if outcome.status == "done"]

    @property
    def skipped(self) -> list[FileOutcome[Place]]:
        """Those that an earlier run did."""
        return [outcome for outcome in self.outcomes if outcome.status == "skipped"]

    @property
    def failed(self) -> list[FileOutcome[Place]]:
        return [outcome for outcome in self.outcomes if outcome.status == "failed"]

    @property
    def complete(self) -> bool:
        """Whether every file of the folder was done, by this run or an earlier one."""
        return not self.failed and not self.ignored

    @property
    def images_per_second(self) -> float:
        """Of this run."""
        return len(self.done) / self.seconds

    @property
    def megapixels_per_second(self) -> float:
        """Of this run, counted in the sources."""
        return sum(outcome.width * outcome.height for outcome in self.done) / MEGA / self.seconds

    def as_dict(self) -> dict[str, Any]:
        """What JSON can hold: numbers, and the files that were ignored."""
        return {
            "done": len(self.done),
            "skipped": len(self.skipped),
            "failed": len(self.failed),
            "ignored": [str(path) for path in self.ignored],
            "seconds": self.seconds,
            "images_per_second": self.images_per_second,
            "megapixels_per_second": self.megapixels_per_second,
        }
