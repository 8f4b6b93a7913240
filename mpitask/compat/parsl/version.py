"""The version of Parsl whose names and promises these are; the local part says that it is not Parsl itself."""

VERSION = "2026.10.26+mpitask"
