"""Land use through files: a program classifies (bash), one function colours, another measures; Files tie them together.

python -m mpitask examples/landuse/pipeline.py [--out landuse-pipeline]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from run import packaged_image

from mpitask import File, bash_app, python_app

HERE = Path(__file__).resolve().parent


@bash_app
def classify(image, program, python=sys.executable, inputs=(), outputs=()):
    return f"'{python}' '{program}' '{image}' '{outputs[0]}'"


@python_app
def colourise(inputs=(), outputs=()):
    import numpy as np
    from PIL import Image
    from steps import COLOURS

    Image.fromarray(COLOURS[np.load(inputs[0])]).save(outputs[0].filepath)


@python_app
def analyse(inputs=()):
    import numpy as np
    from steps import CLASSES

    counts = np.bincount(np.load(inputs[0]).ravel(), minlength=len(CLASSES))
    return dict(zip(CLASSES, counts.tolist(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description="Land use through files")
    parser.add_argument("--out", type=Path, default=Path("landuse-pipeline"))
    out = parser.parse_args().out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    classes = classify(str(packaged_image()), str(HERE / "classify.py"), outputs=[File(out / "classes.npy")])
    picture = colourise(inputs=[classes.outputs[0]], outputs=[File(out / "landuse.png")])
    areas = analyse(inputs=[classes.outputs[0]])
    print(areas.result())
    print(picture.outputs[0].result().filepath)


if __name__ == "__main__":
    main()
