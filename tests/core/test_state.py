# SPDX-License-Identifier: MIT
from mesh.core.command import Verb
from mesh.core.state import TRANSITIONS, State

# One answer in every state: dialogue.py.
FIXED = {Verb.HELP, Verb.VRFY, Verb.TURN}


def reachable(start: State) -> set[State]:
    found, frontier = {start}, [start]
    while frontier:
        for after in TRANSITIONS[frontier.pop()].values():
            if after not in found:
                found.add(after)
                frontier.append(after)
    return found


def test_the_table_is_whole() -> None:
    assert set(TRANSITIONS) == set(State)
    assert reachable(State.CONNECTED) == set(State)
    for state in State:
        assert State.CLOSED in reachable(state)
    assert {verb for row in TRANSITIONS.values() for verb in row} == set(Verb) - FIXED


def test_a_greeting_a_reset_and_a_quit_are_always_possible() -> None:
    always = {Verb.HELO, Verb.EHLO, Verb.LHLO, Verb.RSET, Verb.NOOP, Verb.QUIT}
    for state in set(State) - {State.CLOSED}:
        assert always <= set(TRANSITIONS[state])
        assert TRANSITIONS[state][Verb.NOOP] is state
    assert not TRANSITIONS[State.CLOSED]


def test_a_mail_is_said_in_one_order() -> None:
    state, order = State.READY, []
    for verb in (Verb.MAIL, Verb.RCPT, Verb.RCPT, Verb.BDAT, Verb.BDAT):
        state = TRANSITIONS[state][verb]
        order.append(state)
    assert order == [
        State.SENDER,
        State.RECIPIENTS,
        State.RECIPIENTS,
        State.CHUNKS,
        State.CHUNKS,
    ]
    assert [state for state in State if Verb.MAIL in TRANSITIONS[state]] == [
        State.READY
    ]
    assert [state for state in State if Verb.DATA in TRANSITIONS[state]] == [
        State.RECIPIENTS
    ]
