# ruff: noqa: PTH100, PTH103, PTH118, PTH120, PTH123
import os
import zipfile
from pathlib import Path

import parsl
from parsl import File, bash_app, python_app
from parsl.config import Config
from parsl.data_provider.data_manager import default_staging
from parsl.data_provider.file_noop import NoOpFileStaging
from parsl.data_provider.staging import Staging
from parsl.data_provider.zip import ZipFileStaging
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor
from parsl.utils import RepresentationMixin


class Shelf(Staging, RepresentationMixin):
    """shelf:/name, brought by a task of its own, as the documentation shows it."""

    def __init__(self, folder):
        self.folder = folder

    def can_stage_in(self, file):
        return file.scheme == "shelf"

    def stage_in(self, dm, executor, file, parent_fut):
        file.local_path = os.path.join(dm.dfk.executors[executor].working_dir, file.filename)
        app = python_app(executors=[executor], data_flow_kernel=dm.dfk)(take)
        return app(self.folder, outputs=[file], _parsl_staging_inhibit=True, parent_fut=parent_fut).outputs[0]


def take(folder, parent_fut=None, outputs=(), _parsl_staging_inhibit=True):
    import os
    import shutil

    os.makedirs(os.path.dirname(outputs[0].local_path), exist_ok=True)
    shutil.copy(os.path.join(folder, outputs[0].filename), outputs[0].local_path)


@python_app(executors=["htex"])
def read(file):
    with open(file) as opened:
        return opened.read().strip(), file.filepath


@bash_app(executors=["threads"])
def write(text, outputs=()):
    return f"echo {text} > {outputs[0].filepath}"


@python_app(executors=["threads"])
def read_in_thread(inputs=()):
    return [Path(file).read_text().strip() for file in inputs]


Path("shelf").mkdir()
Path("shelf/book.txt").write_text("a book\n")
with zipfile.ZipFile("in.zip", "w") as archive:
    archive.writestr("inner/a.txt", "from the archive\n")

config = Config(
    executors=[
        HighThroughputExecutor(
            label="htex",
            max_workers_per_node=1,
            storage_access=[Shelf(os.path.abspath("shelf")), NoOpFileStaging()],
            working_dir=os.path.abspath("work"),
        ),
        ThreadPoolExecutor(storage_access=[*default_staging, ZipFileStaging()], working_dir=os.path.abspath("threads")),
    ]
)
with parsl.load(config):
    text, path = read(File("shelf:/book.txt")).result()
    print(text, os.path.relpath(path))
    archived = write("into the archive", outputs=[File(f"zip:{os.path.abspath('out.zip')}/b.txt")])
    archived.outputs[0].result()
    with zipfile.ZipFile("out.zip") as archive:
        print(archive.read("b.txt").decode().strip())
    print(
        read_in_thread(inputs=[File(f"zip:{os.path.abspath('in.zip')}/inner/a.txt"), File("shelf/book.txt")]).result()
    )
    try:
        read(File("zip:/a.zip/b"))
    except ValueError as error:
        print("ValueError", "zip:/a.zip/b" in str(error))

# prints:
# a book work/book.txt
# into the archive
# ['from the archive', 'a book']
# ValueError True
