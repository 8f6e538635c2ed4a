"""What a worker can do: functions by name, with arguments that travel as JSON.

An operation gets its arguments, a Work to report to, and `done`, which it calls once with its
result as soon as others may go on; it may tidy up after that.

What touches a data directory is done in a jail: first all that lies outside is opened, then the
process is imprisoned, and only then anything in the directory is looked at.
"""

import importlib
import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

from fimd.base.errors import FimError, InvalidArgumentError
from fimd.commits import whole
from fimd.commits.add import add_layer
from fimd.commits.chains import export, held_chain, remove_topmost, reset, squash
from fimd.commits.commit import commit
from fimd.commits.create import create_layer
from fimd.commits.opened import DIRECTORY, OpenData
from fimd.commits.request import CommitRequest, held_commit, opened_target
from fimd.commits.work import Work
from fimd.dwarfs.codecs import load_codecs
from fimd.layers.place import LayerPlace, opened_files
from fimd.mounts.jail import imprison
from fimd.stacks.data import DataDirectory

Done = Callable[[dict[str, Any]], None]
Operation = Callable[[dict[str, Any], Work, Done], None]


def _commit(arguments: dict[str, Any], work: Work, done: Done) -> None:
    lower = tuple(LayerPlace(*place) for place in arguments.pop("lower"))
    data = DataDirectory(**arguments.pop("data"))
    request = CommitRequest(**arguments, lower=lower)

    def finish(layer: Any) -> None:
        if layer is None:
            done({"empty": True})
        else:
            number = {} if layer.number is None else {"number": layer.number}
            done({"path": layer.path, "offset": layer.offset, "size": layer.size, **number})

    with data.opened() as opened, held_commit(request, opened) as held:
        _imprison(opened)
        commit(held, work, finish)


def _create(arguments: dict[str, Any], work: Work, done: Done) -> None:
    done({"path": arguments["output"], "size": create_layer(**arguments, work=work)})


def _add(arguments: dict[str, Any], work: Work, done: Done) -> None:
    layer = add_layer(arguments["image"], arguments["path"], work)
    done({"path": arguments["image"], "offset": layer.offset, "size": layer.size})


def _squash(arguments: dict[str, Any], work: Work, done: Done) -> None:
    below, layers = (
        [LayerPlace(*place) for place in arguments[name]] for name in ("below", "layers")
    )
    with ExitStack() as stack:
        opened = stack.enter_context(DataDirectory(**arguments["data"]).opened())
        held = stack.enter_context(held_chain(arguments["image"], opened, layers))
        files = stack.enter_context(opened_files([*below, *layers]))
        _imprison(opened)
        made = squash(held, files[: len(below)], files[len(below) :], arguments["level"], work)
    done({"path": made.path, "offset": made.offset, "size": made.size})


def _remove(arguments: dict[str, Any], _work: Work, done: Done) -> None:
    layer = LayerPlace(*arguments["layer"])
    with (
        DataDirectory(**arguments["data"]).opened() as opened,
        held_chain(arguments["image"], opened, [layer]) as held,
    ):
        _imprison(opened)
        remove_topmost(held, layer)
    done({"path": layer.path, "offset": layer.offset, "size": layer.size})


def _export(arguments: dict[str, Any], work: Work, done: Done) -> None:
    output = arguments["output"]
    done({"path": output, "size": export(LayerPlace(*arguments["layer"]), output, work)})


def _reset(arguments: dict[str, Any], work: Work, done: Done) -> None:
    with DataDirectory(**arguments["data"]).opened() as opened:
        _imprison(opened)
        reset(opened, work)
    done({})


def _remove_data(arguments: dict[str, Any], _work: Work, done: Done) -> None:
    data = DataDirectory(**arguments["data"])
    with data.opened() as opened, opened_target(os.path.dirname(data.path)) as parent:
        _imprison(opened)
        whole.remove(opened, parent)
    done({"path": data.path})


def _copy_data(arguments: dict[str, Any], work: Work, done: Done) -> None:
    target = arguments["target"]
    name = os.path.basename(target)
    with (
        DataDirectory(**arguments["data"]).opened() as opened,
        opened_target(os.path.dirname(target)) as parent,
    ):
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            raise InvalidArgumentError(f"{target} is there already: choose another name") from None
        directory = os.open(name, DIRECTORY, dir_fd=parent)
        _imprison(opened)
        try:
            whole.copy(opened, directory, work)
        except BaseException:
            os.rmdir(name, dir_fd=parent)
            raise
    done({"path": target})


def _imprison(data: OpenData) -> None:
    """Enter the jail, with all that the libraries would otherwise import at its first use."""
    load_codecs()
    importlib.import_module("numpy.ma")
    imprison(data.directory)


OPERATIONS: Final[dict[str, Operation]] = {
    "commit": _commit,
    "create": _create,
    "add": _add,
    "squash": _squash,
    "remove": _remove,
    "export": _export,
    "reset": _reset,
    "remove-data": _remove_data,
    "copy-data": _copy_data,
}


def find(name: str) -> Operation:
    """Return an operation. Raises FimError."""
    if name not in OPERATIONS:
        raise FimError(f"there is no operation {name!r}")
    return OPERATIONS[name]
