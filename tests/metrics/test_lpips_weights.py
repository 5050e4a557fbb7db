from __future__ import annotations

import hashlib
from http.client import IncompleteRead
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from serpent_ir.errors import CheckpointError
from serpent_ir.metrics import load_lpips, lpips_weights

AlexNet = tuple[nn.Sequential, dict[str, Tensor]]


@pytest.fixture
def published(alexnet: AlexNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the place of the published one, which for this test has its hash."""
    monkeypatch.delenv(lpips_weights.VARIABLE, raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    folder = tmp_path / "somewhere"
    folder.mkdir()
    path = folder / lpips_weights.ALEXNET
    torch.save({**alexnet[1], "classifier.1.weight": torch.zeros(4, 4)}, path)
    monkeypatch.setattr(lpips_weights, "ALEXNET_SHA256", hashlib.sha256(path.read_bytes()).hexdigest()[:8])
    monkeypatch.setattr(lpips_weights, "URL", path.as_uri())
    return path


def test_finds_the_file_by_path_folder_and_variable(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, target = torch.rand(1, 3, 40, 40), torch.rand(1, 3, 40, 40)
    values = [load_lpips(place)(image, target) for place in (published, published.parent, str(published))]
    monkeypatch.setenv(lpips_weights.VARIABLE, str(published.parent))
    assert values[0] > 0 and values == [load_lpips()(image, target)] * 3


def test_missing_weights_say_what_from_where_and_where_to(published: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_lpips()
    message = str(caught.value)
    for part in (str(tmp_path / "hub" / "checkpoints" / lpips_weights.ALEXNET), published.as_uri(), "--lpips-weights"):
        assert part in message
    with pytest.raises(CheckpointError, match="elsewhere"):
        load_lpips(tmp_path / "elsewhere")


def test_download_only_when_asked_for(published: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "hub" / "checkpoints" / lpips_weights.ALEXNET
    load_lpips(download=True)
    assert target.read_bytes() == published.read_bytes()
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_a_download_with_another_hash_leaves_nothing(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lpips_weights, "ALEXNET_SHA256", "00000000")
    with pytest.raises(CheckpointError, match="cannot be downloaded"):
        load_lpips(tmp_path / "new", download=True)
    assert list((tmp_path / "new").iterdir()) == []


def test_a_download_that_breaks_off(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise IncompleteRead(b"", 233)

    monkeypatch.setattr(torch.hub, "download_url_to_file", broken)
    with pytest.raises(CheckpointError, match=r"cannot be downloaded.*233 more expected"):
        load_lpips(download=True)


def test_other_files_are_refused(published: Path) -> None:
    published.write_bytes(published.read_bytes() + b"!")
    with pytest.raises(CheckpointError, match="another file, or damaged"):
        load_lpips(published)


def test_nothing_but_tensors_is_unpickled(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"features.0.weight": Path("x")}, published)
    monkeypatch.setattr(lpips_weights, "ALEXNET_SHA256", "")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_lpips(published)


def test_convention_the_real_file_is_the_one_that_is_named() -> None:
    assert lpips_weights.ALEXNET_SHA256 in lpips_weights.ALEXNET and lpips_weights.URL.endswith(lpips_weights.ALEXNET)
    assert lpips_weights.HEADS.with_name("LICENSE").read_text().startswith("Copyright (c) 2018, Richard Zhang")
