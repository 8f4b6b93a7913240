"""`parsl.channels`, of older versions: how a script reached a cluster from elsewhere."""

from mpitask.compat.parsl.channels.local.local import LocalChannel
from mpitask.compat.parsl.channels.oauth_ssh.oauth_ssh import OAuthSSHChannel
from mpitask.compat.parsl.channels.ssh.ssh import SSHChannel
from mpitask.compat.parsl.channels.ssh_il.ssh_il import SSHInteractiveLoginChannel

__all__ = ["LocalChannel", "OAuthSSHChannel", "SSHChannel", "SSHInteractiveLoginChannel"]
