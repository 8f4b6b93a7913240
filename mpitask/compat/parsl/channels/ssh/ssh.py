"""`parsl.channels.ssh.ssh`, of older versions."""

from mpitask.compat.parsl._gone import REMOTE, gone

SSHChannel = gone("SSHChannel", REMOTE)
DeprecatedSSHChannel = gone("DeprecatedSSHChannel", REMOTE)
