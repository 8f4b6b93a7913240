"""Land use of a photograph: tiles are classified, coloured and merged.

mpiexec -n 3 python -m mpitask examples/landuse/run.py [--image FILE] [--tile 64] [--out landuse-out] [--serial]

landuse.png shows the photograph, its land use beside it, and a legend; landuse.csv has the areas. The image is the one
of the Summer Palace that the scikit-learn package ships. `--serial` runs the same functions in a
plain loop, without the engine, and writes the same bytes.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import steps

from mpitask import python_app

classify = python_app(steps.classify)
colourise = python_app(steps.colourise)
merge = python_app(steps.merge)


def give_up(message: str) -> NoReturn:
    print(f"landuse: {message}", file=sys.stderr)
    sys.exit(2)


def packaged_image() -> Path:
    """Found without importing scikit-learn, which would take longer than the whole job."""
    spec = find_spec("sklearn")
    if spec is None or spec.origin is None:
        give_up(
            "the image comes with scikit-learn: pip install 'mpitask[examples]', or give your own with --image FILE"
        )
    return Path(spec.origin).parent / "datasets" / "images" / "china.jpg"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Land use of a photograph")
    parser.add_argument("--image", type=Path, help="an image file (default: the one in scikit-learn)")
    parser.add_argument("--tile", type=int, default=64, help="edge of a tile in pixels")
    parser.add_argument("--out", type=Path, default=Path("landuse-out"), help="folder for the results")
    parser.add_argument("--serial", action="store_true", help="a plain loop instead of the engine")
    options = parser.parse_args()
    if options.tile < 8:
        give_up(f"--tile {options.tile}: give at least 8 pixels")
    return options


def main() -> None:
    options = parse()
    started = time.perf_counter()
    source = options.image or packaged_image()
    try:
        image = steps.read_image(source)
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        give_up(f"{error}: check --image and --out")
    boxes = steps.tile_boxes(*image.shape[:2], options.tile)
    tiles = [image[top:bottom, left:right] for top, left, bottom, right in boxes]
    if options.serial:
        classes = [steps.classify(tile) for tile in tiles]
        picture, table = steps.merge(boxes, classes, [steps.colourise(tile) for tile in classes])
    else:
        futures = [classify(tile) for tile in tiles]
        picture, table = merge(boxes, futures, [colourise(tile) for tile in futures]).result()
    (options.out / "landuse.png").write_bytes(steps.poster(image, picture, table))
    (options.out / "landuse.csv").write_bytes(table)
    for line in table.decode().splitlines():
        name, pixels, percent = line.split(",")
        print(f"{name:<12}{pixels:>10}{percent:>9}")
    how = "in a plain loop" if options.serial else f"as {2 * len(tiles) + 1} tasks"
    print(
        f"{image.shape[1]} x {image.shape[0]} pixels, {len(tiles)} tiles, {how}, {time.perf_counter() - started:.2f} s"
    )
    print(options.out / "landuse.png")
    print(options.out / "landuse.csv")


if __name__ == "__main__":
    main()
