"""`fimctl dwarfs`: DwarFS images without any other tool: make, look, check, extract, mount."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from fimctl.commands import dwarfs_create
from fimctl.errors import ClientError
from fimctl.table import path_text, print_json, print_table, size_text
from fimd.base.texts import printable

if TYPE_CHECKING:
    from fimd.dwarfs import Image
    from fimd.dwarfs.tree import Attributes

_CACHE_MIB = 512
_FAILED = 1


def add_parser(commands: Any) -> None:
    """Add the command with its own commands."""
    parser = commands.add_parser("dwarfs", help="make, inspect, extract and mount DwarFS images")
    parser.set_defaults(func=_help(parser))
    below = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add(below, "info", "print what an image is", _info)
    listing = _add(below, "list", "list the names in an image", _list)
    listing.add_argument("-l", "--long", action="store_true", help="as ls -l does")
    checking = _add(below, "check", "check every checksum and the metadata", _check)
    checking.add_argument(
        "--content", action="store_true", help="also decompress all that files need"
    )
    extracting = _add(below, "extract", "write an image's tree into a directory", _extract)
    extracting.add_argument("-o", "--output", metavar="DIR", default=".", help="where to (.)")
    dwarfs_create.add_parser(below)
    _add_mount(below)


def _add(
    commands: Any, name: str, text: str, function: Callable[[argparse.Namespace, "Image"], int]
) -> argparse.ArgumentParser:
    """Add a command on an image, which is opened for it."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("image", metavar="IMAGE", help="the image, or a file that holds one")
    parser.add_argument(
        "-O",
        "--image-offset",
        metavar="BYTES",
        type=_offset,
        default=None,
        help="where in the file the image begins (default: auto, the first one)",
    )
    parser.add_argument(
        "--image-size",
        metavar="BYTES",
        type=int,
        default=None,
        help="how long it is, where other bytes follow (default: to the file's end)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(func=_with_image(function))
    return parser


def _offset(text: str) -> int | None:
    return None if text == "auto" else int(text)


def _help(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    def show(_: argparse.Namespace) -> int:
        parser.print_help()
        return 125

    return show


def _with_image(
    function: Callable[[argparse.Namespace, "Image"], int],
) -> Callable[[argparse.Namespace], int]:
    def run(arguments: argparse.Namespace) -> int:
        from fimd.dwarfs import DwarfsError, Image  # noqa: PLC0415 - only this command needs it

        try:
            with Image.open(arguments.image, arguments.image_offset, arguments.image_size) as image:
                return function(arguments, image)
        except DwarfsError as error:
            raise ClientError(str(error), _FAILED) from error
        except BrokenPipeError:
            raise
        except OSError as error:
            name = error.filename if error.filename is not None else arguments.image
            raise ClientError(
                f"{path_text(os.fsencode(name))}: {error.strerror}", _FAILED
            ) from error

    return run


def _info(arguments: argparse.Namespace, image: "Image") -> int:
    facts = _facts(image)
    if arguments.json:
        print_json(facts)
        return 0
    print(f"DwarFS version {facts['version']} at offset {facts['offset']}")
    if facts["created_by"]:
        print(f"created by: {path_text(facts['created_by'].encode())}")
    if facts["created"] is not None:
        print(f"created on: {_time(facts['created'])}")
    print(f"image size: {size_text(facts['size'])} ({facts['size']} bytes)")
    print(f"files' size: {size_text(facts['original_size'])} ({facts['original_size']} bytes)")
    print(f"block size: {size_text(facts['block_size'])}")
    blocks = ", ".join(f"{count} {name}" for name, count in facts["compressions"].items())
    print(f"blocks: {facts['blocks']}" + (f" ({blocks})" if blocks else ""))
    print(f"inodes: {facts['inodes']}, names: {facts['names']}")
    if facts["features"]:
        print(f"features: {', '.join(facts['features'])}")
    print()
    print_table(
        ("SECTION", "TYPE", "COMPRESSION", "OFFSET", "SIZE"),
        [
            (
                str(section["number"]),
                section["type"],
                section["compression"],
                str(section["offset"]),
                str(section["size"]),
            )
            for section in facts["sections"]
        ],
    )
    return 0


def _facts(image: "Image") -> dict[str, Any]:
    from fimd.dwarfs import codecs, sections  # noqa: PLC0415

    def compression(section: sections.Section) -> str:
        header = sections.read_header(image.source, image.table, section)
        return codecs.name(header.compression)

    return {
        "version": f"2.{image.table.minor}",
        "offset": image.source.offset,
        "size": image.size,
        "created": image.created,
        "created_by": image.created_by,
        "block_size": image.block_size,
        "blocks": len(image.blocks),
        "compressions": image.compressions,
        "inodes": image.metadata.inode_count,
        "names": image.metadata.entry_count - 1,
        "original_size": image.total_size,
        "features": sorted(feature.decode() for feature in image.metadata.features),
        "has_index": image.table.indexed,
        "sections": [
            {
                "number": section.number,
                "type": section.name,
                "compression": compression(section),
                "offset": section.offset,
                "size": section.size - image.table.header_size,
            }
            for section in image.table.sections
        ],
    }


def _list(arguments: argparse.Namespace, image: "Image") -> int:
    from fimd.dwarfs.tree import kind  # noqa: PLC0415

    if arguments.json:
        entries = []
        for path, facts in image.walk():
            entry = {"path": path, "type": kind(facts.mode), **facts._asdict()}
            if entry["type"] == "l":
                entry["target"] = bytes(image.readlink(facts.inode))
            entries.append(entry)
        print_json(entries)
        return 0
    for path, facts in image.walk():
        if arguments.long:
            print(_long_line(path, facts, image))
        elif path:
            print(path_text(path))
    return 0


def _long_line(path: bytes, facts: "Attributes", image: "Image") -> str:
    import stat  # noqa: PLC0415

    size = str(facts.size)
    if stat.S_ISCHR(facts.mode) or stat.S_ISBLK(facts.mode):
        size = f"{os.major(facts.rdev)},{os.minor(facts.rdev)}"
    line = (
        f"{stat.filemode(facts.mode)} {facts.nlink:3} {facts.uid:5} {facts.gid:5} {size:>12}"
        f" {_time(facts.mtime_ns // 1_000_000_000)} {path_text(path) or '.'}"
    )
    if stat.S_ISLNK(facts.mode):
        line += f" -> {path_text(image.readlink(facts.inode))}"
    return line


def _time(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _check(arguments: argparse.Namespace, image: "Image") -> int:
    from fimctl.progress import ProgressBar  # noqa: PLC0415
    from fimd.dwarfs.verify import verify  # noqa: PLC0415

    with ProgressBar("checking") as bar:
        faults = verify(image, content=arguments.content, progress=bar.update)
    if arguments.json:
        print_json(
            {
                "sound": not faults,
                "faults": [
                    {"section": fault.section, "offset": fault.offset, "fault": fault.fault}
                    for fault in faults
                ],
            }
        )
    else:
        _complain(map(str, faults))
        if not faults:
            print(f"{image.source.name}: sound, {len(image.table.sections)} sections")
    return _FAILED if faults else 0


def _complain(lines: Iterable[str]) -> None:
    for line in lines:
        print(f"fimctl: {printable(str(line))}", file=sys.stderr)


def _extract(arguments: argparse.Namespace, image: "Image") -> int:
    from fimctl.progress import ProgressBar  # noqa: PLC0415
    from fimd.dwarfs.extract import extract  # noqa: PLC0415

    skipped: list[dict[str, Any]] = []
    with ProgressBar("extracting") as bar:

        def skip(path: bytes, error: OSError) -> None:
            skipped.append({"path": path, "error": error.strerror})
            bar.note(f"fimctl: {path_text(path)}: {error.strerror}")

        extract(image, arguments.output, progress=bar.update, on_skip=skip)
    if arguments.json:
        print_json({"skipped": skipped})
    return _FAILED if skipped else 0


def _add_mount(commands: Any) -> None:
    parser = _add(commands, "mount", "show an image's tree below a directory", _mount)
    parser.add_argument("directory", metavar="DIR", help="an empty directory")
    parser.add_argument(
        "-f", "--foreground", action="store_true", help="stay until it is unmounted"
    )
    parser.add_argument("--uid", type=int, help="show this user as the owner of everything")
    parser.add_argument("--gid", type=int, help="show this group as the owner of everything")
    parser.add_argument("--allow-other", action="store_true", help="let other users in")
    parser.add_argument(
        "--cache-size",
        metavar="MIB",
        type=int,
        default=_CACHE_MIB,
        help=f"memory for decompressed blocks ({_CACHE_MIB})",
    )


def _mount(arguments: argparse.Namespace, image: "Image") -> int:
    if arguments.foreground:
        return _serve(arguments, image, lambda: None)
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        with open(reader, "rb") as ready:  # ends with the child, or when it says so
            if ready.read(1):
                return 0
        raise ClientError(f"{arguments.directory}: the image could not be mounted", _FAILED)
    os.close(reader)
    os.setsid()

    def on_ready() -> None:
        os.write(writer, b"1")
        os.close(writer)
        nothing = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(nothing, fd)

    code = _FAILED
    try:
        code = _serve(arguments, image, on_ready)
    except (ClientError, OSError) as error:
        _complain([str(error)])
    finally:
        os._exit(code)  # the parent's cleaning up is the parent's


def _serve(arguments: argparse.Namespace, image: "Image", on_ready: Callable[[], None]) -> int:
    import asyncio  # noqa: PLC0415

    from fimd.dwarfs.serve import serve  # noqa: PLC0415 - brings pyfuse3

    try:
        asyncio.run(
            serve(
                image,
                arguments.directory,
                uid=arguments.uid,
                gid=arguments.gid,
                fsname=image.source.name,
                allow_other=arguments.allow_other,
                cache_bytes=arguments.cache_size << 20,
                on_ready=on_ready,
            )
        )
    except RuntimeError as error:
        raise ClientError(f"{arguments.directory}: {error}", _FAILED) from error
    except KeyboardInterrupt:
        return 130
    return 0
