"""File <-> tensor without loss: bit depth, alpha, gray, colour profile, EXIF, XMP, orientation; folders of files."""

from __future__ import annotations

from serpent_ir.images.content_format import suffix_of_content
from serpent_ir.images.content_hash import content_hash
from serpent_ir.images.folder import IMAGE_SUFFIXES, WRITABLE_SUFFIXES, FolderContent, find_images, lies_in, list_folder
from serpent_ir.images.output_options import OutputOptions
from serpent_ir.images.picture import Picture
from serpent_ir.images.pixels import decode_pixels, encode_pixels, image_size, read_content
from serpent_ir.images.read import decode_picture, read_image
from serpent_ir.images.write import coded_pixels, encode_picture, write_image

__all__ = [
    "IMAGE_SUFFIXES",
    "WRITABLE_SUFFIXES",
    "FolderContent",
    "OutputOptions",
    "Picture",
    "coded_pixels",
    "content_hash",
    "decode_picture",
    "decode_pixels",
    "encode_picture",
    "encode_pixels",
    "find_images",
    "image_size",
    "lies_in",
    "list_folder",
    "read_content",
    "read_image",
    "suffix_of_content",
    "write_image",
]
