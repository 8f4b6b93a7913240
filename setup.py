"""Builds the C core as the extension module mpitask.native._core.

What Python sees of it is decided in mpitask/native/_build.py; here is how it is compiled: every file by itself, beside the
others, and only when it or a header that it includes has changed. Our own files are held to every warning, the file that cffi
generates to those that would mean a wrong declaration.

Environment: MPITASK_WERROR=1 makes warnings errors (the Makefile sets it; a user's newer compiler must not stop an
installation). MPITASK_SANITIZE=address,undefined adds those sanitizers. MPITASK_JOBS: compilers at a time, default all cores.
"""

import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

STRICT = ["-Wall", "-Wextra", "-Wconversion"] + ["-Werror"] * (os.environ.get("MPITASK_WERROR") == "1")
WRAPPER = ["-Werror=incompatible-pointer-types", "-Werror=int-conversion", "-Werror=implicit-function-declaration"]
RECIPE = ["setup.py", "mpitask/native/_build.py"]
SANITIZERS = os.environ.get("MPITASK_SANITIZE", "")
SANITIZE = [f"-fsanitize={SANITIZERS}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"] if SANITIZERS else []


def is_current(output: Path, rules: Path) -> bool:
    """Whether an object file is newer than all that its compiler's dependency file names, and than this recipe."""
    if not (output.exists() and rules.exists()):
        return False
    made = output.stat().st_mtime_ns
    inputs = re.sub(r"\\\n", " ", rules.read_text()).split(":", 1)[1].split()
    return all(os.path.exists(name) and os.stat(name).st_mtime_ns < made for name in inputs + RECIPE)


class BuildCore(build_ext):
    """build_ext with an own loop over the source files."""

    def get_source_files(self):
        """What a source package must hold: the headers too."""
        return [*super().get_source_files(), *sorted(str(header) for header in Path("csrc").glob("*.h"))]

    def build_extensions(self):
        """Replaces the compiler's loop; everything else stays the tool's."""
        self.compiler.compile = self.compile
        self.force = True  # only compile() knows what is current
        for extension in self.extensions:
            extension.extra_compile_args += SANITIZE
            extension.extra_link_args += SANITIZE
        super().build_extensions()

    def compile(
        self, sources, output_dir=None, macros=None, include_dirs=None, debug=0, extra_preargs=None, extra_postargs=None, depends=None
    ):
        """As CCompiler.compile: the object files of `sources`, made where they are not current."""
        compiler = self.compiler
        macros, objects, postargs, pp_opts, build = compiler._setup_compile(
            output_dir, macros, include_dirs, sources, depends, extra_postargs
        )
        cc_args = compiler._get_cc_args(pp_opts, debug, extra_preargs)

        def compile_one(output):
            source, suffix = build[output]
            rules = Path(output).with_suffix(".d")
            if is_current(Path(output), rules):
                return
            flags = STRICT if Path(source).parts[0] == "csrc" else WRAPPER
            started_ns = time.time_ns()
            compiler._compile(output, source, suffix, cc_args, [*postargs, *flags, "-MMD", "-MF", str(rules)], pp_opts)
            os.utime(output, ns=(started_ns, started_ns))  # what is edited while the compiler runs is newer

        jobs = int(os.environ.get("MPITASK_JOBS", 0)) or len(os.sched_getaffinity(0))
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(compile_one, sorted(objects, key=lambda output: -os.path.getsize(build[output][0]))))
        return objects


setup(
    cffi_modules=["mpitask/native/_build.py:ffibuilder"],
    cmdclass={"build_ext": BuildCore},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
