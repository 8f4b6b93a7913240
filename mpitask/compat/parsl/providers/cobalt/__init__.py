"""`parsl.providers.cobalt`."""
