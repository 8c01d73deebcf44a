# SPDX-License-Identifier: MIT
"""The parts of `python -m benchmarks`, in their order, and how one run goes through them.

Each part is a module with a `run(scale, tell)` that gives a Result.  A part is loaded when
its turn comes.  One that fails is told, with its reason, and the others go on.
"""

import importlib
import importlib.metadata
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, Final

from benchmarks.machine import facts
from benchmarks.result import Figure, Report, Result, Scale, Tell, single

PARTS: Final[Mapping[str, str]] = {
    "relay": "durable relay through two nodes, beside Postfix and Exim; CPU a message",
    "accept": "accepting at the local socket, beside Postfix's smtpd",
    "latency": "what a hop adds to an idle node's message",
    "share": "cells of a renewal link at class 4,096 that carry mail under full load",
    "goodput": "one greedy link without a spool, beside stunnel",
    "handshake": "handshakes a second, beside TLS 1.3",
    "growth": "message size to 20 MB, and recipients",
    "backlog": "0 to 1,000,000 messages queued",
    "links": "1 to 1,000 standing links",
    "directory": "a directory of 10,000 nodes",
    "spool": "the spool by itself",
    "sendmail": "mesh-sendmail",
    "alarm": "the n-1 alarm, simulated",
}
Run = Callable[[Scale, Tell], Any]


def loaded(name: str) -> Run:
    """Load a part."""
    run: Run = importlib.import_module(f"benchmarks.{name}").run
    return run


def suite(
    names: Sequence[str],
    scale: Scale,
    tell: Callable[[str, str, float], None],
    keep: Callable[[Report], None] = lambda _: None,
    load: Callable[[str], Run] = loaded,
) -> Report:
    """Run these parts; the report.

    `tell` hears a part's name, what it does, and its share done; `keep` gets what there is
    after each part, for a run that is ended.
    """
    version = importlib.metadata.version("remailer-mesh")
    report = Report(version, facts(), scale.is_quick, ())
    for name in names:
        began = time.monotonic()

        def hear(line: str, share: float, name: str = name) -> None:
            tell(name, line, share)

        hear("begins", 0.0)
        try:
            result = as_result(name, load(name)(scale, hear))
        except (Exception, SystemExit) as error:  # what fails is told, the rest goes on
            result = Result(name, PARTS.get(name, name), failure=reason(error))
        result = replace(result, seconds=time.monotonic() - began)
        report = replace(report, results=(*report.results, result))
        hear("failed" if result.failure else "done", 1.0)
        keep(report)
    return report


def reason(error: BaseException) -> str:
    """Say in a line why a part failed, and where."""
    places = traceback.extract_tb(error.__traceback__)
    own = [each for each in places if "benchmarks" in each.filename]
    where = f" ({own[-1].filename.rpartition('/')[2]}:{own[-1].lineno})" if own else ""
    return f"{str(error) or type(error).__name__}{where}"


def as_result(name: str, found: Any) -> Result:
    """Give what a part found as a Result: numbers of another dataclass are figures."""
    if isinstance(found, Result):
        return found
    if not is_dataclass(found):
        raise TypeError(f"{name} gave no result")
    figures: list[Figure] = []
    settings: dict[str, str] = {}
    for each in fields(found):
        value = getattr(found, each.name)
        said = each.name.replace("_", " ")
        if isinstance(value, int | float) and not isinstance(value, bool):
            figures.append(single(said, "", float(value)))
        else:
            settings[said] = str(value)
    return Result(name, PARTS.get(name, name), tuple(figures), settings=settings)
