from __future__ import annotations

import pytest
import pyvips

from serpent_ir.errors import ImageReadError
from serpent_ir.images import decode_picture


def test_a_message_that_is_no_text_does_not_spoil_the_next() -> None:
    image = pyvips.Image.black(8, 8, bands=4).copy(interpretation="srgb")
    damaged = bytes(image.write_to_buffer(".avif")).replace(b"auxC", b"a\xff\xffC")  # which libheif quotes
    with pytest.raises(ImageReadError, match=r"a\.avif is truncated or damaged; expected"):
        decode_picture(damaged, "a.avif")
    with pytest.raises(ImageReadError, match=r"b\.png is truncated or damaged \(.*[Pp]ng"):
        decode_picture(bytes(image.write_to_buffer(".png"))[:60], "b.png")
