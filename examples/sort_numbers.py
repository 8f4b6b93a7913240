"""A file goes in, a sorted one comes out. Writes unsorted.txt and sorted.txt in the current directory."""

import random
from pathlib import Path

from mpitask import File, python_app


@python_app
def sort_numbers(inputs=(), outputs=()):
    with open(inputs[0]) as file:
        numbers = sorted(int(line) for line in file)
    with open(outputs[0], "w") as file:
        file.writelines(f"{number}\n" for number in numbers)


Path("unsorted.txt").write_text("\n".join(map(str, random.Random(7).sample(range(1000), 20))))
done = sort_numbers(inputs=[File("unsorted.txt")], outputs=[File("sorted.txt")])
print(Path(done.outputs[0].result()).read_text().split())
