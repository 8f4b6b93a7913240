"""Apps: decorated functions that return futures."""

from __future__ import annotations

from mpitask.apps.python import PythonApp, python_app

__all__ = ["PythonApp", "python_app"]
