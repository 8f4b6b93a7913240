"""Pi by throwing darts: `inputs` holds futures, and the function gets their values. Prints a number near 3.14."""

import random

from mpitask import python_app


@python_app
def throw(seed, n):
    rng = random.Random(seed)
    return 4 * sum(rng.random() ** 2 + rng.random() ** 2 < 1 for _ in range(n)) / n


@python_app
def mean(inputs=()):
    return sum(inputs) / len(inputs)


print(f"{mean(inputs=[throw(seed, 20_000) for seed in range(50)]).result():.3f}")
