"""`serpent restore --engine ray`: the engine that works on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from serpent_ir.cli import standard_output
from serpent_ir.cli.pictures import Engine, say

if TYPE_CHECKING:
    from serpent_ir.images import OutputOptions
    from serpent_ir.restoration import Restorer
    from serpent_ir.restoration.outcome import BatchSummary, FileOutcome
    from serpent_ir.restoration.plan import Plan
    from serpent_ir.restoration.portable import PortableRestorer


def cluster_engine(
    restorer: Restorer,
    portable: PortableRestorer,
    device: str | None,
    workers: int | None,
    again: bool,
    address: str | None,
) -> Engine:
    """restorer: made of what `portable` sends, on this machine; it only says what decides a result."""
    from serpent_ir.restoration.cluster import run_on_cluster
    from serpent_ir.restoration.ray_session import check_extra

    check_extra()

    def run(plan: Plan[Any], show: Callable[[FileOutcome[Any]], None], options: OutputOptions) -> BatchSummary[Any]:
        with standard_output.ours_alone():  # Ray prints which workers died
            return run_on_cluster(
                plan,
                portable,
                options,
                settings=restorer.settings(),
                device=device,
                workers=workers,
                again=again,
                address=address,
                on_outcome=show,
            )

    say("Ray takes some seconds to begin" if address is None else f"connecting to the Ray cluster at {address}")
    return Engine(restorer.transform, run)
