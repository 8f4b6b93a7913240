"""`parsl.channels.ssh_il.ssh_il`, of older versions."""

from mpitask.compat.parsl._gone import REMOTE, gone

SSHInteractiveLoginChannel = gone("SSHInteractiveLoginChannel", REMOTE)
DeprecatedSSHInteractiveLoginChannel = gone("DeprecatedSSHInteractiveLoginChannel", REMOTE)
