"""Names of files, local or remote, that apps take and give.

A `File` is a name and nothing else: making one touches no disk and no network. A staging provider
(`mpitask.staging`) brings a remote one to a place on a disk and notes that place in `local_path`; the task then opens
it by `filepath`, or simply passes it to `open()`.

What is a URL: text that begins with a scheme and a slash (`http://host/a`, `zip:/a/b.zip/c`), and `file:` or `zip:`
with anything behind it. Everything else is the path of a local file, taken literally, so that names with `?`, `#`, `%`
or `:` in them work. An `os.PathLike` is always a local path.
"""

from __future__ import annotations

import copy
import glob
import os
import re
import socket
from pathlib import Path
from typing import Self
from urllib.parse import unquote

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(?=/)|(?:file|zip):", re.IGNORECASE)
_AUTHORITY = re.compile(r"//([^/?#]*)")
_WITH_QUERY = frozenset({"http", "https"})


def _is_here(host: str) -> bool:
    """Whether a host is this machine, by the names that it has for itself."""
    host = host.lower()
    own = socket.gethostname().lower()
    known = ("localhost", "127.0.0.1", "[::1]", own, own.partition(".")[0])
    return host in known or host == socket.getfqdn().lower()  # which may ask a server: last


class File(os.PathLike[str]):
    """The name of one file, or of several by a pattern: `File("out/*.csv")`.

    Two Files are equal only when they are the same object. Files can be pickled.

    Args:
        url: a URL or a local path; see the head of this module for which is which.

    Attributes:
        url: what was given.
        scheme: the scheme of the URL in lower case; "file" for a local path.
        netloc: host, port and credentials of the URL, as they stand there.
        path: the path of the URL. Escapes such as `%20` are decoded for `file:` and kept elsewhere. A query belongs to
            http and https only and is not part of the path.
        filename: the last part of `path`.
        local_path: where a staging provider has put the file on this machine, or will; None before that.

    Raises:
        TypeError: `url` is neither text nor a path.
        ValueError: a `file:` URL has a host and no path, or its host is another machine than this one.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        if not isinstance(url, str | os.PathLike):
            raise TypeError(f"File() takes a URL or a path, not a {type(url).__name__}")
        self.url = os.fsdecode(url)
        self.scheme = "file"
        self.netloc = ""
        self.path = self.url
        self.local_path: str | None = None
        if isinstance(url, str) and (match := _URL.match(url)):
            self._split(match)
        self.filename = self.path.rpartition("/")[2]

    def _split(self, match: re.Match[str]) -> None:
        self.scheme = match[0][:-1].lower()
        rest = self.url[match.end() :]
        if authority := _AUTHORITY.match(rest):
            self.netloc = authority[1]
            rest = rest[authority.end() :]
        if self.scheme in _WITH_QUERY:
            rest = re.split("[?#]", rest, maxsplit=1)[0]
        if self.scheme == "file":
            if self.netloc and not rest:
                raise ValueError(
                    f"{self.url!r} names the host {self.netloc!r} and no path: write 'file:{self.netloc}', or "
                    "the path alone"
                )
            if self.netloc and not _is_here(self.netloc):
                raise ValueError(
                    f"{self.url!r} is a file of the host {self.netloc!r}, and this is {socket.gethostname()!r}: write "
                    f"'file:{rest}' for the file of that path here; files of other machines need a scheme that "
                    "fetches them, such as sftp:"
                )
            rest = unquote(rest)
        self.path = rest

    @property
    def filepath(self) -> str:
        """Where the file lies on this machine: `local_path`, or the path itself when it needs no staging.

        Raises:
            ValueError: the file is remote and has not been staged.
        """
        if self.local_path is not None:
            return self.local_path
        if self.scheme == "file":
            return self.path
        raise ValueError(
            f"{self!r} has no local path yet: pass it to an app as an argument, in inputs=[...] or in outputs=[...], "
            "so that a staging provider gives it one, or set its local_path"
        )

    @property
    def is_glob(self) -> bool:
        """Whether the name is a pattern (`*`, `?` or `[...]` in a local path) and may stand for several files."""
        return self.scheme == "file" and glob.has_magic(self.filepath)

    def expand(self) -> list[File]:
        """The files that the pattern matches now, on this machine, sorted by path; `**` matches folders at any depth.

        Folders are left out, and so are names that begin with a dot where the pattern does not. A name without a
        pattern, or one that exists literally, gives one clean copy of itself, whether or not it exists.
        """
        if not self.is_glob or Path(self.filepath).exists():
            return [self.cleancopy()]
        found = glob.glob(self.filepath, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute patterns
        return [File(path) for path in sorted(map(Path, found)) if not path.is_dir()]

    def cleancopy(self) -> Self:
        """A copy that has not been staged: `local_path` is None."""
        clean = copy.copy(self)
        clean.local_path = None
        return clean

    def __fspath__(self) -> str:
        return self.filepath

    def __str__(self) -> str:
        return self.url if self.local_path is None and self.scheme != "file" else self.filepath

    def __repr__(self) -> str:
        local = "" if self.local_path is None else f" at {self.local_path!r}"
        return f"<{type(self).__name__} {self.url!r}{local}>"
