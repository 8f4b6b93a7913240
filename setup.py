"""Builds the C core as the extension module mpitask.native._core."""

from setuptools import setup

setup(cffi_modules=["mpitask/native/_build.py:ffibuilder"])
