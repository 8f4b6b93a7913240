"""Files between tasks: three commands write a random number each, one puts them together, a function adds them up.

Run it in a directory of its own: it writes random-0.txt ... and all.txt there.
"""

from mpitask import File, bash_app, python_app


@bash_app
def generate(outputs=()):
    return f"echo $((RANDOM % 100)) > {outputs[0]}"


@bash_app
def concat(inputs=(), outputs=()):
    return f"cat {' '.join(map(str, inputs))} > {outputs[0]}"


@python_app
def total(inputs=()):
    with open(inputs[0]) as file:
        return sum(int(line) for line in file)


numbers = [generate(outputs=[File(f"random-{i}.txt")]) for i in range(3)]
everything = concat(inputs=[number.outputs[0] for number in numbers], outputs=[File("all.txt")])
print("total:", total(inputs=[everything.outputs[0]]).result())
