"""`parsl.channels.ssh`."""
