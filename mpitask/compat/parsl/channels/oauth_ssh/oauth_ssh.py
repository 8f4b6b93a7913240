"""`parsl.channels.oauth_ssh.oauth_ssh`, of older versions."""

from mpitask.compat.parsl._gone import REMOTE, gone

OAuthSSHChannel = gone("OAuthSSHChannel", REMOTE)
DeprecatedOAuthSSHChannel = gone("DeprecatedOAuthSSHChannel", REMOTE)
