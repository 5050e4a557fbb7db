"""The weights of LPIPS: the heads come along, AlexNet's are a file that is found, or downloaded when that is asked for.

The heads (lpips_heads/) are the authors' version 0.1, under the licence beside them.
"""

from __future__ import annotations

import hashlib
import os
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from serpent_ir.errors import CheckpointError
from serpent_ir.metrics.lpips import CONVOLUTIONS, Lpips

ALEXNET = "alexnet-owt-7be5be79.pth"
ALEXNET_SHA256 = "7be5be79"
"""The SHA-256 of that file begins so: torchvision's weights for ImageNet, with which the heads were trained."""

URL = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
VARIABLE = "SERPENT_LPIPS_WEIGHTS"
HEADS = Path(__file__).with_name("lpips_heads") / "alex-v0.1.safetensors"


def load_lpips(weights: str | Path | None = None, download: bool = False, device: str | torch.device = "cpu") -> Lpips:
    """LPIPS with AlexNet on `device`.

    weights: the file alexnet-owt-7be5be79.pth, or the folder that holds it. None: what the environment variable
        SERPENT_LPIPS_WEIGHTS names, else the folder where torch keeps downloaded weights (torchvision puts it there).
    download: fetch the file (233 MB) into that folder from download.pytorch.org when it is not there.

    Raises CheckpointError when the file is missing (the message says where to get it and where to put it), is not the
    published one, or cannot be downloaded. Nothing is ever taken in its place.
    """
    path = weights_file(weights)
    if not path.is_file():
        if not download:
            raise CheckpointError(
                f"LPIPS needs AlexNet's weights, and there is no file {path}",
                f"the file that {URL} gives (233 MB)",
                f"Put it there, or name its folder by --lpips-weights or the environment variable {VARIABLE},"
                " or let --lpips-download fetch it.",
            )
        fetch(path)
    check_hash(path)
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
        alexnet = {name: state[name] for name in state if name.rpartition(".")[0] in CONVOLUTIONS}
    except Exception as error:  # a damaged pickle makes torch raise nearly anything
        raise CheckpointError(f"{path} cannot be read ({type(error).__name__})", f"the file of {URL}") from error
    heads = load_file(HEADS)
    return Lpips(alexnet, [heads[f"lin{index}"] for index in range(len(CONVOLUTIONS))]).to(device)


def weights_file(weights: str | Path | None) -> Path:
    """Where AlexNet's file lies or belongs; see `load_lpips`."""
    place = weights or os.environ.get(VARIABLE) or Path(torch.hub.get_dir()) / "checkpoints"
    path = Path(place).expanduser()
    return path if path.suffix == ".pth" else path / ALEXNET


def fetch(path: Path) -> None:
    """Download the file: whole, with the right hash, or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(URL, str(path), hash_prefix=ALEXNET_SHA256, progress=True)
    except (OSError, HTTPException, RuntimeError) as error:  # RuntimeError: another hash
        raise CheckpointError(
            f"{URL} cannot be downloaded to {path} ({error})",
            "a connection, and a folder that can be written",
            f"Fetch it in another way, and name its folder by --lpips-weights or {VARIABLE}.",
        ) from error


def check_hash(path: Path) -> None:
    """Raise CheckpointError unless the file's SHA-256 begins as that of the published one."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if not digest.hexdigest().startswith(ALEXNET_SHA256):
        raise CheckpointError(
            f"{path} is another file, or damaged (its SHA-256 begins with {digest.hexdigest()[:8]})",
            f"{ALEXNET_SHA256}, the one of {URL}",
            "Other weights give other figures, so none but these are taken.",
        )
