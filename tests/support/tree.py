"""What an application sees: a tree read from inside of an instance, as a tar archive."""

import io
import os
import subprocess
import tarfile
from pathlib import Path

from tests.support.session import Session

Tree = dict[bytes, tuple[object, ...]]

_MOUNTED = (b"etc/passwd", b"etc/group")
"""Files that an instance has from outside of its tree."""


def seen(session: Session, image: Path, *tops: str, **variables: str) -> Tree:
    """Return what directories of the root hold: type, mode, owner, time, target, content, links."""
    process = session.start(
        image,
        *("fim-root", "busybox", "tar", "-c", "-f", "-", "-C", "/", *tops),
        variables=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    tree = parse(output)
    for path in _MOUNTED:
        tree.pop(path, None)
    return tree


def parse(archive: bytes) -> Tree:
    """Read an archive; files that are one share the first name of theirs in sorted order."""
    members: dict[bytes, tarfile.TarInfo] = {}
    found: Tree = {}
    links: dict[bytes, set[bytes]] = {}
    with tarfile.open(fileobj=io.BytesIO(archive), errors="surrogateescape") as tar:
        for member in tar:
            name = os.fsencode(member.name).rstrip(b"/")
            members[name] = member
            first = os.fsencode(member.linkname) if member.islnk() else name
            links.setdefault(first, set()).add(name)
        for first, names in links.items():
            member = members[first]
            content = b""
            if member.isfile():
                file = tar.extractfile(member)
                assert file is not None
                content = file.read()
            for name in names:
                found[name] = (
                    member.type,
                    member.mode,
                    (member.uid, member.gid),
                    int(member.mtime),
                    member.linkname if member.issym() else "",
                    content,
                    min(names),
                )
    return found


def difference(
    first: Tree, second: Tree, *, links: bool = True, directory_times: bool = True
) -> dict[bytes, tuple[object, object]]:
    """Return the paths of which two trees say different things.

    Without `links` it does not matter which names are one file: unionfs can't show that.
    """

    def facts(tree: Tree, path: bytes) -> tuple[object, ...]:
        found = tree.get(path, ())
        if not directory_times and found and found[0] == tarfile.DIRTYPE:
            found = (*found[:3], 0, *found[4:])
        return found if links else found[:-1]

    return {
        path: (first.get(path), second.get(path))
        for path in first.keys() | second.keys()
        if facts(first, path) != facts(second, path)
    }
