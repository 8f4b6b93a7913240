"""The mean of sin x / (x + cos^2 x) on [0, 1], by Monte Carlo: 1000 tasks and one that needs all. Prints 0.3636."""

import math
import random

from mpitask import python_app


@python_app
def draw(seed, n):
    rng = random.Random(seed)
    xs = [rng.random() for _ in range(n)]
    return sum(math.sin(x) / (x + math.cos(x) ** 2) for x in xs) / n


@python_app
def mean(parts):
    return sum(parts) / len(parts)


parts = [draw(i, 10_000) for i in range(1000)]
print(f"{mean(parts).result():.4f}")  # futures inside a list are dependencies
