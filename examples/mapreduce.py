"""Parallel map and reduce: words are counted in parts of a text, and the counts are added pair by pair.

The text is the source of a module of the standard library. Prints its three most frequent words.
"""

import argparse
import re
from collections import Counter
from pathlib import Path

from mpitask import python_app


@python_app
def count(lines):
    return Counter(word for line in lines for word in re.findall("[a-z]+", line.lower()))


@python_app
def add(a, b):
    return a + b


lines = Path(argparse.__file__).read_text().splitlines()
counts = [count(lines[i::8]) for i in range(8)]
while len(counts) > 1:  # a tree of additions: nothing waits for all counts
    counts = [add(*counts[i : i + 2]) if i + 1 < len(counts) else counts[i] for i in range(0, len(counts), 2)]
print(counts[0].result().most_common(3))
