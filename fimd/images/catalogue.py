"""The images that this user has registered or run, how often, and when last: what launchers show.

It is kept in XDG_STATE_HOME, with the images' icons beside it, and answered from memory. What a
file says is checked as anything from outside; what can't be read is forgotten.
"""

import asyncio
import math
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import structlog

from fimd.base import records
from fimd.base.errors import FimError
from fimd.base.observe import Collection, Event, Observable
from fimd.base.places import image_id
from fimd.base.texts import label
from fimd.flatimage.settings import ICON_EXTENSIONS, Icon
from fimd.images.image import ImageFacts, read_icon
from fimd.images.images import Images, Running

log = structlog.get_logger(__name__)

MOST: Final = 256
"""Images that are remembered; those that are gone, or were not used for long, are forgotten."""
_FILE: Final = "images.json"
_ICONS: Final = "icons"
_LONGEST_NAME: Final = 255
_LONGEST_PATH: Final = 4096
_SAVE_AFTER: Final = 1.0
"""Seconds in which changes are gathered into one file."""
_LOOK: Final = 0.003
"""Seconds that a search waits to learn which images are gone; a slow disk tells the next one."""
_FRESH: Final = 0.3
"""Seconds that what was learnt holds: a search comes with every key that the user types."""


@dataclass(frozen=True)
class Entry:
    """What is known of one image."""

    path: str
    """The image's real path."""
    name: str
    icon: str = ""
    """The extension of its icon: png, svg or jpg; empty where the image has none."""
    registered: bool = False
    """Whether the user has given it a launcher."""
    uses: int = 0
    last_used: float = 0.0
    """Seconds since the epoch; 0 where it never was."""
    noted: bool = False
    """Whether its user was told what its root inside lacks."""

    @cached_property
    def id(self) -> str:
        """The image's identifier."""
        return image_id(self.path)

    @cached_property
    def searched(self) -> str:
        """What a search looks for its terms in."""
        return f"{self.name}\n{os.path.basename(self.path)}".casefold()


class Catalogue:
    """The images that launchers show. Its owner is the daemon; others look."""

    def __init__(self, directory: Path, images: Images, running: Observable[Running]) -> None:
        """Read what is in `directory`, and follow what is run."""
        self._directory = directory
        self._images = images
        self._gone: set[str] = set()
        self._writing = asyncio.Lock()
        self._look: asyncio.Task[None] | None = None
        self._looked_at = -math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.entries: Collection[Entry] = Collection()
        for entry in read_entries(directory):
            self.entries.add(entry.id, entry)
        for instance in sorted(running, key=lambda instance: instance.started_at):
            self._on_instance(Event.ADDED, instance.id, instance)
        running.subscribe(self._on_instance)

    async def close(self) -> None:
        """Write what has changed."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()
            await self._write_down()
        if self._look is not None:
            self._look.cancel()

    # what it is asked

    def get(self, identifier: str) -> Entry | None:
        """Return an image's entry, unless the image is gone."""
        return None if identifier in self._gone else self.entries.get(identifier)

    def running(self, entry: Entry) -> int:
        """Return how many instances of an image are running."""
        image = self._images.opened.get(entry.id)
        return len(image.instances) if image is not None else 0

    def icon(self, entry: Entry) -> str:
        """Return the file of an image's icon; empty where it has none."""
        return str(self._icon_file(entry.id, entry.icon)) if entry.icon else ""

    def _icon_file(self, identifier: str, extension: str) -> Path:
        return self._directory / _ICONS / f"{identifier}.{extension}"

    def describe(self, entry: Entry) -> str:
        """Return a line about an image for people: how often it was used, and where it is."""
        running = self.running(entry)
        use = "never used" if not entry.uses else f"used {_times(entry.uses)}"
        return f"{f'{running} running, ' if running else ''}{use}, {entry.path}"

    async def search(self, terms: Iterable[str]) -> list[Entry]:
        """Return the images that have every term in their name or file name, the likeliest first.

        Those that are gone are left out.
        """
        await self._look_for_gone()
        wanted = [term.casefold() for term in terms]
        found = [
            entry
            for entry in self.entries
            if entry.id not in self._gone and all(term in entry.searched for term in wanted)
        ]
        found.sort(
            key=lambda entry: (-self.running(entry), -entry.uses, -entry.last_used, entry.name)
        )
        return found

    async def _look_for_gone(self) -> None:
        if self._look is None or self._look.done():
            now = asyncio.get_running_loop().time()
            if now < self._looked_at + _FRESH:
                return
            self._looked_at = now
            self._look = asyncio.create_task(self._find_gone(), name="look for images")
        await asyncio.wait({self._look}, timeout=_LOOK)

    async def _find_gone(self) -> None:
        known = list(self.entries)
        there = await asyncio.to_thread(lambda: [os.path.isfile(entry.path) for entry in known])
        self._gone = {entry.id for entry, present in zip(known, there, strict=True) if not present}

    # what it learns

    async def register(self, path: str) -> Entry:
        """Remember that the user has given an image a launcher. Raises as `Images.open`."""
        facts = (await self._images.open(path)).facts
        known = self.entries.get(image_id(facts.path)) or Entry(facts.path, "")
        self._gone.discard(known.id)
        self._put(replace(known, name=_name(facts), registered=True))
        await self._find_icon(facts)
        self._save_now()
        return self.entries.get(known.id) or known

    async def forget(self, path: str, *, keep_uses: bool = False) -> bool:
        """Forget an image, or that it has a launcher alone; tell whether it was known."""
        entry = self.entries.get(image_id(await asyncio.to_thread(os.path.realpath, path)))
        if entry is None:
            return False
        if keep_uses and entry.uses:
            self._put(replace(entry, registered=False))
        else:
            self._drop(entry)
        self._save_now()
        return True

    def is_to_be_noted(self, path: str) -> bool:
        """Tell whether an image that runs has its first note, and remember that."""
        entry = self.entries.get(image_id(path))
        if entry is None or entry.noted:
            return False
        self._put(replace(entry, noted=True))
        return True

    def _on_instance(self, event: Event, _key: str, instance: Running) -> None:
        """Count a start, once: the daemon before may have counted one that this one adopted."""
        if event is not Event.ADDED:
            return
        facts = instance.facts
        known = self.entries.get(image_id(facts.path)) or Entry(facts.path, "")
        if instance.started_at <= known.last_used:
            return
        self._gone.discard(known.id)
        used = replace(known, uses=known.uses + 1, last_used=instance.started_at)
        self._put(replace(used, name=_name(facts)))
        task = asyncio.create_task(self._find_icon(facts), name=f"icon of {known.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _find_icon(self, facts: ImageFacts) -> None:
        """Take the icon out of an image that is for desktops; without one it goes on."""
        identifier = image_id(facts.path)
        icon = ""
        if facts.desktop is not None:
            try:
                icon = await asyncio.to_thread(self._keep_icon, identifier, facts.path)
            except (FimError, OSError) as error:
                log.warning("no icon", fim_image=facts.path, reason=str(error))
        entry = self.entries.get(identifier)
        if entry is not None and entry.icon != icon:
            self._put(replace(entry, icon=icon))

    def _keep_icon(self, identifier: str, path: str) -> str:
        icon = read_icon(path)
        if icon is None:
            return ""
        _write_icon(self._icon_file(identifier, icon.extension), icon)
        return icon.extension

    # what it keeps

    def _put(self, entry: Entry) -> None:
        self.entries.put(entry.id, entry)
        while len(self.entries) > MOST:
            others = (other for other in self.entries if other.id != entry.id)
            self._drop(min(others, key=self._worth))
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_SAVE_AFTER, self._save_now)

    def _worth(self, entry: Entry) -> tuple[bool, bool, float]:
        return entry.id not in self._gone, entry.registered, entry.last_used

    def _drop(self, entry: Entry) -> None:
        self.entries.remove(entry.id)
        if entry.icon:
            with suppress(OSError):
                self._icon_file(entry.id, entry.icon).unlink()

    def _save_now(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        task = asyncio.create_task(self._write_down(), name="save the catalogue")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write_down(self) -> None:
        async with self._writing:
            facts = {"images": [asdict(entry) for entry in self.entries]}
            await asyncio.to_thread(self._save, facts)

    def _save(self, facts: dict[str, Any]) -> None:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            records.write(str(self._directory / _FILE), facts, durable=True)
        except OSError as error:
            log.warning("images not remembered", directory=str(self._directory), reason=str(error))


def state_directory() -> Path:
    """Return where the catalogue is kept: fimd in XDG_STATE_HOME."""
    home = os.environ.get("XDG_STATE_HOME", "")
    if not home.startswith("/"):
        home = os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(home) / "fimd"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _name(facts: ImageFacts) -> str:
    """Return what people call an image: its own word, or its file's name without the ending."""
    if facts.desktop is not None:
        return label(facts.desktop.name)
    return label(os.path.basename(facts.path).removesuffix(".flatimage"))


def _write_icon(target: Path, icon: Icon) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(OSError):
        if target.read_bytes() == icon.data:
            return
    temporary = target.with_name(f".{target.name}.new")
    temporary.write_bytes(icon.data)
    temporary.replace(target)


def read_entries(directory: Path) -> list[Entry]:
    """Read the entries that make sense, at most as many as are kept."""
    listed = (records.read(str(directory / _FILE)) or {}).get("images")
    found = [_entry(facts) for facts in listed] if isinstance(listed, list) else []
    return [entry for entry in found if entry is not None][:MOST]


def _entry(facts: Any) -> Entry | None:
    try:
        entry = Entry(**facts)
        sound = (
            all(isinstance(text, str) for text in (entry.path, entry.name))
            and entry.icon in {"", *ICON_EXTENSIONS}
            and entry.path.startswith("/")
            and "\0" not in entry.path
            and len(entry.path) <= _LONGEST_PATH
            and 0 < len(entry.name) <= _LONGEST_NAME
            and isinstance(entry.registered, bool)
            and isinstance(entry.noted, bool)
            and type(entry.uses) is int
            and 0 <= entry.uses < 1 << 32
            and isinstance(entry.last_used, (int, float))
            and math.isfinite(entry.last_used)
            and entry.last_used >= 0
        )
        os.fsencode(entry.path)
    except (TypeError, ValueError):
        return None
    if not sound:
        return None
    last_used = min(float(entry.last_used), time.time())
    return replace(entry, name=label(entry.name), last_used=last_used)
