"""What FIM_DEBUG=1 tells of a start, in the words that FlatImage's users look for."""

import os
from collections.abc import Iterator
from typing import Final

from fimd.flatimage.settings import Permission, Unshare
from fimd.instances.instance import Instance

_OVERLAYS: Final = {"bwrap": "BWRAP", "overlayfs": "FUSE_OVERLAYFS", "unionfs": "UNIONFS_FUSE"}


def narrate(instance: Instance) -> Iterator[str]:
    """Yield what was mounted for an instance and what it is allowed, a line each."""
    spec, facts = instance.stack.spec, instance.facts
    for layer in instance.layers:
        source = layer.source
        name = os.path.basename(source.path)
        yield f"Mounting layer from '{name}' with offset '{source.offset}'"
    yield f"Overlay type: {_OVERLAYS[spec.overlay]}"
    if spec.overlay == "bwrap":
        yield from (f"Overlay layer '{layer.mount_point}'" for layer in instance.layers)
    yield f"casefold is {'disabled' if spec.casefold == 'off' else 'enabled'}"
    yield from (f"PERM({flag.name})" for flag in Permission if flag in facts.permissions)
    yield from (f"UNSHARE({flag.name})" for flag in Unshare if flag in facts.unshare)
