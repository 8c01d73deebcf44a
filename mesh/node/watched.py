# SPDX-License-Identifier: MIT
"""The file that `[node] directory` names: whoever may write it brings directories.

Looked at each second, read when it changed.  What was refused is read again after an
hour, because the reason may have been the time; what could not be read, each second.
`trouble` is the line that says why it does not count, empty while it does.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mesh.core.adoption import Outcome
from mesh.errors import CannotCreateError, DirectoryError, IoError
from mesh.node.archive import placed, read_text_untrusted
from mesh.node.whole import look

RETRY_SECONDS: Final = 3600.0
"""Until a file that was refused is read again unchanged."""


class Watched:
    """One file that nobody here writes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: object = None
        self._again = 0.0
        self.trouble = ""

    def poll(self, now: float, offer: Callable[[str, str], Outcome]) -> None:
        """Read the file if it is due; `offer` gets its text and its name."""
        path = str(self._path)
        seen = look(self._path)
        if seen == self._seen and now < self._again:
            return
        self._seen, self._again = seen, now + RETRY_SECONDS
        try:
            self.trouble = offer(read_text_untrusted(self._path), path).why
            if not self.trouble:
                self._again = math.inf
        except DirectoryError as error:
            self.trouble = placed(path, error)
        except (OSError, IoError, CannotCreateError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            self.trouble = f"{path}: {why}"
            self._again = now
