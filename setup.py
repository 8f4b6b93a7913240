"""Builds the C core as the extension module mpitask.native._core.

What Python sees of it is decided in mpitask/native/_build.py; here is how it is compiled: every file by
itself, beside the others, and only when it or a header that it includes has changed. Our own files are held
to every warning, the file that cffi generates to those that would mean a wrong declaration.

Environment: MPITASK_WERROR=1 makes warnings errors (the Makefile sets it; a user's newer compiler must not
stop an installation). MPITASK_SANITIZE=address,undefined adds those sanitizers. MPITASK_JOBS is the number of
compilers at a time (default: one for each core).
"""

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

STRICT = ["-Wall", "-Wextra", "-Wconversion"]
if os.environ.get("MPITASK_WERROR") == "1":
    STRICT.append("-Werror")
WRAPPER = [
    f"-Werror={name}" for name in ("incompatible-pointer-types", "int-conversion", "implicit-function-declaration")
]
RECIPE = ["setup.py", "mpitask/native/_build.py"]
SANITIZE = []
if sanitizers := os.environ.get("MPITASK_SANITIZE"):
    SANITIZE = [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
JOBS = int(os.environ.get("MPITASK_JOBS", "0")) or len(os.sched_getaffinity(0))


def is_current(output: Path, rules: Path) -> bool:
    """Whether an object file is newer than its inputs, which the compiler listed in `rules`, and setup."""
    if not (output.exists() and rules.exists()):
        return False
    made_ns = output.stat().st_mtime_ns
    listed = rules.read_text().replace("\\\n", " ").split(":", 1)[1].split()
    inputs = [Path(name) for name in [*listed, *RECIPE]]
    return all(path.exists() and path.stat().st_mtime_ns < made_ns for path in inputs)


class BuildCore(build_ext):
    """The usual build_ext, but for the loop over the source files."""

    def get_source_files(self):
        """What a source package must hold: the headers too."""
        return [*super().get_source_files(), *sorted(str(header) for header in Path("csrc").glob("*.h"))]

    def build_extensions(self):
        """Puts our loop in the place of the compiler's."""
        compiler = self.compiler.compiler[0]
        if shutil.which(compiler) is None:
            raise SystemExit(
                f"mpitask has a part in C, and there is no C compiler ({compiler}): install one "
                "(Debian: apt install gcc libc6-dev python3-dev), or name it with CC=, and try again"
            )
        self.compiler.compile = self.compile
        self.force = True  # only the loop knows what is current
        for extension in self.extensions:
            extension.extra_compile_args += SANITIZE
            extension.extra_link_args += SANITIZE
        super().build_extensions()

    def compile(self, sources, *, output_dir, macros, include_dirs, debug, extra_postargs, depends):
        """As the compiler's own `compile`: the object files of `sources`, made where they are not current."""
        compiler = self.compiler
        macros, objects, common, pp_opts, build = compiler._setup_compile(
            output_dir, macros, include_dirs, sources, depends, extra_postargs
        )
        cc_args = compiler._get_cc_args(pp_opts, debug, None)

        def compile_one(output):
            source, suffix = build[output]
            rules = Path(output).with_suffix(".d")
            if is_current(Path(output), rules):
                return
            flags = [
                *common,
                *(STRICT if Path(source).parts[0] == "csrc" else WRAPPER),
                "-MMD",
                "-MF",
                str(rules),
            ]
            started_ns = time.time_ns()
            compiler._compile(output, source, suffix, cc_args, flags, pp_opts)
            os.utime(output, ns=(started_ns, started_ns))  # what is edited while the compiler runs is newer

        largest_first = sorted(objects, key=lambda output: -Path(build[output][0]).stat().st_size)
        with ThreadPoolExecutor(JOBS) as pool:
            list(pool.map(compile_one, largest_first))
        return objects


setup(
    cffi_modules=["mpitask/native/_build.py:ffibuilder"],
    cmdclass={"build_ext": BuildCore},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
