"""A view of a directory as a FUSE filesystem: names in any case, or as they are.

New names are stored in lower case (or, to preserve case, as they are given), any spelling finds
them, and names that are stored with capitals are found and listed as they are. Over a union it does
what the union would spoil, with names told apart by case where that is asked for. Locks are the
kernel's own, since everybody who shares the view shares this one mount. There is no O_TMPFILE
(EOPNOTSUPP, as for many filesystems) and no fallocate: pyfuse3 has neither.

A rename between two spellings of one name never gets here: to the kernel both are links of one
file, for which rename(2) does nothing and succeeds. What it looks up before that is no other
request than stat(2) makes, so it can't be answered that nothing is there. Two inodes for two
spellings, as high-level FUSE filesystems have them, would let the rename come here, and would part
what is one file: its cached pages, its mappings and its locks. To change the spelling that is shown
while case is preserved, rename by way of another name.
"""

# ruff: noqa: D102, ARG002 -- the handlers' meaning and parameters are those of pyfuse3.Operations

import errno
import itertools
import os
import resource
from collections.abc import Callable, Sequence

import pyfuse3
from pyfuse3 import (
    EntryAttributes,
    FileInfo,
    ReaddirToken,
    RequestContext,
    SetattrFields,
    StatvfsData,
)

from fimd.base.errors import MountError
from fimd.casefold.attributes import Change, entry, nothing
from fimd.casefold.copy_up import CopyUp
from fimd.casefold.files import OpenFiles
from fimd.casefold.listing import Listing
from fimd.casefold.namespace import Namespace, Owner
from fimd.casefold.naming import Naming
from fimd.casefold.nodes import Node
from fimd.casefold.spellings import TIMEOUT, Spellings
from fimd.casefold.tree import Found, Tree, proc_path
from fimd.casefold.types import FileHandleT, FileNameT, FlagT, InodeT, ModeT, XAttrNameT
from fimd.dwarfs.fuse import guarded, run

_MAX_NAME = 255
_NO_ATTRIBUTE = (errno.ENODATA, errno.EOPNOTSUPP)
_CAPABILITY = b"security.capability"
"""The attribute that the kernel asks for at every write, to remove it."""
_MAX_OPEN_DIRECTORIES = 4096
_MOST_KEPT = 64
"""Files of a union that are kept open: see fimd.casefold.kept."""


async def serve(
    source: str,
    mount_point: str,
    *,
    naming: Naming,
    branches: Sequence[str] = (),
    fsname: str,
    allow_other: bool = False,
    on_ready: Callable[[], None],
) -> None:
    """Serve the view of `source` at `mount_point` until it is unmounted.

    Takes the process over: its umask and its limit of open files change. `on_ready` is called
    once the kernel has the mount. `branches` are the directories of which the source is a union,
    the upper first, where that copies nothing up as it should (fimd.casefold.copy_up). Raises
    OSError where the source can't be opened, MountError where it contains the mount point (the view
    would wait for itself), and what `run` raises.
    """
    _check_outside(source, mount_point)
    os.umask(0)  # the kernel has applied the caller's
    kept = _MOST_KEPT if branches else 0
    tree = Tree(source, _raise_descriptor_limit(), naming, numbers_hold=not branches, kept=kept)
    spellings = Spellings()
    copy_up = CopyUp(tree, branches)
    files = OpenFiles(tree)
    view = View(tree, files, Namespace(tree, spellings, copy_up), copy_up, spellings)
    options = {f"fsname={_option(fsname)}", "default_permissions"}
    if allow_other:
        options.add("allow_other")
    try:
        await run(view, mount_point, options, on_ready)
    finally:
        spellings.close()
        files.close()
        copy_up.close()
        tree.close()


def _check_outside(source: str, mount_point: str) -> None:
    source, mount_point = os.path.realpath(source), os.path.realpath(mount_point)
    if source != mount_point and os.path.commonpath([source, mount_point]) == source:
        raise MountError(
            f"can't show {source} at {mount_point}, which lies within it: choose a mount point "
            "outside"
        )


def _raise_descriptor_limit() -> int:
    """Allow as many descriptors as may be; how many of them directories may take."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return (
        _MAX_OPEN_DIRECTORIES
        if hard == resource.RLIM_INFINITY
        else min(hard // 4, _MAX_OPEN_DIRECTORIES)
    )


def _option(value: str) -> str:
    """A mount option's value as libfuse takes it: ASCII, the separator escaped."""
    ascii_only = value.encode("ascii", "replace").decode("ascii")
    return ascii_only.replace("\\", "\\\\").replace(",", "\\,")


class View(pyfuse3.Operations):
    """The requests of the kernel. See pyfuse3.Operations for each."""

    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(
        self,
        tree: Tree,
        files: OpenFiles,
        namespace: Namespace,
        copy_up: CopyUp,
        spellings: Spellings,
    ) -> None:
        super().__init__()
        self._tree = tree
        self._nodes = tree.nodes
        self._files = files
        self._namespace = namespace
        self._copy_up = copy_up
        self._spellings = spellings
        self._listings: dict[int, Listing] = {}
        self._listing_handles = itertools.count(1)

    def _known(self, parent: Node, name: bytes, found: Found) -> EntryAttributes:
        """The answer that lets the kernel know an entry, by the name that it asked for."""
        node = self._tree.place(parent, found)
        node.lookups += 1
        if node.suspect_until:
            self._spellings.found(node)
        return entry(node, found.status, self._spellings.grant(node, parent, name, found.stored))

    @guarded
    async def lookup(
        self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        parent = self._nodes.get(parent_inode)
        found = await self._tree.find(parent, name)
        if found is None:
            if len(name) > _MAX_NAME:
                raise pyfuse3.FUSEError(errno.ENAMETOOLONG)
            return nothing(TIMEOUT if self._tree.naming.is_exact else 0.0)
        return self._known(parent, name, found)

    @guarded
    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        for number, lookups in inode_list:
            self._tree.forget(self._nodes.get(number), lookups)

    @guarded
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        node = self._nodes.get(inode)
        if node.suspect_until:
            await self._spellings.settle(node, by_descriptor=bool(node.handles))
        return entry(node, self._tree.status(node))

    @guarded
    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        node = self._nodes.get(inode)
        if node.suspect_until:
            await self._spellings.settle(node, by_descriptor=bool(node.handles))
        change = Change.of(fields, attr)
        await self._copy_up.bring(node, change.size)
        with self._tree.held(node) as descriptor:
            if node.weighty:  # a union may copy the file up for it
                await self._tree.apart(change.apply, descriptor, fh)
            else:
                change.apply(descriptor, fh)
            if change.size is not None and not node.writers:
                self._files.refresh(node)
            return entry(node, os.fstat(descriptor))

    @guarded
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        node = self._nodes.get(inode)
        if node.suspect_until:
            await self._spellings.settle(node)
        with self._tree.held(node) as descriptor:
            return FileNameT(os.readlink(b"", dir_fd=descriptor))

    @guarded
    async def mknod(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        return await self._make(
            parent_inode, name, mode, ctx, lambda new, fd: os.mknod(new, mode, rdev, dir_fd=fd)
        )

    @guarded
    async def mkdir(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: RequestContext
    ) -> EntryAttributes:
        return await self._make(
            parent_inode, name, mode, ctx, lambda new, fd: os.mkdir(new, mode, dir_fd=fd)
        )

    @guarded
    async def symlink(
        self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        return await self._make(
            parent_inode, name, 0, ctx, lambda new, fd: os.symlink(target, new, dir_fd=fd)
        )

    async def _make(
        self,
        parent_inode: int,
        name: bytes,
        mode: int,
        ctx: RequestContext,
        make: Callable[[bytes, int], None],
    ) -> EntryAttributes:
        parent = self._nodes.get(parent_inode)
        found, _ = await self._namespace.make(parent, name, mode, Owner(ctx.uid, ctx.gid), make)
        return self._known(parent, name, found)

    @guarded
    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        await self._namespace.remove(self._nodes.get(parent_inode), name, _unlink)

    @guarded
    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        await self._namespace.remove(self._nodes.get(parent_inode), name, _rmdir)

    @guarded
    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: FileNameT,
        parent_inode_new: InodeT,
        name_new: FileNameT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> None:
        old, new = self._nodes.get(parent_inode_old), self._nodes.get(parent_inode_new)
        await self._namespace.rename(old, name_old, new, name_new, flags)

    @guarded
    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        node, parent = self._nodes.get(inode), self._nodes.get(new_parent_inode)
        return self._known(parent, new_name, await self._namespace.link(node, parent, new_name))

    @guarded
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        node = self._nodes.get(inode)
        if node.suspect_until:
            await self._spellings.settle(node)
        if flags & (os.O_ACCMODE | os.O_TRUNC):
            await self._copy_up.bring(node, 0 if flags & os.O_TRUNC else None)
        handle, unchanged = await self._files.open(node, flags)
        return FileInfo(fh=FileHandleT(handle), keep_cache=unchanged)

    @guarded
    async def create(
        self,
        parent_inode: InodeT,
        name: FileNameT,
        mode: ModeT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> tuple[FileInfo, EntryAttributes]:
        parent = self._nodes.get(parent_inode)
        found, handle = await self._namespace.make(
            parent,
            name,
            mode,
            Owner(ctx.uid, ctx.gid),
            lambda new, fd: self._files.create(new, fd, flags, mode),
        )
        node = self._tree.place(parent, found)
        self._files.register(handle, node, writable=bool(flags & os.O_ACCMODE))
        info = FileInfo(fh=FileHandleT(handle))
        return info, self._known(parent, name, found)

    @guarded
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        return await self._files.read(fh, off, size)

    @guarded
    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        return await self._files.write(fh, off, buf)

    @guarded
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        await self._files.sync(fh, datasync)

    @guarded
    async def release(self, fh: FileHandleT) -> None:
        await self._files.release(fh)

    @guarded
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        handle = next(self._listing_handles)
        self._listings[handle] = Listing(self._nodes.get(inode), self._tree, self._spellings)
        return FileHandleT(handle)

    @guarded
    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        await self._listings[fh].send(start_id, token)

    @guarded
    async def releasedir(self, fh: FileHandleT) -> None:
        del self._listings[fh]

    @guarded
    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        with self._tree.held(self._listings[fh].node) as descriptor:
            await self._tree.apart(_sync_directory, descriptor)

    @guarded
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        with self._tree.held(self._nodes.root) as descriptor:
            status = await self._tree.apart(os.statvfs, descriptor)
        result = StatvfsData()
        result.f_bsize = status.f_bsize
        result.f_frsize = status.f_frsize
        result.f_blocks = status.f_blocks
        result.f_bfree = status.f_bfree
        result.f_bavail = status.f_bavail
        result.f_files = status.f_files
        result.f_ffree = status.f_ffree
        result.f_favail = status.f_favail
        result.f_namemax = min(status.f_namemax, _MAX_NAME)
        return result

    @guarded
    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        node = self._nodes.get(inode)
        if name == _CAPABILITY and node.lacks_capability:
            raise pyfuse3.FUSEError(errno.ENODATA)
        with self._tree.held(node) as descriptor:
            try:
                return os.getxattr(proc_path(descriptor), name)
            except OSError as error:
                node.lacks_capability |= name == _CAPABILITY and error.errno in _NO_ATTRIBUTE
                raise

    @guarded
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[XAttrNameT]:
        with self._tree.held(self._nodes.get(inode)) as descriptor:
            names = os.listxattr(proc_path(descriptor))
        return [XAttrNameT(os.fsencode(name)) for name in names]

    @guarded
    async def setxattr(
        self, inode: InodeT, name: XAttrNameT, value: bytes, ctx: RequestContext
    ) -> None:
        node = self._nodes.get(inode)
        node.lacks_capability = False
        with self._tree.held(node) as descriptor:
            await self._tree.apart(os.setxattr, proc_path(descriptor), name, value)

    @guarded
    async def removexattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> None:
        with self._tree.held(self._nodes.get(inode)) as descriptor:
            await self._tree.apart(os.removexattr, proc_path(descriptor), name)


def _unlink(name: bytes, directory: int) -> None:
    os.unlink(name, dir_fd=directory)


def _rmdir(name: bytes, directory: int) -> None:
    os.rmdir(name, dir_fd=directory)


def _sync_directory(descriptor: int) -> None:
    directory = os.open(proc_path(descriptor), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
