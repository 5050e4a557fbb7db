"""Does Serpent's inference time grow in proportion to the number of pixels?

    python benchmarks/scaling_cpu.py [--threads 2] [--rounds 7]

Serpent-B and -L from 256 x 256 to 2048 x 2048, Serpent-H to 1024 x 1024; float32, batch 1, native scan. The speed of
many machines drifts by more than the exponent may be off, so the sizes are measured in rounds: in each round every size
of every model once (small ones a few times). The exponent is that of the medians over the rounds; its spread, that of
the exponents of the single rounds. Freed memory is kept, as in `serpent profile`, which has the exponents of memory.

Writes results/scaling_cpu.json. Exit status 1 when an exponent is not within 1.0 +- 0.05.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
from common import refuse_when_the_scan_is_wrong, write_result
from torch import nn

from serpent_ir.efficiency import memory
from serpent_ir.efficiency.scaling import fit_exponent
from serpent_ir.models import create_model
from serpent_ir.ops import use_backend

SIZES = {"serpent-b": (256, 512, 1024, 2048), "serpent-l": (256, 512, 1024, 2048), "serpent-h": (256, 512, 1024)}
TOLERANCE = 0.05
SHORTEST = 0.5  # seconds of one size in one round


def pass_seconds(model: nn.Module, size: int) -> float:
    """The median of as many passes as take half a second together, one at least."""
    image = torch.rand(1, 3, size, size)
    seconds: list[float] = []
    while sum(seconds) < SHORTEST:
        start = time.perf_counter()
        model(image)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="threads that torch and the kernels use")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    refuse_when_the_scan_is_wrong(("native",))
    memory.keep_what_is_freed()

    models = {name: create_model(name).eval() for name in SIZES}
    times: dict[str, dict[int, list[float]]] = {name: {size: [] for size in sizes} for name, sizes in SIZES.items()}
    with torch.inference_mode(), use_backend("native"):
        for number in range(arguments.rounds + 1):  # the first is not counted
            for name, model in models.items():
                for size in SIZES[name]:
                    seconds = pass_seconds(model, size)
                    if number:
                        times[name][size].append(seconds)

    result: dict[str, Any] = {"question": (__doc__ or "").splitlines()[0], "unit": "seconds", "models": {}}
    proportional = True
    for name, sizes in times.items():
        pixels = [size * size for size in sizes]
        rounds = [fit_exponent(pixels, values).exponent for values in zip(*sizes.values(), strict=True)]
        fit = fit_exponent(pixels, [statistics.median(values) for values in sizes.values()])
        proportional &= abs(fit.exponent - 1) <= TOLERANCE
        result["models"][name] = {
            "exponent": fit.exponent,
            "exponent_of_rounds": {"smallest": min(rounds), "largest": max(rounds)},
            "sizes": {size: {"median": statistics.median(values), "rounds": values} for size, values in sizes.items()},
        }
        spread = f"{min(rounds):.3f} to {max(rounds):.3f} in single rounds"
        medians = ", ".join(f"{size}² {statistics.median(values):.3f} s" for size, values in sizes.items())
        print(f"{name}: time grows with pixels^{fit.exponent:.3f} ({spread}); {medians}")
    print(f"written: {write_result('scaling_cpu', result)}")
    return 0 if proportional else 1


if __name__ == "__main__":
    raise SystemExit(main())
