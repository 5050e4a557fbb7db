"""EXIF in TIFF files, as Pillow sees it; pages; alpha."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import pyvips
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from serpent_ir.errors import ImageReadError
from serpent_ir.images import Picture, decode_picture, encode_picture, read_image
from serpent_ir.images.tiff import MAX_EXIF, add_exif

MAKE, ORIENTATION, EXPOSURE, TAKEN, MAKER_NOTE, WIDTH, HEIGHT = 271, 274, 0x829A, 0x9003, 0x927C, 0xA002, 0xA003
EXIF, GPS = 0x8769, 0x8825
GRAY = Picture(torch.full((3, 12, 20), 0.4), gray=True)


def exif_block(order: str, note: bytes = b"maker" * 9) -> bytes:
    """What a camera writes, made by Pillow."""
    exif = Image.Exif()
    exif.endian = order
    exif[MAKE], exif[ORIENTATION] = "Serpent", 6
    exif._ifds[EXIF] = {
        EXPOSURE: IFDRational(1, 125),
        TAKEN: "2020:01:02 03:04:05",
        MAKER_NOTE: note,
        WIDTH: 99,
        HEIGHT: 98,
    }
    exif._ifds[GPS] = {1: "N", 2: (48.0, 51.0, 29.5)}
    return exif.tobytes()


def tiff_with_exif(tiff: bytes, exif: bytes, width: int, height: int) -> bytes:
    file = io.BytesIO(tiff)
    add_exif(file, exif, width, height)
    return file.getvalue()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("first", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize("last", [".png", ".jpg", ".tif"])
def test_exif_goes_into_tiff_and_out_of_it(order: str, first: str, last: str) -> None:
    samples = np.random.default_rng(0).integers(0, 256, (12, 20, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(samples).save(file, {".jpg": "JPEG"}.get(first, first[1:].upper()), exif=exif_block(order))
    tiff = encode_picture(decode_picture(file.getvalue(), "camera"), ".tif")
    between = decode_picture(tiff, "between")
    assert (between.height, between.width) == (20, 12) and between.notes == ()
    with Image.open(io.BytesIO(encode_picture(between, last))) as image:
        image.load()
        exif = image.getexif()
        photograph = exif.get_ifd(EXIF)
        assert exif[MAKE] == "Serpent" and exif.get(ORIENTATION, 1) == 1
        assert float(photograph[EXPOSURE]) == pytest.approx(1 / 125)
        assert photograph[TAKEN] == "2020:01:02 03:04:05" and photograph[MAKER_NOTE] == b"maker" * 9
        assert (photograph[WIDTH], photograph[HEIGHT]) == (12, 20)
        assert exif.get_ifd(GPS) == {1: "N", 2: (48.0, 51.0, 29.5)}


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_pixels_of_a_file_with_exif_are_those_of_one_without(bits: int) -> None:
    pixels = torch.rand(3, 9, 7)
    plain = encode_picture(Picture(pixels, bit_depth=bits), ".tif")
    with_exif = encode_picture(Picture(pixels, bit_depth=bits, metadata={"exif-data": exif_block(">")}), ".tif")
    assert torch.equal(decode_picture(with_exif, "with").pixels, decode_picture(plain, "without").pixels)


@given(cut=st.integers(0, 400), place=st.integers(0, 400), value=st.binary(min_size=1, max_size=4))
@settings(max_examples=80, deadline=None)
def test_damaged_exif_is_left_out(cut: int, place: int, value: bytes) -> None:
    """Whatever is wrong with it: the picture is written and read, and nothing worse than ValueError is raised."""
    block = exif_block("<")
    damaged = (block[:place] + value + block[place + len(value) :])[: len(block) - cut]
    tiff = encode_picture(GRAY, ".tif")
    try:
        written = tiff_with_exif(tiff, damaged, 20, 12)
    except ValueError:
        written = tiff
    assert torch.equal(decode_picture(written, "written").pixels, decode_picture(tiff, "plain").pixels)


def test_what_is_left_out_is_said(caplog: pytest.LogCaptureFixture) -> None:
    picture = Picture(torch.zeros(3, 4, 5), metadata={"exif-data": b"Exif\0\0rubbish rubbish"})
    tiff = encode_picture(picture, ".tif")
    assert "EXIF data were left out" in caplog.text
    assert "exif-data" not in decode_picture(tiff, "a").metadata
    good = tiff_with_exif(tiff, exif_block("<"), 5, 4)
    pointer = good.index(struct.pack("<HHI", EXIF, 4, 1)) + 8
    bad = good[:pointer] + struct.pack("<I", len(good) + 10) + good[pointer + 4 :]
    assert "EXIF data are damaged" in decode_picture(bad, "b").notes[0]
    with pytest.raises(ValueError, match=f"more than {MAX_EXIF}"):
        tiff_with_exif(tiff, exif_block("<", b"m" * 70_000), 5, 4)


def test_alpha_that_was_multiplied_in_is_divided_out() -> None:
    """(100, 50, 0) with half the alpha is stored as (50, 25, 0)."""
    colours = np.zeros((3, 4, 4), np.uint8)
    colours[..., :] = (100, 50, 0, 128)
    stored = pyvips.Image.new_from_array(colours).copy(interpretation="srgb").tiffsave_buffer(premultiply=True)
    with Image.open(io.BytesIO(stored)) as image:
        assert image.tag_v2[338] == 1 or image.tag_v2[338] == (1,)
    picture = decode_picture(stored, "stored")
    assert picture.pixels.mul(255)[:, 0, 0].tolist() == pytest.approx([100, 50, 0], abs=2)
    assert picture.alpha is not None


def pages(count: int, circle: bool = False) -> bytes:
    """A TIFF file of gray pages of one pixel each, in a circle if so wished."""
    entries = ((256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 1))
    table = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    size = len(table) + 4
    links = [12 + size * (page + 1) for page in range(count - 1)] + [12 if circle else 0]
    return struct.pack("<2sHI4x", b"II", 42, 12) + b"".join(table + struct.pack("<I", link) for link in links)


def test_pages(tmp_path: Path) -> None:
    assert decode_picture(pages(1), "a").notes == ()
    assert decode_picture(pages(3), "a").notes == ("the first of 3 pages was read",)
    (tmp_path / "many.tif").write_bytes(pages(10_001))
    with pytest.raises(ImageReadError, match=r"many\.tif has more than 10,000 pages"):
        read_image(tmp_path / "many.tif")
    with pytest.raises(ImageReadError, match="pages in a circle"):
        decode_picture(pages(3, circle=True), "round.tif")


def test_frames_of_webp() -> None:
    """An animation whose second frame is repeated is refused before anybody counts the frames slowly."""
    frames = pyvips.Image.new_from_array(np.arange(8 * 4 * 3, dtype=np.uint8).reshape(8, 4, 3)).copy(
        interpretation="srgb"
    )
    frames.set_type(pyvips.GValue.gint_type, "page-height", 4)
    animation = frames.webpsave_buffer(lossless=True)
    assert decode_picture(animation, "a").notes == ("the first of 2 pages was read",)
    body = animation[12:] + animation[animation.rindex(b"ANMF") :] * 10_000
    with pytest.raises(ImageReadError, match="more than 10,000 pages"):
        decode_picture(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body, "long.webp")
