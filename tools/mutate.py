"""Send damaged images through `serpent restore`: none may crash it, take long, or vanish without a word.

    python tools/mutate.py --files 2000

Small images of all formats (8 and 16 bits, gray, with alpha) are damaged at random: bits flipped, bytes overwritten,
cut off, cut out, doubled, and headers that lie. All go through one real `serpent restore` with a tiny model.
Prints a line of JSON, and ends with status 0 when the exit status was 0 or 1, each file has either a result that can be
read or a reason, no other file is there, no process died, and no file took more than --seconds; else with status 1.
"""

from __future__ import annotations

import argparse
import json
import random
import struct
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pyvips
import torch

from serpent_ir.errors import ImageReadError
from serpent_ir.images import read_image
from serpent_ir.models import create_model, save_model
from serpent_ir.restoration.journal import NAME as JOURNAL

TINY = {"embed_channels": 6, "depths_down": (1,), "depth_bottleneck": 1, "depths_up": (0,), "directions": 1}
COMMAND = (sys.executable, "-c", "from serpent_ir.cli.main import main; main()", "restore")
FORMATS = {
    ".png": (8, 16),
    ".jpg": (8,),
    ".tif": (8, 16),
    ".webp": (8,),
    ".avif": (8,),
    ".gif": (8,),
}
LIES = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 100_000)


def whole_images() -> list[tuple[str, bytes]]:
    """(suffix, content) of undamaged images: all formats, depths, with and without colour and alpha."""
    made = []
    generator = np.random.default_rng(0)
    for suffix, depths in FORMATS.items():
        for bits in depths:
            for bands in (1, 2, 3, 4):
                samples = generator.integers(0, 1 << bits, (37, 53, bands)).astype(f"uint{bits}")
                names = {(True, 8): "b-w", (True, 16): "grey16", (False, 8): "srgb", (False, 16): "rgb16"}
                image = pyvips.Image.new_from_array(samples).copy(interpretation=names[bands < 3, bits])
                try:
                    made.append((suffix, bytes(image.write_to_buffer(suffix))))
                except pyvips.Error as error:
                    print(f"{suffix} of {bands} channels cannot be made here: {error}", file=sys.stderr)
    return made


def flipped(content: bytearray) -> None:
    for _ in range(random.choice((1, 1, 3, 20))):
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)


def overwritten(content: bytearray) -> None:
    start, length = random.randrange(len(content)), random.choice((1, 4, 16, 100))
    content[start : start + length] = random.choice((bytes(length), b"\xff" * length, random.randbytes(length)))


def cut_off(content: bytearray) -> None:
    del content[random.randrange(len(content)) :]


def cut_out(content: bytearray) -> None:
    start = random.randrange(len(content))
    del content[start : start + random.choice((1, 2, 10, 200))]


def doubled(content: bytearray) -> None:
    start, length = random.randrange(len(content)), random.choice((1, 10, 200))
    content[start:start] = content[start : start + length]


def lying(content: bytearray) -> None:
    """A number near the beginning is another one; of a PNG file width or height, with the right checksum."""
    lie = random.choice(LIES)
    if content[:4] == b"\x89PNG" and random.random() < 0.7:
        struct.pack_into(">I", content, random.choice((16, 20)), lie)
        struct.pack_into(">I", content, 29, zlib.crc32(content[12:29]))
        return
    form, size = random.choice(((">I", 4), ("<I", 4), (">H", 2), ("<H", 2)))
    struct.pack_into(form, content, random.randrange(min(len(content), 400) - size), lie & ((1 << 8 * size) - 1))


DAMAGES = (flipped, overwritten, cut_off, cut_out, doubled, lying, lying)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0, help="that one file may take")
    parser.add_argument("--limit", type=float, default=1200.0, help="seconds that the run may take; then it hangs")
    parser.add_argument("--seed", type=int, default=0, help="of the damages")
    parser.add_argument("--folder", type=Path, default=None, help="for everything; a new temporary one by default")
    options = parser.parse_args()
    random.seed(options.seed)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="mutate-"))
    source, target, weights = (folder / name for name in ("in", "out", "tiny.safetensors"))
    source.mkdir(parents=True)
    images = whole_images()
    for number in range(options.files):
        suffix, whole = images[number % len(images)]
        content, damage = bytearray(whole), random.choice(DAMAGES)
        damage(content)
        (source / f"{number:05}-{damage.__name__}{suffix}").write_bytes(content)
    torch.manual_seed(0)
    save_model(create_model("serpent-b", **TINY), weights, task="deblur")

    arguments = [source, target, "--model", weights, "--workers", options.workers, "--device", "cpu", "--json"]
    with (folder / "log").open("wb") as log:
        try:
            run = subprocess.run(
                [*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=log, timeout=options.limit
            )
        except subprocess.TimeoutExpired:
            sys.exit(f"hangs: it had not ended after {options.limit:g} s; see {folder / 'log'}")
    *lines, _ = [json.loads(line) for line in run.stdout.splitlines()] or [None]
    done = {Path(line["output"]) for line in lines if line["status"] == "done"}
    failed = [line for line in lines if line["status"] == "failed"]
    there = {path for path in target.rglob("*") if not path.is_dir() and path != target / JOURNAL}
    result = {
        "files": options.files,
        "exit_status": run.returncode,
        "done": len(done),
        "failed": len(failed),
        "done_by_damage": Counter(path.stem.rpartition("-")[2] for path in done),
        "without_a_word": sorted({str(path) for path in source.iterdir()} - {line["source"] for line in lines})[:10],
        "without_a_reason": sorted(line["source"] for line in failed if not line["reason"]),
        "unexplained": sorted(str(path) for path in there ^ done)[:10],
        "unreadable": sorted(str(path) for path in there & done if not is_image(path)),
        "died": sorted(line["source"] for line in failed if " died (" in line["reason"]),
        "slow": sorted(line["source"] for line in lines if sum(line["seconds"].values()) > options.seconds),
        "most_seconds": max((sum(line["seconds"].values()) for line in lines), default=0.0),
    }
    print(json.dumps(result))
    faults = ("without_a_word", "without_a_reason", "unexplained", "unreadable", "died", "slow")
    sys.exit(1 if run.returncode not in (0, 1) or any(result[name] for name in faults) else 0)


def is_image(path: Path) -> bool:
    try:
        read_image(path)
    except ImageReadError:
        return False
    return True


if __name__ == "__main__":
    main()
