# SPDX-License-Identifier: MIT
"""What was judged, kept in a folder, so that a run that was ended goes on.

    FOLDER/judged/NAME-DIGEST.json    a part of a report (report.py)

DIGEST is of the audit's own source: what older code found is not what this code finds, so
it is made again.
"""

from collections.abc import Callable
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Final

from mesh.audit.report import Report, read, written

SOURCE: Final = Path(__file__).parent
DIGEST_OCTETS: Final = 4


@cache
def digest(source: Path = SOURCE) -> str:
    """Of all modules of a folder, eight hex digits."""
    found = blake2b(digest_size=DIGEST_OCTETS)
    for file in sorted(source.glob("*.py")):
        octets = file.read_bytes()
        found.update(f"{file.name} {len(octets)}\n".encode() + octets)
    return found.hexdigest()


def kept(folder: Path, name: str, make: Callable[[], Report]) -> Report:
    """What was found before by the same code, or is found now and kept."""
    file = folder / "judged" / f"{name}-{digest()}.json"
    if file.exists():
        return read(file.read_text())
    report = make()
    file.parent.mkdir(exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(written(report))
    part.rename(file)
    return report
