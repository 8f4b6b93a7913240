"""`parsl.providers.ad_hoc`."""
