"""The spellings of names that the kernel has cached, and how they go when the file does.

To the kernel `Foo` and `foo` are two names of one file, as hard links are. When the file is
removed or renamed by one spelling, the kernel itself drops just that one. It can't be told of
the others within the request, because it holds the directory's lock until it is answered. So,
before the answer, the file's attributes are invalidated, which needs no lock: whoever uses
another spelling then asks for them, or opens the file, and that request waits here until the
kernel has dropped the other spellings, and is answered ESTALE, upon which the kernel looks every
name on the path up again and nobody sees the stale one. The file stays suspect until it has been
looked up, because a request may have been on its way since before.

That leaves two cases in which a spelling that was used before is still found for some 0.1 ms: of
a file that is open meanwhile, because fstat asks the same as stat and has to be told the truth;
and of a file whose place a directory takes, if it is at once gone through, which asks nothing.

Directories need none of this: the kernel gives a directory one name at a time, and moves it to
the spelling that is looked up. Names that are not found can't be withdrawn thus; the kernel
asks for them every time.
"""

import asyncio
import contextlib
import errno
import logging
import math
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor

import pyfuse3

from fimd.casefold.folding import fold
from fimd.casefold.nodes import Node

TIMEOUT = 10.0
"""How long the kernel may keep names and attributes (seconds). All writers use this view, so
this is only about how late a change is seen that was made underneath."""

_MAX_SPELLINGS = 16
"""Of one file; more are not cached."""

_SUSPICION = 1.0
"""How long a request may take from the kernel to here (seconds)."""

_PATIENCE = 5.0
"""How long a request waits for the kernel to drop a name (seconds), lest anything lock up."""

log = logging.getLogger(__name__)


class Spellings:
    """Grants spellings to the kernel's cache and withdraws them."""

    def __init__(self) -> None:
        self._notifier = ThreadPoolExecutor(1, thread_name_prefix="notify")

    def close(self) -> None:
        """Stop; what the kernel has not been told yet is of no use any more."""
        self._notifier.shutdown(wait=False, cancel_futures=True)

    def grant(self, node: Node, parent: Node, spelling: bytes, stored: bytes) -> float:
        """For how long (seconds) the kernel may keep this spelling of a node's stored name."""
        if node.kind == stat.S_IFDIR:
            return TIMEOUT
        if node.writers or node.settling is not None:
            return 0.0
        return TIMEOUT if spelling == stored or self._record(node, parent, spelling) else 0.0

    def moved(self, node: Node, parent: Node, spelling: bytes, stored: bytes) -> None:
        """Note the name to which the kernel moves what it has cached in a rename."""
        if spelling != stored:
            self._record(node, parent, spelling)

    def _record(self, node: Node, parent: Node, spelling: bytes) -> bool:
        """Remember a spelling; the stored one needs no remembering, it may always be cached."""
        if node.spellings is None:
            node.spellings = set()
        elif len(node.spellings) >= _MAX_SPELLINGS:
            return (parent.number, spelling) in node.spellings
        node.spellings.add((parent.number, spelling))
        return True

    def withdraw(self, node: Node, parent: Node, spelling: bytes, stored: bytes) -> None:
        """Make the kernel drop all spellings of a name, where it drops the given one itself.

        Called when the name is gone, before the request that removed it is answered.
        """
        if node.kind == stat.S_IFDIR:
            return
        others = {(parent.number, stored)}
        if node.spellings:
            folded = fold(spelling)
            others |= {
                (number, other)
                for number, other in node.spellings
                if number == parent.number and fold(other) == folded
            }
            node.spellings -= others
        others.discard((parent.number, spelling))
        if not others:
            return
        with contextlib.suppress(OSError):  # the kernel has forgotten the node
            pyfuse3.invalidate_inode(node.number, attr_only=True)
        settling = asyncio.get_running_loop().run_in_executor(self._notifier, _drop, others)
        node.settling = settling
        node.suspect_until = math.inf
        node.found_again = False

        def settled(_: object) -> None:
            if node.settling is settling:  # the notifier works in order: this was the last
                node.settling = None
                node.suspect_until = time.monotonic() + _SUSPICION

        settling.add_done_callback(settled)

    def found(self, node: Node) -> None:
        """Note that a node has just been looked up: who asks for it next may have come by that."""
        if node.settling is None:
            node.suspect_until = 0.0
        else:
            node.found_again = True

    async def settle(self, node: Node, *, by_descriptor: bool = False) -> None:
        """Wait until the kernel has dropped a suspect node's stale names, before answering for it.

        Raises ESTALE then, so that the kernel looks the path up again, unless that has happened
        since, or the request may have come without a path, `by_descriptor`.
        """
        if node.settling is not None:
            await asyncio.wait([node.settling], timeout=_PATIENCE)
        if node.found_again:
            node.suspect_until = 0.0
        if node.suspect_until > time.monotonic() and not by_descriptor:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def _drop(names: set[tuple[int, bytes]]) -> None:
    for parent, name in names:
        try:
            pyfuse3.invalidate_entry(parent, name)
        except FileNotFoundError:
            pass  # the kernel has dropped it already
        except OSError as error:
            if error.errno == errno.EINVAL:  # libfuse's word for a session that is over
                return
            log.warning("the kernel did not drop the name %r: %s", name, error)
