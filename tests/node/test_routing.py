# SPDX-License-Identifier: MIT
"""Each address has one place, or a reason for none; who wants no mail gets none."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from mesh.config import Config, parse
from mesh.core.directory import Directory, Listed
from mesh.core.reply import NO_SUCH_RECIPIENT, Reply
from mesh.errors import ConfigError
from mesh.node.exchange import Exchange
from mesh.node.qmgr import QueueManager
from mesh.node.routing import LEFT, REFUSED, UNROUTED, Routing, host_of
from tests.descriptors import signed
from tests.harness import FixedEntropy, Patience, half, until

NODE = """
[node]
name = "alpha"
address = "Alpha.test:4000"
{node}
[[remailer]]
address = "mix@alpha.test"
deliver = "maildir:M"
[delivery]
{delivery}
"""


def config(folder: Path, delivery: str = "", node: str = "") -> Config:
    return parse(NODE.format(node=node, delivery=delivery), folder / "node.toml")


def routing(settings: Config) -> Routing:
    peers = [
        Listed(
            signed("bravo", serves=("mix@bravo.test", "x@both.test")),
            frozenset({"x@both.test"}),
        ),
        Listed(signed("charlie", serves=("x@both.test",)), frozenset({"x@both.test"})),
        Listed(
            signed("delta", serves=("@[ipv6:2001:db8::5]",)),
            frozenset({"@[ipv6:2001:db8::5]"}),
        ),
    ]
    directory = Directory(settings.own_addresses(), peers)
    return Routing(settings, lambda: directory)


def test_a_node_that_has_left_takes_nothing_and_knows_its_way(tmp_path: Path) -> None:
    left: list[bool] = []
    settings = config(tmp_path)
    directory = routing(settings)._directory
    here = Routing(settings, directory, has_left=lambda: bool(left))
    addresses = ("mix@alpha.test", "mix@bravo.test", "who@else.test")
    before = [(here.accepts(each), here.route(each)) for each in addresses]
    left.append(True)
    assert {here.accepts(each) for each in addresses} == {LEFT}
    assert LEFT.code == 451
    left.clear()
    assert [(here.accepts(each), here.route(each)) for each in addresses] == before


@pytest.mark.parametrize(
    ("delivery", "address", "place"),
    [
        ("", "mix@alpha.test", "local:0"),
        ("", "MIX@Alpha.TEST", "local:0"),
        ("", "postmaster", "local:0"),
        ("", "Postmaster@alpha.test", "local:0"),
        ("", "mix@bravo.test", "bravo"),
        ("", '"mix"@bravo.test', "bravo"),
        ("", '"m\\ix"@Bravo.test', "bravo"),
        ("", "x@both.test", "?"),
        ("", "Who@Else.test", "exit:else.test"),
        ("", '"a b"@else.test', "exit:else.test"),
        ("", "who@[IPv6:2001:DB8::1]", "exit:[ipv6:2001:db8::1]"),
        ("", "Who@[IPv6:2001:DB8:0::5]", "delta"),
        ("", '"a b"@[IPv6:2001:DB8:0::5]', "delta"),
        ("", ".odd..@[IPv6:2001:DB8:0::5]", "delta"),
        ("", f"{'x' * 65}@[ipv6:2001:db8:0::5]", "delta"),
        ("", "..@[IPv6:2001:DB8:0::1]", "exit:[ipv6:2001:db8::1]"),
        ("", "..@[x400:Some]", "exit:[x400:some]"),
        ("", "nobody", None),
        ("", "", None),
        ("exit = false", "who@else.test", None),
        ("exit = false", "mix@bravo.test", "bravo"),
        ('smarthost = "h.test:25"', "who@else.test", "exit:"),
        ('smarthost = "h.test:25"', "mix@bravo.test", "bravo"),
        (
            'smarthost = "h.test:25"\nroutes = {"else.test" = "127.0.0.1:25"}',
            "who@ELSE.test",
            "exit:else.test",
        ),
    ],
)
def test_where_mail_goes(
    tmp_path: Path, delivery: str, address: str, place: str | None
) -> None:
    here = routing(config(tmp_path, delivery))
    assert here.route(address) == place
    assert here.accepts(address) == (None if place else NO_SUCH_RECIPIENT)
    assert here.alias(address) == address


def test_a_source_route_hides_nobodys_address(tmp_path: Path) -> None:
    routes = routing(config(tmp_path))
    assert routes.route("@x.org:mix@bravo.test") is None
    assert routes.route("@x.org:who@outside.example") is None


def test_a_postmaster_elsewhere(tmp_path: Path) -> None:
    here = routing(config(tmp_path, node='postmaster = "mix@bravo.test"'))
    for name in ("postmaster", "PostMaster@Alpha.test", '"postmaster"@alpha.test'):
        assert here.alias(name) == "mix@bravo.test"
        assert here.route(name) == "bravo"
    assert here.alias("postmaster@bravo.test") == "postmaster@bravo.test"


def test_how_mail_systems_call_this_node(tmp_path: Path) -> None:
    assert host_of(config(tmp_path)) == "alpha.test"
    dials_only = parse('[node]\nname = "alpha"\n', tmp_path / "node.toml")
    assert host_of(dials_only) == "alpha"
    numbers = parse('[node]\nname="a"\naddress="[::1]:9"\n', tmp_path / "node.toml")
    assert host_of(numbers) == "[ipv6:::1]"


def test_who_wants_no_mail(tmp_path: Path) -> None:
    (tmp_path / "no").write_text("who@else.test\n@bravo.test\n")
    here = routing(config(tmp_path, 'refuse = "no"'))
    assert here.accepts("WHO@else.test") == REFUSED
    assert here.accepts("mix@bravo.test") == REFUSED
    assert here.accepts("she@else.test") is None
    assert here.mistakes == ()


@pytest.mark.parametrize("delivery", ["", "exit = false", 'smarthost = "h:25"'])
def test_mail_for_a_peer_that_is_missing_is_taken_and_waits(
    tmp_path: Path, delivery: str
) -> None:
    settings = config(tmp_path, delivery)
    removed = {"mix@gone.test": 2**62}
    missing = {"@lost.test": 2**62, "mix@old.test": 1}
    directory = Directory(settings.own_addresses(), [], removed, missing)
    here = Routing(settings, lambda: directory)
    assert here.route("Mix@Lost.test") == UNROUTED
    assert here.accepts("mix@lost.test") is None
    assert here.accepts("mix@gone.test") == NO_SUCH_RECIPIENT
    assert (here.route("mix@old.test") is None) == ("exit" in delivery)


def test_a_list_with_a_mistake_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "no").write_text("nobody\n")
    with pytest.raises(ConfigError, match="no:1: no address"):
        routing(config(tmp_path, 'refuse = "no"'))


async def test_the_list_is_looked_at(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    path = tmp_path / "no"
    path.write_text("who@else.test\n")
    here = routing(config(tmp_path, 'refuse = "no"'))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.watch)
        path.write_text("she@else.test\n")
        await until(lambda: here.refuses("she@else.test"), 2.1)
        assert here.accepts("who@else.test") is None
        path.write_text("nobody\n")
        await until(lambda: here.mistakes, 2.1)
        assert here.refuses("she@else.test")
        nursery.cancel_scope.cancel()


async def test_what_a_peer_may_hand_over(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    (tmp_path / "no").write_text("mix2@alpha.test\n")
    text = NODE.format(node='postmaster = "boss@else.test"', delivery='refuse = "no"')
    text = text.replace('"mix@alpha.test"', '["mix@alpha.test", "mix2@alpha.test"]')
    here = routing(parse(text, tmp_path / "node.toml"))
    async with half(tmp_path, "alpha", {}) as alpha:
        qmgr = QueueManager(alpha.spool, here.route, FixedEntropy(), alias=here.alias)
        exchange = Exchange(
            name="alpha",
            identity=bytes(32),
            qmgr=qmgr,
            max_message=1000,
            entropy=FixedEntropy(),
            refuses=here.refuses,
        )
        for path, reply in {
            "mix@alpha.test": None,
            "mix2@alpha.test": REFUSED,
            "@alpha:mix2@alpha.test": REFUSED,
            "postmaster": None,
            "postmaster@alpha.test": None,
            "boss@else.test": NO_SUCH_RECIPIENT,
            "who@else.test": NO_SUCH_RECIPIENT,
            "mix@bravo.test": NO_SUCH_RECIPIENT,
            "@alpha:mix@bravo.test": None,
        }.items():
            assert exchange.accepts("bravo", path) == reply, path
        # The postmaster elsewhere gets it under the address that is served there.
        replies: list[Reply] = []
        qmgr.accept(
            reverse_path="",
            recipients=["postmaster@alpha.test"],
            content=b"help\r\n",
            answer=replies.append,
        )
        await until(lambda: replies)
        for _ in qmgr.depart():
            pass
        [ref] = qmgr.queue("exit:else.test").ready
        [record] = await alpha.spool.read([ref])
        assert record is not None
        assert record.recipients == ("boss@else.test",)
