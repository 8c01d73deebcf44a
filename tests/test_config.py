# SPDX-License-Identifier: MIT
"""node.toml: what the contract shows loads, and all mistakes come at once."""

import os
import pwd
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.config import Config, find_config, load, parse
from mesh.core.clock import Clock
from mesh.errors import ConfigError, IoError, NoInputError
from mesh.values import LmtpHost, LmtpSocket, Maildir, Pipe

BASE = Path("/srv/alpha")
PATH = BASE / "node.toml"

WHOLE = """\
[node]
name = "alpha"
network = "main"
listen = ["0.0.0.0:48821", "[::]:48821"]
address = "alpha.example.net:48821"
state = "state"
peers = "peers.d"
postmaster = ""
[local]
socket = "local.sock"
smtp = []
drop = "drop"
message_bytes = 20971520
[[remailer]]
address = "mix@alpha.example.net"
deliver = "maildir:/var/lib/mix/Maildir"
user = ""
[link]
clock = "renewal"
cells_per_second = 1
[delivery]
exit = true
smarthost = ""
routes = { "example.org" = "127.0.0.1:2525" }
[pool]
kind = "timed"
tick_seconds = 10
"""

LEAST = '[node]\nname = "alpha"\n'


def mistakes(text: str) -> list[str]:
    """The lines of the one error that the text raises, without the path."""
    with pytest.raises(ConfigError) as caught:
        parse(text, PATH)
    assert caught.value.exit_code == 78
    return [line.removeprefix(f"{PATH}:") for line in str(caught.value).splitlines()]


def test_the_contract_s_example() -> None:
    config = parse(WHOLE, PATH)
    assert config.path == PATH
    assert config.node.name == "alpha"
    assert config.node.listen == ("0.0.0.0:48821", "[::]:48821")
    assert config.node.address == "alpha.example.net:48821"
    assert config.state_dir == BASE / "state"
    assert config.peers_dir == BASE / "peers.d"
    assert config.socket_path == BASE / "local.sock"
    assert config.local.drop == BASE / "drop"
    assert config.local.message_bytes == 20_971_520
    (remailer,) = config.remailer
    assert remailer.address == ("mix@alpha.example.net",)
    assert remailer.deliver == Maildir(Path("/var/lib/mix/Maildir"))
    assert (config.link.clock, config.link.klass) == (Clock.RENEWAL, 3)
    assert config.delivery.routes == {"example.org": "127.0.0.1:2525"}
    assert config.pool.tick_seconds == 10


def test_a_name_is_enough_and_the_rest_is_as_the_example() -> None:
    least, whole = parse(LEAST, PATH), parse(WHOLE, PATH)
    for table, key in [
        ("node", "network"),
        ("node", "state"),
        ("node", "peers"),
        ("node", "postmaster"),
        ("local", "socket"),
        ("local", "smtp"),
        ("local", "drop"),
        ("local", "message_bytes"),
        ("link", "clock"),
        ("link", "cells_per_second"),
        ("delivery", "exit"),
        ("delivery", "smarthost"),
        ("pool", "kind"),
        ("pool", "tick_seconds"),
    ]:
        assert getattr(getattr(least, table), key) == getattr(
            getattr(whole, table), key
        )
    assert least.remailer == ()
    assert least.node.listen == ()
    assert least.delivery.routes == {}
    assert least.delivery.refuse is None


def test_the_refuse_list_is_relative_to_the_file() -> None:
    config = parse(LEAST + '[delivery]\nrefuse = "no"\n', PATH)
    assert config.delivery.refuse == BASE / "no"
    assert parse(LEAST + '[delivery]\nrefuse = ""\n', PATH).delivery.refuse is None


def test_the_watched_directory_is_relative_to_the_file() -> None:
    assert parse(LEAST, PATH).node.directory is None
    assert parse(LEAST + 'directory = ""\n', PATH).node.directory is None
    config = parse(LEAST + 'directory = "directory.mesh"\n', PATH)
    assert config.node.directory == BASE / "directory.mesh"
    assert mistakes(LEAST + "directory = 1") == [
        '3: node.directory: must be text: write it in quotes, "..."'
    ]
    assert "is no path" in mistakes(LEAST + 'directory = "a\\u0000b"')[0]


def test_listen_follows_the_address() -> None:
    config = parse(LEAST + 'address = "[::1]:9"\n', PATH)
    assert config.node.listen == ("0.0.0.0:9", "[::]:9")
    config = parse(LEAST + 'address = "a.b:9"\nlisten = ["127.0.0.1:10"]\n', PATH)
    assert config.node.listen == ("127.0.0.1:10",)


def test_the_models_are_frozen() -> None:
    config = parse(WHOLE, PATH)
    with pytest.raises(ValueError, match="frozen"):
        config.node.name = "bravo"


def test_paths_are_relative_to_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "node.toml").write_text(LEAST + 'state = "/abs"\npeers = "../p"\n')
    monkeypatch.chdir(tmp_path)
    config = load(Path("node.toml"))
    assert config.state_dir == Path("/abs")
    assert config.peers_dir == tmp_path / "../p"
    assert config.socket_path.is_absolute()


def with_remailer(*lines: str) -> Config:
    return parse(LEAST + "[[remailer]]\n" + "\n".join(lines), PATH)


@pytest.mark.parametrize(
    ("deliver", "target"),
    [
        ("maildir:Maildir", Maildir(BASE / "Maildir")),
        ("maildir:/a b/c", Maildir(Path("/a b/c"))),
        ("lmtp:/run/x.sock", LmtpSocket(Path("/run/x.sock"))),
        ("lmtp:./x.sock", LmtpSocket(BASE / "x.sock")),
        ("lmtp:localhost:24", LmtpHost("localhost", 24)),
        ("lmtp:[::1]:24", LmtpHost("::1", 24)),
        ('pipe:/bin/x -R "a b"', Pipe(("/bin/x", "-R", "a b"))),
        ("pipe:bin/x", Pipe((str(BASE / "bin/x"),))),
        ("pipe:mixmaster -R", Pipe(("mixmaster", "-R"))),
    ],
)
def test_where_mail_goes(deliver: str, target: object) -> None:
    config = with_remailer('address = "a@b.c"', f"deliver = '{deliver}'")
    assert config.remailer[0].deliver == target


def test_a_user_that_this_machine_has() -> None:
    me = pwd.getpwuid(os.getuid()).pw_name
    config = with_remailer('address="a@b.c"', 'deliver="maildir:M"', f'user="{me}"')
    assert config.remailer[0].user == me


def test_addresses_are_canonical_and_postmaster_follows() -> None:
    text = (
        LEAST
        + 'address = "Alpha.Test:9"\npostmaster = "List@Alpha.Test"\n'
        + '[[remailer]]\naddress = "MIX@alpha.test"\ndeliver = "maildir:M"\n'
        + '[[remailer]]\naddress = ["list@alpha.test", "@Else.Test"]\n'
        + 'deliver = "maildir:L"\n'
    )
    config = parse(text, PATH)
    assert config.serves == ("@else.test", "list@alpha.test", "mix@alpha.test")
    assert config.own_addresses() == {
        "mix@alpha.test": 0,
        "list@alpha.test": 1,
        "@else.test": 1,
        "postmaster": 1,
        "postmaster@alpha.test": 1,
    }
    assert parse(LEAST, PATH).own_addresses() == {}
    assert with_remailer('address="a@b.c"', 'deliver="maildir:M"').own_addresses() == {
        "a@b.c": 0,
        "postmaster": 0,
    }
    literal = parse(text.replace("Alpha.Test:9", "127.0.0.1:9"), PATH)
    assert "postmaster@[127.0.0.1]" in literal.own_addresses()


def test_a_postmaster_elsewhere_is_an_alias() -> None:
    text = LEAST + 'address = "a.test:9"\npostmaster = "Who@Else.test"\n'
    assert parse(text, PATH).aliases() == {
        "postmaster": "who@else.test",
        "postmaster@a.test": "who@else.test",
    }
    text += '[[remailer]]\naddress = ["x@a.test", "postmaster@a.test"]\n'
    assert parse(text + 'deliver = "maildir:M"', PATH).aliases() == {
        "postmaster": "who@else.test"
    }
    text = text.replace("Who@Else.test", "x@a.test")
    assert parse(text + 'deliver = "maildir:M"', PATH).aliases() == {}
    assert parse(LEAST, PATH).aliases() == {}


BAD = """\
colour = 3
[nod]
[node]
nmae = "x"
listen = ["a", 5, "[::1]:9"]
address = 7
clock = "renewal"
postmaster = "Postmaster@y.net"
[local]
smtp = ["127.0.0.1:2525", "192.0.2.1:25"]
message_bytes = 0
socket = ""
[[remailer]]
address = ["a@b.net", "q"]
deliver = "pipe:'x"
[[remailer]]
address = "A@b.net"
deliver = 5
user = "no such!"
colour = 1
[[remailer]]
address = []
[link]
clock = "sloted"
cells_per_second = 3
[delivery]
exit = "no"
routes = { "a b" = "x:1", "c.net" = "y" }
[pool]
kind = "tmied"
tick_seconds = inf
"""

REMAILER = '[[remailer]]\naddress = "{0}@b.net"\ndeliver = "maildir:M"\nuser = "{1}"\n'
PORT = LEAST + '[local]\nsmtp = ["127.0.0.1:2525"]\n'


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        (PORT, False),
        (PORT + REMAILER.format("x", "root"), False),
        (PORT + REMAILER.format("x", "root") + REMAILER.format("y", ""), True),
        (PORT + REMAILER.format("x", ""), True),
        (PORT.replace('"127.0.0.1:2525"', "") + REMAILER.format("x", "root"), True),
    ],
)
def test_a_port_is_for_somebody(text: str, holds: bool) -> None:
    if holds:
        assert parse(text, PATH).remailer
    else:
        assert mistakes(text) == [
            "4: local.smtp: a port cannot tell who speaks: "
            "leave a remailer's `user` empty, or smtp"
        ]


def test_all_mistakes_at_once() -> None:
    endpoint = "has no port: write HOST:PORT with a port of 1 to 65535"
    assert mistakes(BAD) == [
        "1: colour: is no table: use one of node, local, remailer, link, delivery, pool",
        '2: nod: is no table: did you mean "node"?',
        "3: node.name: is not there: add it",
        '4: node.nmae: is no key of [node]: did you mean "name"?',
        f"5: node.listen[1]: 'a' {endpoint}",
        '5: node.listen[2]: must be text: write it in quotes, "..."',
        '6: node.address: must be text: write it in quotes, "..."',
        "7: node.clock: is no key of [node]: it belongs in [link]",
        "8: node.postmaster: is a postmaster itself, and the two could send to each "
        "other for ever: name somebody's own address",
        "10: local.smtp: 192.0.2.1:25 is not loopback: "
        "write 127.0.0.1:PORT or [::1]:PORT",
        "11: local.message_bytes: must be greater than or equal to 1: change it",
        "12: local.socket: '' is no path: write one, relative to this file",
        "14: remailer[1].address[2]: 'q' is no address: write user@example.net, "
        "or @example.net for a whole domain",
        '15: remailer[1].deliver: "\'x" cannot be split: No closing quotation',
        "17: remailer[2].address: a@b.net stands here twice: one address, one remailer",
        '18: remailer[2].deliver: must be text: write it in quotes, "..."',
        "19: remailer[2].user: this machine has no user 'no such!': create it, "
        "or leave it empty",
        "20: remailer[2].colour: is no key of [remailer]: use one of address, deliver, "
        "user",
        "21: remailer[3].deliver: is not there: add it",
        "22: remailer[3].address: is empty: write at least one",
        "24: link.clock: no clock 'sloted': did you mean \"slotted\"?",
        "25: link.cells_per_second: 3 is no rate: write a power of two from 0.125 to 4096",
        "27: delivery.exit: must be true or false: write it without quotes",
        "28: delivery.routes.a b: 'a b' is no host: write a DNS name, an IPv4 address "
        "or [IPv6]",
        f"28: delivery.routes.c.net: 'y' {endpoint}",
        "30: pool.kind: no pool 'tmied': did you mean \"timed\"?",
        "31: pool.tick_seconds: must be less than or equal to 3600: change it",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "1: node.name: is not there: add it"),
        ("node = 5", "1: node: must be a table: write [name] above its keys"),
        (LEAST + "[[link]]", "3: link: must be a table: write [name] above its keys"),
        (
            LEAST + "[remailer]\naddress='a@b.c'",
            "3: remailer: must be a list of tables: write [[remailer]], two brackets",
        ),
        (
            "remailer = [5]\n" + LEAST,
            "1: remailer[1]: must be a table: write [name] above its keys",
        ),
        (
            LEAST + "state = 5",
            '3: node.state: must be text: write it in quotes, "..."',
        ),
        (
            LEAST + "[pool]\nkind = 5",
            '4: pool.kind: must be text: write it in quotes, "..."',
        ),
        (LEAST + "[link]\nclock = 5", "4: link.clock: must be text: write"),
        (
            LEAST + "[link]\nclock = 'greed'",
            "4: link.clock: no clock 'greed': did you mean",
        ),
        (
            LEAST + "[link]\ncells_per_second = true",
            "4: link.cells_per_second: must be",
        ),
        (
            LEAST + "[link]\ncells_per_second = nan",
            "4: link.cells_per_second: nan is no",
        ),
        (
            LEAST + "[link]\ncells_per_second = 8192",
            "4: link.cells_per_second: 8192 is no",
        ),
        (LEAST + "[pool]\nkind = 'time'", "4: pool.kind: no pool 'time': "),
        (LEAST + "[pool]\nshare = 0", "4: pool.share: must be greater than 0"),
        (LEAST + "[pool]\nshare = 1.5", "4: pool.share: must be less than or equal"),
        (LEAST + "[pool]\ntick_seconds = 0", "4: pool.tick_seconds: must be greater"),
        (LEAST + "postmaster = '@b.c'", "3: node.postmaster: must be one mailbox"),
        (LEAST + "listen = 'a:1'", "3: node.listen: must be a list: write [...]"),
        (
            LEAST + "[delivery]\nroutes = 5",
            "4: delivery.routes: must be a table: write {",
        ),
        (
            LEAST + "[delivery]\nsmarthost = 'x'",
            "4: delivery.smarthost: 'x' has no port",
        ),
        (
            LEAST + "[local]\nmessage_bytes = 900_000_000",
            "4: local.message_bytes: must be less than or equal to 268435456",
        ),
        ("a = " + "[" * 3000, "1: lists in lists without end"),
        (
            LEAST + "[local]\nmessage_bytes = 1.5",
            "4: local.message_bytes: must be a whole",
        ),
        (LEAST + '"a\\nb" = 1', "1: node.'a\\nb': is no key of [node]: use one of"),
        ("a = 1\na = 2", "2: cannot overwrite a value: correct the TOML here"),
        ('a = "', "1: unterminated string: correct the TOML here"),
        ("a = 1\n\nb = ", "3: invalid value: correct the TOML here"),
    ],
)
def test_one_mistake(text: str, line: str) -> None:
    assert any(found.startswith(line) for found in mistakes(text)), mistakes(text)


@pytest.mark.parametrize(
    ("deliver", "why"),
    [
        ("Maildir", "is no delivery: write maildir:PATH"),
        ("maildir:", "is no delivery"),
        ("lmtp: ", "is no delivery"),
        ("mbox:/x", "is no delivery"),
        ("maildir:a\\nb", "is no delivery"),
        ("lmtp:x.sock", "has no port"),
        ("pipe", "is no delivery"),
        ("pipe:''", "names no program"),
    ],
)
def test_deliveries_that_are_none(deliver: str, why: str) -> None:
    (line,) = mistakes(
        LEAST + f'[[remailer]]\naddress = "a@b.c"\ndeliver = "{deliver}"\n'
    )
    assert line.startswith("5: remailer[1].deliver: ")
    assert why in line


def test_more_addresses_than_a_descriptor_has_room_for() -> None:
    many = ", ".join(f'"{n}@b.c"' for n in range(129))
    assert mistakes(
        LEAST + f'[[remailer]]\naddress = [{many}]\ndeliver = "maildir:M"\n'
    ) == ["3: remailer: more than 128 addresses: run a second node"]


def test_each_mistake_is_one_printable_line() -> None:
    for line in mistakes(BAD + '"\\u001b[31m" = 1\n[node2]\n"\\n" = ""\n'):
        assert line.isprintable()


@given(st.text(max_size=60))
def test_any_text_is_a_config_or_a_config_error(text: str) -> None:
    for whole in (text, LEAST + text, LEAST + f"address = {text}"):
        with suppress(ConfigError):
            parse(whole, PATH)


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MESH_CONFIG", raising=False)
    monkeypatch.setattr("mesh.config.SYSTEM_CONFIG", tmp_path / "etc" / "node.toml")
    return tmp_path


def test_where_the_file_is_looked_for(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NoInputError, match=r"no node\.toml here nor in .*mesh init"):
        find_config(None)
    (nowhere / "etc").mkdir()
    (nowhere / "etc" / "node.toml").touch()
    assert find_config(None) == nowhere / "etc" / "node.toml"
    (nowhere / "node.toml").touch()
    assert find_config(None) == Path("node.toml")
    monkeypatch.setenv("MESH_CONFIG", "/some/where")
    assert find_config(None) == Path("/some/where")
    assert find_config("/else") == Path("/else")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match=r"none\.toml: No such file"):
        load(tmp_path / "none.toml")
    with pytest.raises(NoInputError, match=r"directory: did you mean its node.toml"):
        load(tmp_path)
    (tmp_path / "latin").write_bytes(b'[node]\nname = "a"\n# \xe9\n')
    with pytest.raises(ConfigError, match="latin:3: not UTF-8"):
        load(tmp_path / "latin")
    with pytest.raises(ConfigError, match="more than 1 MiB"):
        load(Path("/dev/zero"))
    with pytest.raises(IoError, match="mem: Input/output error: see to the disk"):
        load(Path("/proc/self/mem"))
