"""`fimctl monitor`: what happens, as it happens."""

import argparse
import json
import os
import sys
import time
from typing import Any, Final

from fimctl import wire
from fimctl.daemon import BUS_NAME, Daemon
from fimctl.table import Style
from fimd.base.texts import printable

_WORTH_SHOWING: Final = ("State", "References", "Overlay", "Casefold", "Progress")


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("monitor", help="show events as they happen, until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Print a line for each object that comes, changes or goes."""
    with Daemon() as daemon:
        daemon.properties("Manager")  # starts the daemon where it does not run
        daemon.connection.subscribe(BUS_NAME)
        if sys.stdout.isatty() and not arguments.json:
            print("watching; Ctrl-C ends", file=sys.stderr)
        while True:
            message = daemon.connection.receive()
            fields = message.fields
            member = fields.get(wire.MEMBER)
            path = fields.get(wire.PATH, "")
            for event in _events(member, path, message.body):
                _show(event, as_json=arguments.json)


def _events(member: str | None, path: str, body: tuple[Any, ...]) -> list[dict[str, Any]]:
    if member == "InterfacesAdded":
        facts = {key: value[1] for item in body[1].values() for key, value in item.items()}
        return [_event("added", body[0], facts)]
    if member == "InterfacesRemoved":
        return [_event("removed", body[0], {})]
    if member == "PropertiesChanged":
        facts = {key: value[1] for key, value in body[1].items() if key in _WORTH_SHOWING}
        return [_event("changed", path, facts)]
    return []


def _event(what: str, path: str, facts: dict[str, Any]) -> dict[str, Any]:
    kind, identifier = path.split("/")[-2:]
    return {"time": time.time(), "event": what, "kind": kind, "id": identifier, **facts}


def _show(event: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        plain = {key: _plain(value) for key, value in event.items()}
        print(json.dumps(plain), flush=True)
        return
    style = Style()
    clock = time.strftime("%H:%M:%S", time.localtime(event["time"]))
    shown = {
        key: value
        for key, value in event.items()
        if key in {*_WORTH_SHOWING, "ImagePath", "Path", "Source", "MountPoint"}
    }
    facts = " ".join(f"{key}={printable(str(_plain(value)))}" for key, value in shown.items())
    name = f"{event['event']:8}{event['kind']:9} {event['id'].lstrip('0') or '0'}"
    print(f"{style.faint(clock)} {style.strong(name)} {facts}".rstrip(), flush=True)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return os.fsdecode(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
