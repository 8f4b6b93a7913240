"""`parsl.channels.local`."""
