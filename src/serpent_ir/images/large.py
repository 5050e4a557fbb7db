"""Image files that are larger than memory: read and written some rows at a time."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np
import pyvips

from serpent_ir.errors import ImageReadError, ImageWriteError
from serpent_ir.files import replacing
from serpent_ir.images.messages import named_reading
from serpent_ir.images.output_options import OutputOptions
from serpent_ir.images.picture import Picture
from serpent_ir.images.read import (
    SAMPLE_TYPES,
    TRANSPOSED_ORIENTATIONS,
    check_finite,
    check_signature,
    damaged,
    exif_beside,
    facts_of,
    maximum_of,
    notes_of_range,
    opened,
    orientation_of,
    picture_from_samples,
    reason_of,
    to_rgb_or_gray,
)
from serpent_ir.images.tiff import beginning_of_samples
from serpent_ir.images.write import (
    TIFF,
    append_exif,
    check_side,
    named_writing,
    samples_of_picture,
    saver_for,
    suffix_of,
    with_header,
    without_alpha,
)

STRIP_BYTES = 16 * 2**20
"""Of samples, fetched at a time on the way to rows further down."""
KEPT_ABOVE = 64
"""Rows that are kept above those that were asked for, since the next ones may begin a little higher."""


def size_of_file(path: Path, max_pixels: int | None = None) -> tuple[int, int]:
    """(H, W), upright, from a file's header alone. Raises ImageReadError when there is none that can be used."""
    check_signature(path)
    try:
        with path.open("rb", buffering=0) as file:
            image = opened(file, path, max_pixels)
            sideways = orientation_of(image) in TRANSPOSED_ORIENTATIONS
            return (image.width, image.height) if sideways else (image.height, image.width)
    except ImageReadError:
        raise
    except OSError as error:
        raise ImageReadError(f"{path} cannot be opened ({error.strerror})", "a readable image file") from error


class PictureReader:
    """The picture of a file, as `read_image` reads it, but some rows at a time.

    height, width: of the upright picture. Rows are best read from top to bottom: going back further than the rows that
    were read last begins the file anew. A file whose orientation is not upright is decoded into a temporary file first,
    by libvips, where its format has no random access.

    Raises ImageReadError as `read_image` does; damage is found when the rows that it affects are read.
    """

    def __init__(self, path: Path, max_pixels: int | None = None) -> None:
        check_signature(path)
        self._path, self._max_pixels = path, max_pixels
        self._range = math.inf, -math.inf  # of floating point samples that were read
        self._notes: tuple[str, ...] = ()
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise ImageReadError(f"{path} cannot be opened ({error.strerror})", "a readable image file") from error
        try:
            self._exif = exif_beside(self._file)
            self._open()
        except BaseException:
            self._file.close()
            raise

    def _open(self) -> None:
        image = opened(self._file, self._path, self._max_pixels)
        self._metadata, self._facts = facts_of(image, *self._exif)
        orientation = orientation_of(image)
        self._maximum = maximum_of(image)
        if orientation != 1:
            image = opened(self._file, self._path, self._max_pixels, access="random")
        image = to_rgb_or_gray(image)
        if orientation != 1:
            image = image.autorot()
        self._region, self._bands = pyvips.Region.new(image), image.bands
        self.height, self.width = image.height, image.width
        self._rows: np.ndarray = np.empty((0, image.width, image.bands), SAMPLE_TYPES[image.format])
        self._position = 0  # the row after those

    def read(self, first: int, end: int) -> Picture:
        """The rows from `first` up to `end`."""
        if first < self._position - len(self._rows):
            self._open()
        lowest = max(first - KEPT_ABOVE, 0)
        parts, strip = [self._rows], max(STRIP_BYTES // (self.width * self._bands * self._rows.itemsize), 1)
        while self._position < end:
            count = min(strip, end - self._position)
            try:
                with named_reading(self._path):
                    content = self._region.fetch(0, self._position, self.width, count)
            except pyvips.Error as error:
                raise damaged(self._path, error) from error
            part = np.frombuffer(content, self._rows.dtype).reshape(count, self.width, self._bands)
            parts.append(part[max(lowest - self._position, 0) :])
            self._position += count
        if len(parts) > 1:
            rows = np.concatenate(parts)
            self._rows = rows[max(len(rows) - (self._position - lowest), 0) :]
        top = self._position - len(self._rows)
        wanted = self._rows[first - top : end - top]
        check_finite(self._path, wanted)
        picture = picture_from_samples(wanted, self._maximum, dict(self._metadata), [*self._facts])
        if picture.bit_depth == 32:
            self._range = min(self._range[0], float(wanted.min())), max(self._range[1], float(wanted.max()))
        self._notes = picture.notes
        return picture

    def notes(self) -> tuple[str, ...]:
        """What there is to say of the picture, as far as it was read."""
        return *self._notes, *notes_of_range(*(value / self._maximum for value in self._range))

    def stamp(self) -> tuple[int, int]:
        """Size of the file and time of its last change, in nanoseconds."""
        status = os.fstat(self._file.fileno())
        return status.st_size, status.st_mtime_ns

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> PictureReader:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class PictureWriter:
    """Writes a picture as `write_image` does, but some rows at a time, from top to bottom.

    Until `finish`, the samples lie in the file `scratch`, an uncompressed TIFF file; those that another writer left
    there count. Nobody else writes `path` meanwhile.
    like: rows of the picture to be written: its depth, colours, metadata, and whether it has alpha. Raises
    ImageWriteError as `write_image` does.
    """

    def __init__(
        self, path: Path, scratch: Path, height: int, width: int, like: Picture, options: OutputOptions | None = None
    ) -> None:
        options = options or OutputOptions()
        self._path, self._scratch, self._height, self._width = path, scratch, height, width
        suffix = suffix_of(path, options)
        self._saver, self._bits = saver_for(suffix, options, like.bit_depth)
        with named_writing(path):
            check_side(self._saver, suffix, height, width)
        self.keeps_alpha = self._saver.alpha
        self._quality = options.quality
        self._gray = like.gray and self._saver.gray
        one = replace(like, pixels=like.pixels[:, :1, :1], alpha=None)
        sample, self._fields = samples_of_picture(one, self._bits, self._gray)
        self._type = sample.dtype
        self._bands = sample.shape[2] + (like.alpha is not None and self._saver.alpha)
        self._beginning = beginning_of_samples(height, width, self._bands, self._gray, self._type)

    def write(self, first: int, rows: Picture) -> None:
        """Rows of the picture, from row `first` on."""
        if not self._saver.alpha:
            rows = without_alpha(rows)
        samples, _ = samples_of_picture(rows, self._bits, self._gray)
        try:
            with open(os.open(self._scratch, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                file.write(self._beginning)
                file.seek(len(self._beginning) + first * self._type.itemsize * self._width * self._bands)
                file.write(samples.data)
        except OSError as error:
            raise ImageWriteError(f"{self._scratch} cannot be written ({error.strerror})") from error

    def sync(self) -> None:
        """See that what was written is on the disk."""
        try:
            with self._scratch.open("rb+") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise ImageWriteError(f"{self._scratch} cannot be written ({error.strerror})") from error

    def finish(self) -> None:
        """Encode what was written."""
        try:
            # As a stream: what libvips opens by name it maps into memory.
            with self._scratch.open("rb", buffering=0) as file:
                samples = pyvips.Source.new_from_descriptor(file.fileno())
            image = pyvips.Image.new_from_source(samples, "", access="sequential", fail_on="error")
            image = with_header(image, self._bits, self._gray, dict(self._fields))
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._path, alone=True) as temporary:
                with temporary.open("wb+") as file:
                    self._saver.save(image, pyvips.Target.new_to_descriptor(file.fileno()), self._quality)
                if self._saver is TIFF:
                    with temporary.open("rb+") as file:
                        append_exif(file, self._fields, self._width, self._height)
        except pyvips.Error as error:
            raise ImageWriteError(f"{self._path} cannot be written ({reason_of(error)})") from error
        except OSError as error:
            raise ImageWriteError(f"{self._path} cannot be written ({error.strerror})") from error
