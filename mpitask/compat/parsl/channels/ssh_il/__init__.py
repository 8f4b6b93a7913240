"""`parsl.channels.ssh_il`."""
