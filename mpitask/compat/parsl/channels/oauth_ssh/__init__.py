"""`parsl.channels.oauth_ssh`."""
