"""Cleaning up after commits that were interrupted."""

from fimd.commits.aside import remove_leftovers
from fimd.commits.copied import fold
from fimd.commits.managed import finish_replacing
from fimd.commits.newfile import remove_parts
from fimd.commits.opened import OpenData


def recover(data: OpenData) -> list[str]:
    """Clean up after commits that were interrupted, and say in sentences what was done.

    For the holder of the data directory's lock.
    """
    fold(data)
    messages = []
    uppers, lost = remove_leftovers(data)
    if uppers:
        messages.append(
            f"an interrupted commit had set the changes in {data.root} aside after its layer was "
            "complete: they were removed"
        )
    messages += [
        f"what an interrupted commit had set aside can't be removed: it is kept in {path}, and "
        "'fimctl prune IMAGE' tries again"
        for path in lost
    ]
    parts, elsewhere = remove_parts(data.tmp)
    if parts:
        messages.append(f"an interrupted commit had left {parts} incomplete layer: removed")
    messages += [
        f"an interrupted commit has left an incomplete layer: remove {path}" for path in elsewhere
    ]
    layers = finish_replacing(data)
    if layers:
        messages.append(f"an interrupted squash was finished: {layers} layers were removed")
    return messages
