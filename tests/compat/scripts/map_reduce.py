import random

import parsl
from parsl import python_app
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.launchers import SingleNodeLauncher
from parsl.providers import LocalProvider

config = Config(
    executors=[
        HighThroughputExecutor(
            label="htex_Local",
            worker_debug=True,
            cores_per_worker=1,
            provider=LocalProvider(init_blocks=1, max_blocks=1, launcher=SingleNodeLauncher()),
        )
    ],
    strategy="none",
)


@python_app
def inside(number_of_points, seed):
    import random

    generator = random.Random(seed)
    return sum(generator.random() ** 2 + generator.random() ** 2 < 1 for _ in range(number_of_points))


@python_app
def mean(inputs=()):
    return 4 * sum(inputs) / (len(inputs) * 10_000)


if __name__ == "__main__":
    parsl.load(config)
    counts = [inside(10_000, seed=i) for i in range(20)]
    print(f"{mean(inputs=counts).result():.2f}")
    print(mean([counts[0], counts[1]]).done() in (True, False))

    @python_app
    def nested(table, *more, key=None):
        return table["a"][0] + more[0] + key

    print(nested({"a": [inside(10, 1)]}, inside(10, 1), key=inside(10, 1)).result() == 3 * inside(10, 1).result())
    print(random.random() < 1)
    parsl.clear()

# prints:
# 3.14
# True
# True
# True
