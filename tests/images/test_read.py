from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import pyvips
import torch

from serpent_ir.errors import ImageReadError, RangeError
from serpent_ir.images import Picture, read, read_image, write_image


def noise(height: int, width: int, bands: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (height, width, bands)).astype(dtype)


def vips(samples: np.ndarray, interpretation: str = "srgb") -> pyvips.Image:
    return pyvips.Image.new_from_array(samples).copy(interpretation=interpretation)


def png(width: int, height: int, colour_type: int, raw: bytes, bits: int = 8, palette: bytes = b"") -> bytes:
    """A PNG file put together by hand; `raw` holds the rows with their filter bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))
    colours = chunk(b"PLTE", palette) if palette else b""
    return b"\x89PNG\r\n\x1a\n" + header + colours + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def test_values_and_channel_order(tmp_path: Path) -> None:
    """A 2 x 1 file whose bytes are known: red, green, blue is the order, v / 255 the value."""
    path = tmp_path / "picture.png"
    path.write_bytes(png(2, 1, 2, bytes([0, 255, 0, 51, 10, 20, 30])))
    picture = read_image(str(path))
    assert picture.pixels.dtype == torch.float32
    expected = torch.tensor([[[255, 10]], [[0, 20]], [[51, 30]]]) / 255
    assert torch.equal(picture.pixels, expected)
    assert (picture.bit_depth, picture.gray, picture.alpha) == (8, False, None)
    assert (picture.height, picture.width) == (1, 2)


def test_palette_is_expanded(tmp_path: Path) -> None:
    path = tmp_path / "palette.png"
    path.write_bytes(png(3, 1, 3, bytes([0, 0, 1, 0]), palette=bytes([9, 8, 7, 200, 100, 50])))
    picture = read_image(path)
    assert not picture.gray
    assert (picture.pixels[:, 0] * 255).round().T.tolist() == [[9, 8, 7], [200, 100, 50], [9, 8, 7]]


def test_one_bit_becomes_eight(tmp_path: Path) -> None:
    path = tmp_path / "bilevel.png"
    path.write_bytes(png(3, 1, 0, bytes([0, 0b10100000]), bits=1))
    picture = read_image(path)
    assert (picture.gray, picture.bit_depth) == (True, 8)
    assert picture.pixels[0].tolist() == [[1, 0, 1]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_orientation_is_applied_and_reset(tmp_path: Path, suffix: str, orientation: int) -> None:
    """The table of the EXIF standard, by where the stored first row and first column belong."""
    # a smooth picture whose four corners differ, so that a lossy JPEG does as well
    rows, columns = np.meshgrid(np.linspace(0, 120, 24), np.linspace(0, 60, 16), indexing="ij")
    upright = np.repeat((rows + columns)[..., None], 3, axis=2).astype(np.uint8)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),  # stored a quarter turn to the left, for the viewer to turn right
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    image = vips(np.ascontiguousarray(stored)).copy()
    image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    path = tmp_path / f"turned.{suffix}"
    image.write_to_file(
        str(path), **({"Q": 100} if suffix == "jpg" else {"lossless": True} if suffix == "webp" else {})
    )
    picture = read_image(path)
    difference = (picture.pixels * 255 - torch.from_numpy(upright).permute(2, 0, 1)).abs().max()
    assert difference <= (3 if suffix == "jpg" else 1e-4)


def test_cmyk_goes_through_its_profile_to_srgb(tmp_path: Path) -> None:
    """White paper, black ink and full cyan, as any printer's profile must show them; the profile is not kept."""
    inks = np.zeros((8, 24, 4), np.uint8)
    inks[:, 8:16] = (200, 200, 200, 255)
    inks[:, 16:] = (255, 0, 0, 0)
    path = tmp_path / "inks.tif"
    profile = pyvips.Image.black(1, 1, bands=3).copy(interpretation="srgb").icc_export(output_profile="cmyk")
    image = vips(inks, "cmyk").copy()
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile.get("icc-profile-data"))
    image.tiffsave(str(path))
    picture = read_image(path)
    paper, black, cyan = picture.pixels[:, 4, 4], picture.pixels[:, 4, 12], picture.pixels[:, 4, 20]
    assert paper.min() > 0.95
    assert black.max() < 0.2
    assert cyan[0] < 0.3 < 0.5 < cyan[1] < cyan[2]
    assert "icc-profile-data" not in picture.metadata
    assert (picture.gray, picture.bit_depth) == (False, 8)


def test_gif_is_read(tmp_path: Path) -> None:
    path = tmp_path / "picture.gif"
    vips(np.full((5, 6, 3), 255, np.uint8)).write_to_file(str(path))
    assert torch.equal(read_image(path).pixels, torch.ones(3, 5, 6))


def test_name_with_brackets_is_no_option(tmp_path: Path) -> None:
    path = tmp_path / "holiday.png[n=2]"
    path.write_bytes(png(1, 1, 0, bytes([0, 7])))
    assert read_image(path).pixels.flatten().tolist() == pytest.approx([7 / 255] * 3)


@pytest.mark.parametrize("fraction", [0.02, 0.5, 0.95])
@pytest.mark.parametrize(
    ("suffix", "options"),
    [("png", {}), ("jpg", {}), ("tif", {}), ("tif", {"compression": "deflate"}), ("webp", {}), ("gif", {})],
)
def test_truncated(tmp_path: Path, suffix: str, options: dict[str, str], fraction: float) -> None:
    path = tmp_path / f"picture.{suffix}"
    vips(noise(96, 80, 3)).write_to_file(str(path), **options)
    content = path.read_bytes()
    read_image(path)
    path.write_bytes(content[: int(len(content) * fraction)])
    with pytest.raises(ImageReadError, match=r"picture\.\w+ is truncated or damaged"):
        read_image(path)


def test_damaged_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    vips(noise(96, 80, 3)).write_to_file(str(path))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ImageReadError, match="truncated or damaged"):
        read_image(path)


def test_rubbish_after_the_end_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    vips(noise(9, 8, 3)).write_to_file(str(path))
    path.write_bytes(path.read_bytes() + b"appended by a camera")
    assert read_image(path).pixels.shape == (3, 9, 8)


def test_what_is_not_an_image(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    with pytest.raises(ImageReadError, match="does not exist"):
        read_image(path)
    path.write_bytes(b"")
    with pytest.raises(ImageReadError, match=r"is empty \(0 bytes\)"):
        read_image(path)
    for content in (b"dear diary, ", b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", b"\x00" * 99):
        path.write_bytes(content)
        with pytest.raises(ImageReadError, match="not an image of a known format"):
            read_image(path)
    with pytest.raises(ImageReadError, match="is a folder"):
        read_image(tmp_path)


def test_huge_header_is_refused_before_memory_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(60000, 60000, 2, b"\0" * 1000))
    with pytest.raises(ImageReadError, match=r"60000 x 60000 = 3,600,000,000 pixels; expected at most 500,000,000"):
        read_image(path)
    with pytest.raises(ImageReadError, match=r"SERPENT_MAX_PIXELS.*max_pixels"):
        read_image(path)
    path.write_bytes(png(30, 20, 0, (b"\0" + b"\1" * 30) * 20))
    assert read_image(path).pixels.shape == (3, 20, 30)
    with pytest.raises(ImageReadError, match="30 x 20 = 600 pixels; expected at most 599"):
        read_image(path, max_pixels=599)
    monkeypatch.setenv("SERPENT_MAX_PIXELS", "599")
    with pytest.raises(ImageReadError, match="at most 599"):
        read_image(path)
    assert read_image(path, max_pixels=600).pixels.shape == (3, 20, 30)
    monkeypatch.setenv("SERPENT_MAX_PIXELS", "many")
    with pytest.raises(RangeError, match="SERPENT_MAX_PIXELS='many'"):
        read_image(path)


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", Path("/dev/null")):
        with pytest.raises(ImageReadError, match="is a pipe, socket or device"):
            read_image(path)


def test_reading_leaves_no_open_files(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(png(3, 2, 0, (b"\0" + b"\1" * 3) * 2))
    read_image(path)
    before = len(os.listdir("/dev/fd"))
    for _ in range(5):
        read_image(path)
    assert len(os.listdir("/dev/fd")) == before


def test_a_picture_that_does_not_fit_into_memory_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below the limit of pixels; nobody asks for small ones."""
    write_image(Picture(torch.rand(3, 10, 20)), tmp_path / "a.png")
    monkeypatch.setattr(read, "affordable", lambda: 200 * 3 * (1 + 8) - 1)
    assert read_image(tmp_path / "a.png").width == 20
    monkeypatch.setattr(read, "SMALL", 199)
    with pytest.raises(ImageReadError, match=r"a\.png of 20 x 10 pixels takes 5\.4e-06 GB of memory"):
        read_image(tmp_path / "a.png")
    monkeypatch.setattr(read, "affordable", lambda: 200 * 3 * (1 + 8))
    assert read_image(tmp_path / "a.png").width == 20
