# SPDX-License-Identifier: MIT
"""Statistical disclosure: to whom a sender writes, round after round.

A round is ROUND periods of the sender's link and what is delivered in that time.  The
attacker sees, in clear, how many messages each recipient gets in a round; how active
the sender was he must see on his link.  After many rounds (Danezis, "Statistical
Disclosure Attacks", 2003; here with weights, as he does not know who was active)

    v = sum over rounds of (activity - mean activity) * (received - mean received)

one number a recipient, divided by its error: the sender's correspondents have the
greatest.

    activity   octets of the round, its largest write, cells close behind others
    value      AUC of v, correspondents against all others; 0.5: he learns nothing

Control: a link without cover.  The link, and when the sender writes, are a capture's;
recipients are drawn: each gets mail from everybody, by Poisson, and what the sender
writes goes to one of his correspondents in the same round.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from mesh.audit.figures import Control, Figure
from mesh.audit.matching import octets
from mesh.audit.statistics import SURE, auc, roc, two_sided
from mesh.audit.trace import Bools, Floats, Ints, Trace

ROUND: Final = 16
"""Periods of a round."""
RECIPIENTS: Final = 40
FRIENDS: Final = 4
"""Of the recipients, to whom the sender writes."""
OTHERS: Final = 0.5
"""Messages that a recipient gets in a round from everybody else, on average."""
BROKEN: Final = 0.9
WORLDS: Final = 50
"""Sets of correspondents, for the same rounds."""
DRAWS: Final = 100


@dataclass(frozen=True)
class Rounds:
    """What is seen of one sender."""

    activity: Floats
    """Score of each round: (round,)."""
    received: Floats
    """Messages: (round, recipient)."""
    friend: Bools
    """The truth: (recipient,)."""


def edges(trace: Trace) -> Floats:
    """Give the rounds' instants.  Rounds are alike long: in a longer one more is sent."""
    at = trace.of(0)["at"]
    found: Floats = np.arange(float(at[0]), float(at[-1]), ROUND / trace.rate)
    return found


def activity(trace: Trace) -> Floats:
    """Score how active the first side was in each round.

    All octets, the largest write, and what is sent close behind another.
    """
    rows = trace.of(0)
    begins = edges(trace)
    count = len(begins) - 1
    number = np.searchsorted(begins, rows["at"], side="right") - 1
    inside = (number >= 0) & (number < count)
    rows, number = rows[inside], number[inside]
    size, gaps = octets(rows), np.nan_to_num(rows["gap"], nan=1 / trace.rate)
    largest = np.zeros(count)
    np.maximum.at(largest, number, size)
    close = np.bincount(number[gaps < np.median(gaps) / 8], minlength=count)
    total = np.bincount(number, size, count)
    parts = np.log1p(total), np.log1p(largest), close.astype(np.float64)
    score: Floats = sum((_standard(part) for part in parts), np.zeros(count))
    return score


def _standard(values: Floats) -> Floats:
    spread = float(values.std())
    score: Floats = (values - values.mean()) / (spread or 1.0)
    return score


def disclose(seen: Rounds) -> Floats:
    """Score each recipient: how far it stands out, in its own errors."""
    away = seen.activity - seen.activity.mean()
    got = seen.received - seen.received.mean(axis=0)
    error = np.sqrt((away**2).sum() * (got**2).mean(axis=0))
    score: Floats = (away @ got) / np.maximum(error, 1e-12)
    return score


def link(trace: Trace, sent: Floats) -> tuple[Floats, Ints]:
    """Score each round of a link; and how many messages were `sent` in it, the truth."""
    number = np.searchsorted(edges(trace), sent, side="right") - 1
    score = activity(trace)
    inside = number[(number >= 0) & (number < len(score))]
    writes: Ints = np.bincount(inside, minlength=len(score)).astype(np.int64)
    return score, writes


def rounds(score: Floats, writes: Ints, rng: np.random.Generator) -> Rounds:
    """Draw who gets what in these rounds."""
    friend = np.zeros(RECIPIENTS, bool)
    friend[rng.permutation(RECIPIENTS)[:FRIENDS]] = True
    received = rng.poisson(OTHERS, (len(score), RECIPIENTS)).astype(np.float64)
    which = np.repeat(np.arange(len(score)), writes)
    whom = rng.choice(np.flatnonzero(friend), len(which))
    np.add.at(received, (which, whom), 1)
    return Rounds(score, received, friend)


def figure(
    trace: Trace,
    sent: Floats,
    control: tuple[Trace, Floats],
    rng: np.random.Generator,
    *,
    name: str = "",
    worlds: int = WORLDS,
) -> Figure:
    """Watch a sender with some sets of correspondents; and one without cover."""
    score, writes = link(trace, sent)
    mine, label = _scores(score, writes, rng, worlds)
    other, others = _scores(*link(*control), rng, worlds)
    value, broken = two_sided(auc(mine, label)), two_sided(auc(other, others))
    count = len(score)
    # All sets of correspondents see the same rounds: these are drawn again.
    drawn = []
    for _ in range(DRAWS):
        some = rng.integers(0, count, count)
        drawn.append(auc(*_scores(score[some], writes[some], rng, worlds)))
    low, high = np.quantile(drawn, [1 - SURE, SURE])
    upper = max(value, float(high), 1 - float(low))
    plain = Control(
        "no cover", broken, f">= {BROKEN}", broken >= BROKEN, roc(other, others)
    )
    return Figure(
        f"disclosure, {count} rounds", "statistical disclosure", value, upper,
        None, "AUC", count, "", (plain,), roc=roc(mine, label), world=name, rate=trace.rate,
    )  # fmt: skip


def _scores(
    score: Floats, writes: Ints, rng: np.random.Generator, worlds: int
) -> tuple[Floats, Bools]:
    """Score the recipients of so many worlds; and who was a correspondent."""
    seen = [rounds(score, writes, rng) for _ in range(worlds)]
    label: Bools = np.concatenate([one.friend for one in seen])
    return np.concatenate([disclose(one) for one in seen]), label
