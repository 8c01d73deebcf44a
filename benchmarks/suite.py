# SPDX-License-Identifier: MIT
"""The parts of `python -m benchmarks`, in their order, and how one run goes through them.

Each part is a module with a `run(scale, tell)` that gives a Result; those in SIDES have a
`run` that measures both sides once and is asked again each round.  A part is loaded when
its turn comes.  One that fails is told, with its reason and what it had found before, and
the others go on.

The parts whose figures have bounds against rivals come first, then what grows, then what
explains: a run that is ended early has what matters most.
"""

import importlib
import importlib.metadata
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any, Final, TypeAlias

from benchmarks.machine import facts
from benchmarks.result import Figure, Report, Result, Scale, Series, Tell

PARTS: Final[Mapping[str, str]] = {
    "relay": "durable relay through two nodes, beside Postfix and Exim; CPU a message",
    "accept": "accepting at the local socket, beside Postfix's smtpd",
    "latency": "what a hop adds to an idle node's message",
    "share": "cells of a renewal link at class 4,096 that carry mail under full load",
    "goodput": "one greedy link without a spool, beside stunnel",
    "handshake": "handshakes a second, beside TLS 1.3",
    "stages": "where the time of one message goes, and the limit of each stage",
    "growth": "message size to 20 MB, and recipients",
    "backlog": "0 to 1,000,000 messages queued",
    "links": "1 to 1,000 standing links",
    "directory": "a directory of 10,000 nodes",
    "spool": "the spool by itself",
    "sendmail": "mesh-sendmail",
    "alarm": "the n-1 alarm, simulated",
}
MINUTES: Final[Mapping[str, int]] = {
    "relay": 17, "accept": 1, "latency": 5, "share": 9, "goodput": 1, "handshake": 1,
    "stages": 4, "growth": 5, "backlog": 4, "links": 4, "directory": 1, "spool": 1,
    "sendmail": 1, "alarm": 2,
}  # fmt: skip
"""Of a run of five rounds with all rivals, on two cores with nothing else to do: about."""
SIDES: Final[Mapping[str, Mapping[str, int]]] = {
    "goodput": {"messages": 5},
    "handshake": {"count": 20},
}
"""Parts whose `run` measures both sides once; and of how much in a sample."""
BOUNDS: Final = {
    ("goodput", "octets_per_second"): 0.4,
    ("handshake", "per_second"): 0.5,
}
"""What ours must be of the rival's."""
UNFINISHED: Final = "ended before it was done"
WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "octets_per_second": ("goodput", "octets/s"),
    "cpu_ms_per_mb": ("CPU of both ends", "ms a MB"),
    "per_second": ("handshakes, both ends", "a second"),
    "cpu_us": ("CPU of a handshake, both ends", "us"),
}
"""What such numbers are called, and their units."""
Run: TypeAlias = Callable[[Scale, Tell], Result]


def loaded(name: str) -> Run:
    """Load a part."""
    run: Run = importlib.import_module(f"benchmarks.{name}").run
    return partial(repeated, name, run) if name in SIDES else run


def suite(
    names: Sequence[str],
    scale: Scale,
    tell: Callable[[str, str, float], None],
    keep: Callable[[Report], None] = lambda _: None,
    load: Callable[[str], Run] = loaded,
) -> Report:
    """Run these parts; the report.

    `tell` hears a part's name, what it does, and its share done; `keep` gets what there is
    after each part, and after each row of a long one, for a run that is ended.
    """
    version = importlib.metadata.version("remailer-mesh")
    report = Report(version, facts(), scale.is_quick, ())
    for name in names:
        began = time.monotonic()

        def hear(line: str, share: float, name: str = name) -> None:
            tell(name, line, share)

        so_far = [Result(name, title(name))]

        def found(
            result: Result, so_far: list[Result] = so_far, before: Report = report
        ) -> None:
            so_far[0] = replace(result, failure=UNFINISHED)
            keep(replace(before, results=(*before.results, so_far[0])))

        hear("begins", 0.0)
        try:
            result = load(name)(replace(scale, found=found), hear)
        except (Exception, SystemExit) as error:  # what fails is told, the rest goes on
            result = replace(so_far[0], failure=reason(error))
        result = replace(result, seconds=time.monotonic() - began)
        report = replace(report, results=(*report.results, result))
        hear("failed" if result.failure else "done", 1.0)
        keep(report)
    return report


def title(name: str) -> str:
    """Give a part's heading."""
    said = PARTS.get(name, name)
    return said[:1].upper() + said[1:]


def reason(error: BaseException) -> str:
    """Say in a line why a part failed, and where."""
    while isinstance(error, BaseExceptionGroup):  # what began it
        error = error.exceptions[0]
    places = traceback.extract_tb(error.__traceback__)
    own = [each for each in places if "benchmarks" in each.filename]
    where = f" ({own[-1].filename.rpartition('/')[2]}:{own[-1].lineno})" if own else ""
    return f"{str(error) or type(error).__name__}{where}"


def repeated(
    name: str, measure: Callable[..., Any], scale: Scale, tell: Tell
) -> Result:
    """Run a part that measures both sides once, so often."""
    few = SIDES[name] if scale.is_quick else {}
    found = []
    for number in range(scale.rounds):
        tell(f"round {number + 1}", number / scale.rounds)
        found.append(measure(**few))
    return of_sides(name, found)


def of_sides(name: str, found: Sequence[Any]) -> Result:
    """Make a Result of runs that have numbers by contestant, ours as `mesh`."""
    figures = []
    settings: dict[str, str] = {}
    for each in fields(found[0]):
        values = [getattr(one, each.name) for one in found]
        said, unit = WORDS.get(each.name, (each.name.replace("_", " "), ""))
        if not isinstance(values[0], Mapping):
            settings[said] = str(values[0])
            continue
        series = [
            Series(who, tuple(float(value[who]) for value in values))
            for who in sorted(values[0], key=lambda who: who != "mesh")
        ]
        bound = BOUNDS.get((name, each.name))
        is_cost = each.name.startswith("cpu")
        figures.append(
            Figure(said, unit, tuple(series), bound, bound is not None, not is_cost)
        )
    return Result(name, title(name), tuple(figures), settings=settings)
