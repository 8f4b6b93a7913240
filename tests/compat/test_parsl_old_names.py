"""What older scripts import from Parsl: the import works, and use says what has come of it."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path

import pytest

from mpitask.compat.parsl import _ignored
from mpitask.compat.parsl.app.app import python_app
from mpitask.compat.parsl.channels import LocalChannel
from mpitask.compat.parsl.config import Config
from mpitask.compat.parsl.dataflow.dflow import DataFlowKernel
from mpitask.compat.parsl.executors import HighThroughputExecutor
from mpitask.compat.parsl.providers import LocalProvider, SlurmProvider
from mpitask.errors import ConfigurationError

GONE = """\
channels: OAuthSSHChannel SSHChannel SSHInteractiveLoginChannel
channels.oauth_ssh.oauth_ssh: OAuthSSHChannel DeprecatedOAuthSSHChannel
channels.ssh.ssh: SSHChannel DeprecatedSSHChannel
channels.ssh_il.ssh_il: SSHInteractiveLoginChannel DeprecatedSSHInteractiveLoginChannel
executors: ExtremeScaleExecutor IPyParallelExecutor LowLatencyExecutor
executors.extreme_scale: ExtremeScaleExecutor
executors.ipp: IPyParallelExecutor
executors.low_latency: LowLatencyExecutor
executors.swift_t: TurbineExecutor
providers: AdHocProvider CobaltProvider
providers.ad_hoc.ad_hoc: AdHocProvider
providers.cobalt.cobalt: CobaltProvider
"""


@pytest.mark.parametrize("line", GONE.splitlines(), ids=lambda line: line.partition(":")[0])
def test_what_is_gone_says_so_when_it_is_used(line: str) -> None:
    module, _, names = line.partition(": ")
    for name in names.split():
        made = getattr(importlib.import_module(f"mpitask.compat.parsl.{module}"), name)
        with pytest.raises(ConfigurationError, match=rf"^{name} is no longer part of Parsl.*: (start|use) "):
            made("host", username="me", script_dir="/tmp")


def test_channels_of_providers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARSL_WORKER_COUNT", "")
    monkeypatch.setattr(_ignored, "_told", set())
    provider = LocalProvider(channel=LocalChannel(script_dir="x"), init_blocks=1, move_files=False)  # type: ignore[call-arg]
    assert SlurmProvider("debug", channel=LocalChannel()).partition == "debug"  # type: ignore[call-arg]
    executor = HighThroughputExecutor(label="htex", provider=provider, max_workers_per_node=1)
    config = Config(executors=[executor], initialize_logging=False)
    with caplog.at_level(logging.WARNING, "mpitask"), DataFlowKernel(config) as dfk:
        assert python_app(abs, data_flow_kernel=dfk)(-5).result(60) == 5
    assert "provider.channel, provider.move_files" in caplog.text
    with pytest.raises(TypeError, match="chanel"):
        LocalProvider(chanel=LocalChannel())  # type: ignore[call-arg]


def test_a_provider_of_the_script_may_have_channels() -> None:
    class Own(LocalProvider):
        def __init__(self, channel: str) -> None:
            super().__init__()
            self.channel = channel

    assert (Own("x").channel, Own(channel="y").channel, Own("x").old_options) == ("x", "y", frozenset())
