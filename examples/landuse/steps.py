"""The steps of the land-use example: plain functions of arrays, with no trace of the engine.

A pixel is described by its colour and by how rough its neighbourhood is; it gets the class whose typical description
is nearest. The typical values were read off patches of the photograph (sky, lake, trees, roofs and walls, stone),
each by hand.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

CLASSES = ("sky", "water", "vegetation", "buildings", "stone")
COLOURS = np.array([[135, 190, 235], [40, 90, 200], [40, 140, 50], [190, 60, 50], [200, 195, 180]], dtype=np.uint8)

# For each class: brightness, redness (red - blue), greenness (2 green - red - blue), roughness; all in units of 0..255.
CENTRES = np.array(
    [
        [225.0, -28.0, -3.0, 2.0],
        [195.0, -10.0, 11.0, 4.0],
        [65.0, 22.0, 22.0, 29.0],
        [90.0, 50.0, -18.0, 30.0],
        [165.0, 20.0, 3.0, 22.0],
    ]
)
SCALES = np.array([40.0, 25.0, 9.0, 10.0])
_WINDOW = 5


def tile_boxes(height: int, width: int, size: int) -> list[tuple[int, int, int, int]]:
    """(top, left, bottom, right) of tiles that cover an image once, row by row; those at the edge are smaller."""
    return [
        (top, left, min(top + size, height), min(left + size, width))
        for top in range(0, height, size)
        for left in range(0, width, size)
    ]


def _mean_filter(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over a square window, by running sums; edges repeat."""
    half = _WINDOW // 2
    padded = np.pad(values, ((half + 1, half), (half + 1, half)), mode="edge")
    sums = padded.cumsum(axis=0).cumsum(axis=1)
    n = _WINDOW
    return (sums[n:, n:] - sums[:-n, n:] - sums[n:, :-n] + sums[:-n, :-n]) / (n * n)


def classify(tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The class (index into CLASSES) of each pixel of an RGB tile."""
    rgb = tile.astype(np.float64)
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    brightness = rgb.mean(axis=2)
    variance = _mean_filter(brightness**2) - _mean_filter(brightness) ** 2
    roughness = np.sqrt(np.maximum(variance, 0.0))
    features = np.stack([brightness, red - blue, 2 * green - red - blue, roughness], axis=2)
    distance = (((features[:, :, None, :] - CENTRES) / SCALES) ** 2).sum(axis=3)
    return distance.argmin(axis=2).astype(np.uint8)


def colourise(classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An RGB picture of a tile of classes."""
    return COLOURS[classes]


def merge(
    boxes: list[tuple[int, int, int, int]],
    classes: list[NDArray[np.uint8]],
    pictures: list[NDArray[np.uint8]],
) -> tuple[bytes, bytes]:
    """All tiles put together: (PNG of the picture, CSV of the area of each class)."""
    height, width = max(box[2] for box in boxes), max(box[3] for box in boxes)
    whole = np.zeros((height, width, 3), dtype=np.uint8)
    counts = np.zeros(len(CLASSES), dtype=np.int64)
    for (top, left, bottom, right), tile, picture in zip(boxes, classes, pictures, strict=True):
        whole[top:bottom, left:right] = picture
        counts += np.bincount(tile.ravel(), minlength=len(CLASSES))
    png = io.BytesIO()
    Image.fromarray(whole).save(png, format="PNG", compress_level=6)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["class", "pixels", "percent"])
    for name, pixels in zip(CLASSES, counts.tolist(), strict=True):
        writer.writerow([name, pixels, f"{100 * pixels / (height * width):.2f}"])
    return png.getvalue(), table.getvalue().encode()


def poster(photograph: NDArray[np.uint8], picture: bytes, table: bytes) -> bytes:
    """PNG: the photograph, the picture of its classes beside it, and below them what each colour means and covers."""
    classes = Image.open(io.BytesIO(picture))
    width, height = classes.size
    gap, swatch = 8, 16
    whole = Image.new("RGB", (2 * width + gap, height + 2 * gap + swatch), "white")
    whole.paste(Image.fromarray(photograph), (0, 0))
    whole.paste(classes, (width + gap, 0))
    draw = ImageDraw.Draw(whole)
    rows = list(csv.DictReader(io.StringIO(table.decode())))
    column = whole.width // len(rows)
    for number, row in enumerate(rows):
        left, top = number * column + gap, height + gap
        draw.rectangle((left, top, left + swatch, top + swatch), fill=tuple(COLOURS[number].tolist()), outline="black")
        draw.text((left + swatch + gap, top + 3), f"{row['class']}  {row['percent']} %", fill="black")
    png = io.BytesIO()
    whole.save(png, format="PNG", compress_level=6)
    return png.getvalue()


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image file as RGB."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
