"""`fimctl image create`: an executable image of a root filesystem."""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any, Final

from fimctl.compression import QUICK, compression_level
from fimctl.errors import ClientError
from fimctl.progress import ProgressBar
from fimctl.table import size_text
from fimd.base.texts import printable

_NAMED: Final = 5
"""How many of the files that are left out are told one by one."""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("image", help="make images")
    actions = parser.add_subparsers(required=True, metavar="create")
    create = actions.add_parser(
        "create",
        help="make an executable image of a root filesystem",
        description="Make an executable image. ROOTFS is a directory (such as debootstrap makes) "
        "or a tar archive, plain or compressed by gzip, xz or zstd.",
    )
    create.add_argument("rootfs", metavar="ROOTFS")
    create.add_argument("output", metavar="IMAGE", help="such as app.flatimage")
    create.add_argument("-f", "--force", action="store_true", help="replace IMAGE where it exists")
    create.add_argument(
        "-l",
        "--level",
        type=int,
        choices=range(10),
        help="compression: 0 (fast) to 9 (small); FIM_COMPRESSION_LEVEL, or 3",
    )
    create.add_argument(
        "--layer",
        action="append",
        default=[],
        metavar="FILE",
        help="a DwarFS file to put above the root filesystem; may be repeated",
    )
    create.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Pack the root filesystem and put the image together."""
    # the libraries that do the work take longer to import than most commands run
    from fimd.dwarfs.errors import DwarfsError  # noqa: PLC0415
    from fimd.flatimage.errors import ImageError  # noqa: PLC0415

    if os.path.lexists(arguments.output) and not arguments.force:
        raise ClientError(f"{arguments.output} exists already: remove it, or add --force")
    try:
        _create(arguments)
    except (ImageError, DwarfsError) as error:
        raise ClientError(str(error)) from error
    size = os.path.getsize(arguments.output)
    print(f"{printable(arguments.output)}: {size_text(size)}")
    return 0


def _create(arguments: argparse.Namespace) -> None:
    from fimd.base.removal import remove_tree  # noqa: PLC0415
    from fimd.dwarfs.write import create  # noqa: PLC0415
    from fimd.flatimage.create import create_image  # noqa: PLC0415
    from fimd.flatimage.rootfs import open_rootfs  # noqa: PLC0415
    from fimd.trees.attributes import lost_below  # noqa: PLC0415

    level = compression_level(QUICK) if arguments.level is None else arguments.level
    folder = Path(arguments.output).absolute().parent
    with (
        ProgressBar("unpacking") as unpacking,
        open_rootfs(arguments.rootfs, remove=remove_tree, progress=unpacking.update) as rootfs,
        _scratch(folder) as scratch,
    ):
        for note in rootfs.notes:
            ProgressBar.note(note)
        for sentence in lost_below(os.fspath(rootfs.path)):
            ProgressBar.note(sentence)
        layer = os.path.join(scratch, "layer")
        left_out: list[str] = []
        with ProgressBar(f"compressing (level {level})") as compressing:
            create(
                rootfs.path,
                layer,
                level=level,
                progress=lambda state: compressing.update(state.bytes_done, state.bytes_total),
                on_skip=lambda path, why: left_out.append(f"{os.fsdecode(path)}: {why}"),
            )
        for line in left_out[:_NAMED]:
            ProgressBar.note(f"left out {printable(line)}")
        if left_out:
            ProgressBar.note(
                f"{len(left_out)} files and directories that this user may not read are not in the "
                "image: make it as root to have them"
            )
        with ProgressBar("writing") as writing:
            create_image(
                arguments.output,
                [layer, *arguments.layer],
                replace=arguments.force,
                progress=writing.update,
            )


def _scratch(folder: Path) -> "tempfile.TemporaryDirectory[str]":
    try:
        return tempfile.TemporaryDirectory(prefix=".fimctl-", dir=folder)
    except OSError as error:
        raise ClientError(f"{folder} can't be written: {error.strerror}") from error
