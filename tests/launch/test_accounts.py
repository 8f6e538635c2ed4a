"""Whom a sandbox knows, by what its image has."""

from pathlib import Path

import pytest

from fimd.launch import accounts
from fimd.launch.identity import Identity

ME = Identity(1001, 1001, "me", "/home/me", "/bin/sh")
ROOT = Identity(0, 0, "root", "/root", "/bin/sh")
LINE = {who: who.passwd for who in (ME, ROOT)}
OWN = {
    "passwd": "root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:33::/var/www:\n",
    "group": "root:x:0:\nwww-data:x:33:\n",
}


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "group").write_text("root:x:0:\naudio:x:29:me\n")
    places = {"passwd": "/etc/passwd", "group": str(tmp_path / "group")}
    monkeypatch.setattr(accounts, "PLACES", places)


def test_root_has_the_images_own_files() -> None:
    assert accounts.shown(ROOT, OWN) == {}


def test_root_is_known_where_the_image_knows_none() -> None:
    assert accounts.shown(ROOT, {}) == {
        "passwd": LINE[ROOT],
        "group": "root:x:0:\naudio:x:29:me\n",
    }
    own = {**OWN, "passwd": "www-data:x:33:33::/var/www:\n"}
    assert accounts.shown(ROOT, own) == {"passwd": LINE[ROOT] + own["passwd"]}


def test_others_come_first_and_know_the_images_users_and_groups_too() -> None:
    assert accounts.shown(ME, OWN) == {
        "passwd": LINE[ME] + OWN["passwd"],
        "group": "root:x:0:\naudio:x:29:me\nwww-data:x:33:\n",
    }


def test_without_users_of_the_image_it_is_one_line_and_the_hosts_groups() -> None:
    assert accounts.shown(ME, {}) == {"passwd": LINE[ME], "group": "root:x:0:\naudio:x:29:me\n"}


def test_a_name_that_is_known_already_and_what_is_no_line_are_left_out() -> None:
    own = {"passwd": "me:x:0:0::/:/bin/sh\nnonsense\n\nlast:x:7:7:::", "group": "audio:x:1:\n+\n"}
    assert accounts.shown(ME, own) == {
        "passwd": LINE[ME] + "last:x:7:7:::\n",
        "group": "root:x:0:\naudio:x:29:me\n",
    }


def test_what_is_no_file_says_nothing(tmp_path: Path) -> None:
    assert accounts.read(str(tmp_path)) == ""
    assert accounts.read(str(tmp_path / "none")) == ""
    assert accounts.read("/dev/zero") == ""
