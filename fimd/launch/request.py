"""What a client asks for when it starts an instance, checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from fimd.base.errors import InvalidArgumentError
from fimd.casefold.mount import MODES as CASEFOLD_MODES
from fimd.overlays import BACKENDS
from fimd.stacks.waiting import check_wait

MODES: Final = ("exec", "root", "boot")


@dataclass(frozen=True)
class StartRequest:
    """A request to start an image. Paths are absolute."""

    image: str
    pid: int
    mode: str = "exec"
    """exec (as the caller), root (as uid 0), boot (the image's boot command, as the caller)."""
    root: bool = False
    """Whether exec and boot are as uid 0 too (FIM_ROOT)."""
    command: tuple[str, ...] = ()
    """The words of the caller, for people to see; they are not part of the plan."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """The caller's environment, as far as it bears on the plan."""
    layers: tuple[str, ...] = ()
    """FIM_LAYERS: files and directories."""
    overlay: str | None = None
    casefold: str | None = None
    data: str | None = None
    """FIM_DIR_DATA."""
    started: int | None = None
    """When the process started (fimd.mounts.process.start_time), where that is known."""
    executed: bool = False
    """Whether the user has executed the image's file, and so lets it do what it asks for."""
    wait: float = 0.0
    """Seconds to wait for those who use the data directory in another way."""

    def __post_init__(self) -> None:
        for what, value, allowed in (
            ("mode", self.mode, MODES),
            ("overlay", self.overlay, tuple(BACKENDS)),
            ("casefold", self.casefold, CASEFOLD_MODES),
        ):
            if value is not None and value not in allowed:
                raise InvalidArgumentError(f"{what} {value!r} is none of {', '.join(allowed)}")
        for path in (self.image, *self.layers, *([self.data] if self.data else [])):
            if not path.startswith("/") or "\0" in path:
                raise InvalidArgumentError(f"{path!r} is not an absolute path")
        check_wait(self.wait)
        if self.pid <= 0:
            raise InvalidArgumentError(f"{self.pid} is not the number of a process")
