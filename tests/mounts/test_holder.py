"""The process that keeps the user's namespace: how it is made, found and replaced."""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from fimd.mounts.holder import IdRange, subordinate_ids
from tests.support.account import PROJECT, Account, own, plain
from tests.support.subordinate_ids import with_ranges

SCRIPT = Path(__file__).with_name("try_holder.py")


@pytest.fixture(params=["root", "user"])
def account(request: pytest.FixtureRequest, tmp_path: Path) -> Account:
    found = own() if request.param == "root" else plain(tmp_path / "copy")
    if found is None or (request.param == "root") != (found.uid == 0):
        pytest.skip("there is no such account here")
    return found


@pytest.fixture
def user(tmp_path: Path) -> Account:
    found = plain(tmp_path / "copy")
    if found is None or found.uid == 0:
        pytest.skip("there is no plain user")
    return found


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    shared = Path(tempfile.gettempdir())
    for path in (tmp_path, *tmp_path.parents):
        if not path.is_relative_to(shared) or path == shared:
            break
        path.chmod(0o755)
    directory = tmp_path / "scratch"
    directory.mkdir()
    directory.chmod(0o777)
    return directory


def ask(account: Account, scratch: Path, what: str, setup: str = "", path: str = "") -> Any:
    """Run the script as an account; `setup` is done before in a mount namespace, as root."""
    python = [account.python, str(SCRIPT), what]
    environment = {
        "PATH": f"{path}/usr/bin:/bin:/usr/sbin",
        "SCRATCH": str(scratch),
        "PYTHONPATH": str(PROJECT),
        **account.environment,
    }
    options: dict[str, Any] = account.switch
    if setup:
        become = [f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"]
        python = ["sh", "-ec", f'{setup}\nexec "$@"', "sh", "setpriv", *become, *python]
        python = ["unshare", "--mount", "--", *python]
        options = {}
    done = subprocess.run(
        python, env=environment, capture_output=True, text=True, timeout=60, check=False, **options
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_user_is_root_in_it_and_without_subordinate_ids_alone(
    user: Account, scratch: Path
) -> None:
    if any(user.name in Path(f"/etc/sub{kind}").read_text() for kind in ("uid", "gid")):
        pytest.skip("this user has subordinate ids")
    assert ask(user, scratch, "start") == {"ids": 1, "given": False, "id": 0}


def test_with_subordinate_ids_files_can_be_given_to_others(user: Account, scratch: Path) -> None:
    found = ask(user, scratch, "start", with_ranges(user, scratch, 65536))
    assert found == {"ids": 65536, "given": True, "id": 0}


def test_a_short_range_maps_as_far_as_it_goes(user: Account, scratch: Path) -> None:
    found = ask(user, scratch, "start", with_ranges(user, scratch, 10))
    assert found == {"ids": 11, "given": True, "id": 0}


def test_a_newuidmap_that_refuses_leaves_the_user_alone_in_it(user: Account, scratch: Path) -> None:
    programs = scratch / "bin"
    programs.mkdir()
    program = programs / "newuidmap"
    program.write_text("#!/bin/sh\necho no >&2\nexit 1\n")
    program.chmod(0o755)
    setup = with_ranges(user, scratch, 65536)
    found = ask(user, scratch, "start", setup, path=f"{programs}:")
    assert found == {"ids": 1, "given": False, "id": 0}


def test_root_of_the_machine_has_one_for_mounts_alone(account: Account, scratch: Path) -> None:
    if account.uid != 0:
        pytest.skip("for root")
    assert ask(account, scratch, "start") == {"ids": 1, "given": True, "id": 0}


def test_a_record_is_believed_only_of_a_living_process_in_a_namespace_of_this_users(
    account: Account, scratch: Path
) -> None:
    believed = ask(account, scratch, "known")
    assert [name for name, found in believed.items() if found] == ["true"]


def test_another_holder_takes_the_place_of_a_dead_one(account: Account, scratch: Path) -> None:
    assert ask(account, scratch, "revive")["same"]


def test_ranges_are_found_by_name_or_number_and_nonsense_is_none(tmp_path: Path) -> None:
    file = tmp_path / "subuid"
    name, number = own().name, os.getuid()
    lines = [f"{name}:1000:10", f"{number}:2000:20", f"{name}:x:1", f"{name}:1", "", f"{name}x:1:1"]
    file.write_text("\n".join([*lines, f"{name}:5:0", f"{name}:-1:5"]))
    assert list(subordinate_ids(file)) == [IdRange(1000, 10), IdRange(2000, 20)]
    assert list(subordinate_ids(tmp_path / "none")) == []
