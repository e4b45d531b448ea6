"""Images of every stored form become the same colour image, or are recognised as depth."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vla.data.readers.pixels import decode_pixels, depth_to_grey, is_depth, peak_of
from vla.errors import BadSample

COLOUR = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]
MM = np.linspace(400, 1900, 240).reshape(12, 20).astype(np.uint16)


def encoded(image: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


RGBA = np.dstack([COLOUR, np.full((12, 20), 7, np.uint8)])
SAME: dict[str, Any] = {
    "png": encoded(COLOUR),
    "webp": encoded(COLOUR, "WEBP", lossless=True),
    "bmp": encoded(COLOUR, "BMP"),
    "memoryview": memoryview(encoded(COLOUR)),
    "uint8 vector": np.frombuffer(encoded(COLOUR) + b"\0" * 9, np.uint8),
    "rgba png": encoded(RGBA),
    "array": COLOUR,
    "rgba": RGBA,
    "channels first": np.moveaxis(COLOUR, 2, 0),
    "rgba channels first": np.moveaxis(RGBA, 2, 0),
    "one image in a batch": COLOUR[None],
    "float 0..1": COLOUR.astype(np.float32) / 255,
    "float 0..255": COLOUR.astype(np.float64),
    "half": COLOUR.astype(np.float16),
    "int64": COLOUR.astype(np.int64),
    "uint16 of 8 bits": COLOUR.astype(np.uint16),
    "uint16": COLOUR.astype(np.uint16) * 257,
    "fortran order": np.asfortranarray(COLOUR),
}


@pytest.mark.parametrize("name", SAME)
def test_every_stored_form_of_a_colour_image_gives_the_same_pixels(name: str) -> None:
    image = decode_pixels(SAME[name], "x")
    assert image.dtype == np.uint8 and np.array_equal(image, COLOUR)


@pytest.mark.parametrize(
    "value",
    [GREY, GREY[..., None], GREY[None], encoded(GREY), GREY / 255.0, GREY.astype(np.float32)],
)
def test_grey_images_have_three_equal_colours(value: Any) -> None:
    assert np.array_equal(decode_pixels(value, "x"), np.repeat(GREY[..., None], 3, 2))


def test_jpeg_images_of_colour_grey_and_cmyk_are_decoded() -> None:
    smooth = np.asarray(Image.fromarray(COLOUR[:2, :2]).resize((20, 12)))
    for data in (
        encoded(smooth, "JPEG", quality=98),
        encoded(smooth, "JPEG", quality=98) + b"\0" * 50,  # padded to a fixed length
        encoded(smooth, "JPEG", quality=98, progressive=True),
    ):
        assert np.abs(decode_pixels(data, "x").astype(int) - smooth).mean() < 6
    buffer = io.BytesIO()
    Image.fromarray(smooth).convert("CMYK").save(buffer, "JPEG", quality=98)
    assert np.abs(decode_pixels(buffer.getvalue(), "x").astype(int) - smooth).mean() < 6


@pytest.mark.parametrize(
    "value",
    [encoded(MM), MM, MM[None], MM[..., None], MM / 1000.0, MM.astype(np.float32), MM.astype("i4")],
)
def test_depth_is_returned_as_distances_and_never_as_colour(value: Any) -> None:
    image = decode_pixels(value, "x")
    assert image.shape == MM.shape and image.dtype != np.uint8
    scale = 1000 if image.max() < 20 else 1
    assert np.allclose(image * scale, MM)


def test_near_distances_are_depth_only_if_they_are_declared() -> None:
    near = np.linspace(0.2, 0.9, 240).reshape(12, 20)
    assert decode_pixels(near, "x").ndim == 3
    assert np.array_equal(decode_pixels(near, "x", depth=True), near)
    assert is_depth("observation.images.depth", 1) and is_depth("head_depth")
    assert not is_depth("depth_rgb", 3) and not is_depth("indepth", 1)


def test_distances_become_grey_over_the_stated_range() -> None:
    mm = np.array([[0, 500, 1000, 1500, 4000]], np.uint16)
    assert depth_to_grey(mm, (500, 1500))[0, :, 0].tolist() == [0, 0, 128, 255, 255]
    metres = np.array([[np.nan, 0.5, 1.0, 1.5, np.inf]])
    assert depth_to_grey(metres, (500, 1500))[0, :, 0].tolist() == [0, 0, 128, 255, 0]


def test_a_dark_image_is_scaled_as_the_other_images_of_its_camera() -> None:
    bright, dark = COLOUR.astype(np.float32), np.full((12, 20, 3), 0.6, np.float32)
    peak = peak_of([bright, dark])
    assert decode_pixels(dark, "x", peak=peak).max() == 1
    assert decode_pixels(dark, "x").max() == 153  # judged alone


def test_declared_layouts_decide_between_two_possible_axes() -> None:
    assert decode_pixels(np.zeros((4, 5, 3), np.uint8), "x").shape == (4, 5, 3)
    image = np.arange(3 * 8 * 3, dtype=np.uint8).reshape(3, 8, 3)
    assert np.array_equal(decode_pixels(image, "x", channels_first=False), image)
    assert decode_pixels(image, "x", channels_first=True).shape == (8, 3, 3)
    with pytest.raises(BadSample, match=r"row 4: image of shape \(3, 8, 3\); expected"):
        decode_pixels(image, "row 4")


def _bomb() -> bytes:
    """A PNG of 30000 x 30000 px in few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", 30000, 30000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")


BAD: dict[str, tuple[Any, str]] = {
    "empty": (b"", "unreadable image"),
    "zeros": (b"\0" * 40, "unreadable image"),
    "png head": (b"\x89PNG\r\n\x1a\nnothing", "unreadable image"),
    "half a png": (encoded(COLOUR)[:300], "unreadable image"),
    "png with one other byte": (
        encoded(COLOUR)[:200] + b"\0" + encoded(COLOUR)[201:],
        "wrong checksum in a PNG",
    ),
    "half a jpeg": (encoded(COLOUR, "JPEG")[:400], "unreadable image"),
    "bomb": (_bomb(), "image"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
    "negative": (COLOUR / 127.5 - 1, r"values from -1 to"),
    "too large": (COLOUR * 9.0, r"values from 0 to 2"),
    "nan": (np.full((6, 7, 3), np.nan), "NaN"),
    "text": (np.full((6, 7, 3), "a"), "image of type"),
    "five channels": (np.zeros((6, 7, 5), np.uint8), r"image of shape \(6, 7, 5\)"),
    "no pixels": (np.zeros((0, 5, 3), np.uint8), "image of"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_image_is_a_bad_sample_with_its_place(name: str) -> None:
    value, message = BAD[name]
    with pytest.raises(BadSample, match=f"a.parquet: episode 3, row 5: .*{message}"):
        decode_pixels(value, "a.parquet: episode 3, row 5")
