# SPDX-License-Identifier: MIT
"""The handbook on the command line, and whether it says what is true."""

import re
import subprocess
from pathlib import Path

import pytest

from mesh.cli.help import ORDER, PAGES, topics
from mesh.cli.main import VERBS, main
from mesh.core import alarm, reply
from mesh.core.cell import BODY_LEN, CELL_LEN
from mesh.core.cellstream import REKEY_AFTER_CELLS
from mesh.core.crypto import Key, SystemEntropy
from mesh.node import dialer, exchange, mx, outbound, qmgr, routing, submission
from tests.system.nodes import find_tool

Capture = pytest.CaptureFixture[str]


def test_the_list(capsys: Capture) -> None:
    assert main(["help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[: len(ORDER)]] == list(ORDER)
    assert set(ORDER) == set(topics())


@pytest.mark.parametrize("topic", ORDER)
def test_each_page(topic: str, capsys: Capture) -> None:
    assert main(["help", topic]) == 0
    assert capsys.readouterr().out == (PAGES / f"{topic}.md").read_text()


@pytest.mark.parametrize("verb", ["init", "export", "peers"])
def test_each_verb(verb: str, capsys: Capture) -> None:
    assert main(["help", verb]) == 0
    one = capsys.readouterr().out
    assert main([verb, "--help"]) == 0
    assert one == capsys.readouterr().out
    assert one.startswith(f"Usage: mesh {verb}")


def test_no_such_page(capsys: Capture) -> None:
    assert main(["help", "quikstart"]) == 64
    assert capsys.readouterr().err == (
        "mesh: no page 'quikstart': did you mean \"quickstart\"?\n"
    )


def test_pages_are_text_of_one_screen_s_width() -> None:
    for path in topics().values():
        lines = path.read_text(encoding="ascii").splitlines()
        assert lines[0].startswith("# ")
        assert max(map(len, lines)) <= 92


def test_pages_name_verbs_that_there_are() -> None:
    for path in topics().values():
        for verb in re.findall(
            r"`mesh ([a-z]+)|^    mesh ([a-z]+)", path.read_text(), re.MULTILINE
        ):
            assert "".join(verb) in VERBS


@pytest.mark.parametrize(
    "words",
    [
        *(alarm.SHORT, alarm.IN_VAIN, alarm.MISSING),
        dialer.NO_CONNECTION,
        dialer.WRONG_ANSWER,
        *exchange._ENDS.values(),
        exchange.NO_ANSWER,
        reply.NO_SUCH_RECIPIENT.text,
        submission.NOT_PERMITTED.text,
        routing.REFUSED.text,
        routing.LEFT.text,
        qmgr.NOBODY.text.partition(" ")[2],
        *(
            text.partition(" ")[2].partition(",")[0]
            for text in (
                mx.NULL_MX.text,
                mx.NO_DOMAIN.text,
                mx.NO_DNS.text,
                mx.LOOP.text,
                outbound.UNREACHED.text,
            )
        ),
    ],
)
def test_troubleshooting_has_each_reason(words: str) -> None:
    assert words in (PAGES / "troubleshooting.md").read_text()


def test_the_table_of_the_alarm_is_the_code_s() -> None:
    """When it comes, for which links and ticks; and how long ticks should be there."""
    page = (PAGES / "operating.md").read_text()
    row = r"^    ([0-9]+) cells?/s +([0-9]+) +([0-9]+) s +([0-9]+) "
    rows = [tuple(map(int, one)) for one in re.findall(row, page, re.MULTILINE)]
    assert len(rows) == 5
    for rate, tick, seconds, ticks in rows:
        one = alarm.Alarm(Key.from_bytes(bytes(32)), SystemEntropy(), tick)
        assert seconds == round(one.late([1 / rate]))
        assert ticks == one.ticks_late([1 / rate])
    least = min(tick for rate, tick, _, ticks in rows if rate == 1 and ticks <= 3)
    assert least == alarm.long_enough([1.0])
    default = alarm.Alarm(Key.from_bytes(bytes(32)), SystemEntropy(), 10.0)
    fast = [rate for rate in (1, 2, 4, 8, 16) if default.ticks_late([1 / rate]) <= 3]
    assert f"{fast[0]} cells a second or more" in page


def test_protocol_has_the_code_s_numbers() -> None:
    page = (PAGES / "protocol.md").read_text()
    for number in (CELL_LEN, BODY_LEN, REKEY_AFTER_CELLS):
        assert str(number) in page.replace(",", "")
    handshake = Path(PAGES.parent / "core/handshake.py").read_text()
    _, messages, _ = re.split(r"(?ms)(^    INIT .*?^$)", handshake, maxsplit=1)
    assert messages in page
    gossip = Path(PAGES.parent / "core/frames.py").read_text()
    _, frames, _ = re.split(r"(?ms)(^    kind  name .*?^$)", gossip, maxsplit=1)
    assert frames in page


def unit() -> str:
    """The unit, as the page itself says to get it: its indented lines."""
    lines = (PAGES / "systemd.md").read_text().splitlines()
    return "".join(f"{line[4:]}\n" for line in lines if line.startswith("    "))


def test_the_unit_is_whole() -> None:
    text = unit()
    assert text.startswith("[Unit]\n")
    assert text.endswith("WantedBy=multi-user.target\n")
    assert "Type=notify\n" in text


@pytest.mark.skipif(find_tool("systemd-analyze") is None, reason="no systemd here")
def test_systemd_calls_the_unit_safe(tmp_path: Path) -> None:
    program = tmp_path / "mesh"
    program.touch(0o755)
    file = tmp_path / "mesh.service"
    file.write_text(unit().replace("/usr/local/bin/mesh", str(program)))
    verified = subprocess.run(
        ["systemd-analyze", "verify", file], check=False, capture_output=True, text=True
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=15", file],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert rated.returncode == 0, rated.stdout[-200:]
