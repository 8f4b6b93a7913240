"""Other ecosystems' faces on mpitask: scripts written for them run unchanged.

A side layer: it uses everything below the command line, and nothing but the command line imports it.
"""
