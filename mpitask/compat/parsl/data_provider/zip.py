"""`parsl.data_provider.zip`."""

from mpitask.staging import ZipAuthorityError, ZipFileStaging, zipped

__all__ = ["ZipAuthorityError", "ZipFileStaging", "zip_path_split"]


def zip_path_split(path: str) -> tuple[str, str]:
    """The path of the archive and the name of its member.

    Raises:
        StagingError: it does not name an archive and a member.
    """
    return zipped.split(f"zip:{path}")
