"""The overlays of this machine: distributions have dropped unionfs-fuse."""

import shutil

import pytest

from fimd.overlays.fallback import stand_ins

HAS_UNIONFS = shutil.which("unionfs") is not None
needs_unionfs = pytest.mark.skipif(not HAS_UNIONFS, reason="unionfs-fuse is not installed")

INSTALLED = ("bwrap", "overlayfs", *(["unionfs"] if HAS_UNIONFS else []))
FALLBACK = stand_ins("bwrap")[0]
"""What stands in for the kernel's overlay."""
