"""The client's own D-Bus messages, beside those of jeepney."""

import random
import subprocess
import sys
from typing import Any

import pytest
from jeepney import DBusAddress, Parser, new_method_call, new_signal
from jeepney.low_level import Endianness

from fimctl import wire

ADDRESS = DBusAddress("/org/example", bus_name="org.example", interface="org.example.Face")
EXAMPLES: list[tuple[str, tuple[Any, ...]]] = [
    ("", ()),
    ("s", ("ü",)),
    ("ybnqiuxtd", (1, True, -2, 3, -4, 5, -6, 7, 0.5)),
    ("og", ("/a/b", "a{sv}")),
    ("ayaay", (b"\0\xff", [b"one", b""])),
    (
        "a{sv}",
        (
            {
                "a": ("s", "b"),
                "c": ("aay", [b"d"]),
                "e": ("(ui)", (1, -1)),
                "f": ("v", ("b", False)),
            },
        ),
    ),
    ("a(yv)a(xs)", ([(1, ("t", 2))], [])),
    ("aya{sa{s(bay)}}", (b"odd", {"x": {"y": (True, b"z")}, "n": {}})),
]


@pytest.mark.parametrize(("signature", "body"), EXAMPLES)
def test_jeepney_reads_what_the_client_calls(signature: str, body: tuple[Any, ...]) -> None:
    data = wire.call(7, "org.example", "/org/example", "org.example.Face", "Do", signature, body)
    assert wire.length(data[: wire.FIXED]) == len(data)
    [message] = Parser().feed(data)
    assert message.header.serial == 7
    assert message.body == body
    expected = new_method_call(ADDRESS, "Do", signature or None, body)
    assert message.header.fields == expected.header.fields


@pytest.mark.parametrize("endianness", [Endianness.little, Endianness.big])
@pytest.mark.parametrize(("signature", "body"), EXAMPLES)
def test_the_client_reads_what_jeepney_emits(
    signature: str, body: tuple[Any, ...], endianness: Endianness
) -> None:
    signal = new_signal(ADDRESS, "Done", signature or None, body)
    signal.header.endianness = endianness
    message = wire.parse(signal.serialise(3))
    assert (message.kind, message.fields[wire.MEMBER]) == (wire.SIGNAL, "Done")
    assert message.body == body


def test_a_damaged_message_is_an_error_of_its_own() -> None:
    signature, body = EXAMPLES[5]
    whole = new_signal(ADDRESS, "Done", signature, body).serialise(3)
    source = random.Random(1)
    for end in range(wire.FIXED, len(whole)):
        with pytest.raises(wire.WireError):
            wire.parse(whole[:end])
    for _ in range(2000):
        damaged = bytearray(whole)
        damaged[source.randrange(len(whole))] = source.randrange(256)
        try:
            wire.parse(bytes(damaged))
        except wire.WireError:
            continue  # what is not noticed reads as other values


def test_a_message_that_says_it_is_too_long_is_refused() -> None:
    with pytest.raises(wire.WireError):
        wire.length(b"l\1\0\1" + b"\xff" * 12)
    with pytest.raises(wire.WireError):
        wire.length(b"HTTP/1.1 400 Bad")


@pytest.mark.parametrize("value", ["text", 300, None])
def test_a_value_of_another_type_is_no_message(value: object) -> None:
    with pytest.raises((ValueError, TypeError, OverflowError)):
        wire.call(1, "a.b", "/", "a.b", "C", "y", (value,))


def test_a_start_imports_none_of_what_takes_long() -> None:
    code = "import sys, fimctl.image_words; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    slow = {"typing", "re", "enum", "dataclasses", "socket", "signal", "collections", "jeepney"}
    bare = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not slow & (set(done.stdout.split()) - set(bare.stdout.split()))
