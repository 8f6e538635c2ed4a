"""Setting images up for desktops."""

import base64
import json
from pathlib import Path
from typing import Any

from tests.support.session import Session

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


def set_up(session: Session, image: Path, name: str, **values: Any) -> None:
    """Store a name and an icon in an image, of which no start writes anything."""
    icon = session.directory / "work" / "picture.png"
    icon.write_bytes(PNG)
    described = {"name": name, "icon": str(icon), "categories": ["Game"], "integrations": []}
    path = session.directory / "work" / "desktop.json"
    path.write_text(json.dumps({**described, **values}))
    session.output("fimctl", "desktop", "setup", image, path)
