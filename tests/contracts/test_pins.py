"""constraints.txt has an exact version of all that is installed for tests, and pyproject.toml allows each of them."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import tomllib
from collections.abc import Iterator

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from helpers.processes import ROOT

PYTHONS = ("3.11", "3.12", "3.13")
UNPINNED = {"pip", "mpitask"}  # comes with the interpreter; is what is tested


def _pins(python: str) -> dict[str, str]:
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        pin = Requirement(line)
        if pin.marker is None or pin.marker.evaluate({"python_version": python, "python_full_version": f"{python}.0"}):
            (version,) = pin.specifier
            assert version.operator == "==", line
            pins[canonicalize_name(pin.name)] = version.version
    return pins


def _requirements() -> Iterator[Requirement]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        whole = tomllib.load(file)
    project = whole["project"]
    lists = [whole["build-system"]["requires"], project["dependencies"], *project["optional-dependencies"].values()]
    return (Requirement(text) for texts in lists for text in texts)


@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_has_a_version_that_it_allows(python: str) -> None:
    pins = _pins(python)
    wrong = [
        f"{requirement}: {pins.get(canonicalize_name(requirement.name), 'missing')}"
        for requirement in _requirements()
        if not requirement.specifier.contains(pins.get(canonicalize_name(requirement.name), "0.dev0"), prereleases=True)
        or canonicalize_name(requirement.name) not in pins
    ]
    assert not wrong, f"make constraints: {wrong}"


def test_requirements_promise_a_lowest_version() -> None:
    """Else `make test-oldest` would not know what to install."""
    tools = {"types-psutil", "types-cffi", "types-setuptools"}  # for the type checker alone
    loose = [str(r) for r in _requirements() if r.name not in tools and ">=" not in str(r.specifier)]
    assert not loose


@pytest.mark.skipif(
    os.environ.get("MPITASK_TEST_PINS") != "constraints.txt",
    reason="these packages were not installed by `make` with its own constraints",
)
def test_what_is_installed_is_what_is_written_down() -> None:
    """A package that only comes with another one can break tests tomorrow, too."""
    pins = _pins(f"{sys.version_info.major}.{sys.version_info.minor}")
    installed = {canonicalize_name(d.name): d.version for d in importlib.metadata.distributions()}
    wrong = {
        name: f"{version}, pinned {pins.get(name)}"
        for name, version in installed.items()
        if name not in UNPINNED and pins.get(name) != version
    }
    assert not wrong, f"make constraints: {wrong}"
