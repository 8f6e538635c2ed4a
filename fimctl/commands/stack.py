"""`fimctl stack`: an image's filesystem stack, drawn from top to bottom."""

import argparse
import os
from dataclasses import dataclass
from typing import Any

from fimctl.daemon import Daemon
from fimctl.table import Style, path_text, print_json, size_text


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("stack", help="draw an image's filesystem stack")
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(func=run)


@dataclass(frozen=True)
class Box:
    """One level of the stack: what it is, and the facts about it."""

    title: str
    facts: tuple[str, ...]


def run(arguments: argparse.Namespace) -> int:
    """Draw the stack of the running instances, or the one that the next start would have."""
    with Daemon() as daemon:
        image_path = daemon.open_image(arguments.image)
        objects = daemon.objects()
    image = objects[image_path]["Image"]
    instances = [objects[path]["Instance"] for path in image["Instances"] if path in objects]
    layers = _layers(image, instances, objects)
    if arguments.json:
        print_json({"image": image, "instances": instances, "layers": layers})
        return 0
    draw([*_top(image, instances), *_layer_boxes(layers, bytes(image["Path"]))])
    return 0


def _layers(
    image: dict[str, Any], instances: list[dict[str, Any]], objects: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return the layers base first: as mounted where an instance runs."""
    mounted = {
        (bytes(facts["Layer"]["Source"]), facts["Layer"]["Offset"]): facts["Layer"]
        for facts in objects.values()
        if "Layer" in facts
    }
    if instances:
        newest = max(instances, key=lambda instance: instance["StartedAt"])
        return [objects[path]["Layer"] for path in newest["Layers"] if path in objects]
    unmounted = {"References": 0, "State": "not mounted", "MountPoint": b"", "Engine": ""}
    return [
        mounted.get(
            (bytes(source), offset),
            {"Source": source, "Offset": offset, "Size": size, **unmounted},
        )
        for source, offset, size in image["Layers"]
    ]


def _top(image: dict[str, Any], instances: list[dict[str, Any]]) -> list[Box]:
    pids = ", ".join(str(instance["Pid"]) for instance in instances)
    boxes = [Box("Container root (/)", (f"processes {pids}" if pids else "no instance runs",))]
    shown = max(instances, key=lambda item: item["StartedAt"]) if instances else image
    data = bytes(shown["DataDir"])
    if shown["Casefold"] != "off":
        where = (path_text(bytes(shown["Root"])),) if instances else ()
        boxes.append(Box(f"Case-insensitive view ({shown['Casefold']})", where))
    facts = [f"changes in {path_text(os.path.join(data, b'root'))}"]
    if instances and shown["Casefold"] == "off":
        facts.append(f"seen at {path_text(bytes(shown['Root']))}")
    names = {"bwrap": "kernel overlayfs", "unionfs": "unionfs-fuse", "overlayfs": "fuse-overlayfs"}
    names["copy"] = "all of the tree in the upper"
    overlay = shown["Overlay"]
    boxes.append(Box(f"Overlay: {overlay} ({names.get(overlay, overlay)})", tuple(facts)))
    return boxes


def _layer_boxes(layers: list[dict[str, Any]], image: bytes) -> list[Box]:
    boxes = []
    for index, layer in enumerate(layers):
        source = bytes(layer["Source"])
        if source != image:
            origin = f"from {path_text(source)}"
        elif index == 0:
            origin = f"base, at byte {layer['Offset']} of the image"
        else:
            origin = f"committed, at byte {layer['Offset']} of the image"
        users = layer["References"]
        state = layer["State"] if not users else f"{users} reference{'s' if users != 1 else ''}"
        facts = [f"{size_text(layer['Size'])}, {state}, {origin}"]
        if layer["MountPoint"]:
            facts.append(f"{layer['Engine']}, at {path_text(bytes(layer['MountPoint']))}")
        boxes.append(Box(f"DwarFS layer {index}", tuple(facts)))
    return boxes[::-1]


def draw(boxes: list[Box]) -> None:
    """Print the boxes in one frame; where the terminal is narrow, lines are cut at its edge."""
    style = Style()
    limit = _terminal_width() - 4
    inner = min(limit, max(len(line) for box in boxes for line in (box.title, *box.facts)))
    print("┌" + "─" * (inner + 2) + "┐")
    for number, box in enumerate(boxes):
        if number:
            print("├" + "─" * (inner + 2) + "┤")
        print(f"│ {style.strong(_fit(box.title, inner))} │")
        for fact in box.facts:
            print(f"│ {style.faint(_fit(fact, inner))} │")
    print("└" + "─" * (inner + 2) + "┘")


def _fit(text: str, width: int) -> str:
    return text.ljust(width) if len(text) <= width else text[: width - 1] + "…"


def _terminal_width() -> int:
    try:
        return max(os.get_terminal_size(1).columns, 40)
    except OSError:
        return 1000  # not a terminal: nothing is cut
