"""Decorators that make apps: functions whose calls are tasks."""

from mpitask.apps.bash import bash_app
from mpitask.apps.join import join_app
from mpitask.apps.python import python_app

__all__ = ["bash_app", "join_app", "python_app"]
