"""Kill `serpent restore` on a folder at random moments, again and again, and compare with a run that was left alone.

    python tools/kill_and_resume_folder.py --images 1000 --kills 5

Both runs are real processes with worker processes of their own, on random images in several folders and formats, with a
tiny model. Prints a line of JSON, and ends with status 0 when each result is there once, equal byte for byte to that of
the run left alone, and nothing lies beside them but the journal; else with status 1.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from serpent_ir.images import Picture, write_image
from serpent_ir.models import create_model, save_model
from serpent_ir.restoration.journal import NAME as JOURNAL

TINY = {"embed_channels": 6, "depths_down": (1,), "depth_bottleneck": 1, "depths_up": (0,), "directions": 1}
COMMAND = (sys.executable, "-c", "from serpent_ir.cli.main import main; main()", "restore")


def make_images(folder: Path, count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for number in range(count):
        height, width = (int(side) for side in torch.randint(16, 80, (2,), generator=generator))
        pixels = torch.rand(3, height, width, generator=generator)
        suffix = (".png", ".jpg", ".tif", ".webp")[number % 4]
        write_image(Picture(pixels), folder / str(number % 7) / f"{number:05}{suffix}")


def start(source: Path, target: Path, weights: Path, workers: int) -> subprocess.Popen[bytes]:
    """A run; what it says is appended to a file beside its folder."""
    arguments = [source, target, "--model", weights, "--workers", workers, "--device", "cpu"]
    with target.with_suffix(".log").open("ab") as log:
        return subprocess.Popen([*COMMAND, *map(str, arguments)], stdout=log, stderr=log)


def finished(target: Path) -> int:
    """How many files the journal says were done."""
    journal = target / JOURNAL
    return journal.read_bytes().count(b'"status": "done"') if journal.exists() else 0


def kill_at_random(process: subprocess.Popen[bytes], target: Path, images: int, kills_left: int) -> list[int]:
    """Kill after a random share of what is left to do; returns which processes it had begun (Linux)."""
    before = finished(target)
    wanted = before + random.randint(0, max(1, (images - before) // (kills_left + 1)))
    while process.poll() is None and finished(target) < wanted:
        time.sleep(0.005)
    end = time.monotonic() + random.uniform(0, 0.05)
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.001)
    children = children_of(process.pid)
    process.kill()
    process.wait()
    return children


def children_of(process: int) -> list[int]:
    """Empty where there is no /proc."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = status.read_text().rpartition(")")[2].split()[1]
        except OSError:  # it ended
            continue
        found += [int(status.parent.name)] if parent == str(process) else []
    return found


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if not path.is_dir() and path != folder / JOURNAL)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=None, help="of the random moments")
    parser.add_argument("--folder", type=Path, default=None, help="for everything; a new temporary one by default")
    options = parser.parse_args()
    random.seed(options.seed)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="kill-and-resume-folder-"))
    source, killed, alone, weights = (folder / name for name in ("in", "killed", "alone", "tiny.safetensors"))
    make_images(source, options.images)
    torch.manual_seed(0)
    save_model(create_model("serpent-b", **TINY), weights, task="deblur")

    done, leftovers, children = list[int](), list[int](), list[int]()
    for kill in range(options.kills):
        process = start(source, killed, weights, options.workers)
        children += kill_at_random(process, killed, options.images, options.kills - kill - 1)
        done.append(finished(killed))
        leftovers.append(sum(1 for _ in killed.rglob("*.part")))
    statuses = [start(source, target, weights, options.workers).wait() for target in (killed, alone)]
    found, expected = contents(killed), contents(alone)
    result = {
        "images": options.images,
        "kills": options.kills,
        "done_at_kills": done,
        "half_written_at_kills": leftovers,
        "statuses": statuses,
        "results": len(expected),
        "missing": sorted(expected.keys() - found.keys()),
        "beside_them": sorted(found.keys() - expected.keys()),
        "different": sorted(name for name in expected.keys() & found.keys() if expected[name] != found[name]),
        "workers_at_kills": len(children),
        "workers_left": sum(Path(f"/proc/{child}").exists() for child in children),
    }
    print(json.dumps(result))
    bad = any(result[name] for name in ("missing", "beside_them", "different", "workers_left"))
    sys.exit(1 if bad or any(statuses) or len(expected) != options.images else 0)


if __name__ == "__main__":
    main()
