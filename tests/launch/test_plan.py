"""The launch plan: what stands where in it, and what the client is to expand."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fimd.flatimage.settings import Binding, BindingType, Permission, Unshare
from fimd.images.image import ImageFacts
from fimd.launch.place import Place
from fimd.launch.plan import LaunchPlan, launch_plan
from fimd.launch.request import StartRequest

HOME = {"HOME": "/home/me", "USER": "me", "PATH": "/usr/bin"}


def plan(
    mode: str = "exec", app: str = "/tmp/fim/app/u7", root: bool = False, **facts: Any
) -> LaunchPlan:
    stored: Mapping[str, Any] = {"environment": {}, "boot": ("bash",), **facts}
    image = ImageFacts(
        path="/images/app",
        reserved_offset=4096,
        layers=(),
        overlay=None,
        casefold="off",
        warnings=(),
        **stored,
    )
    place = Place(
        image=image.path,
        data="/images/.app.data",
        layers="/images/.app.data/layers",
        directory=f"{app}/instance/7",
        app=app,
        global_directory="/tmp/fim",
        pid=7,
        reserved_offset=4096,
        join=("nsenter", "--"),
    )
    request = StartRequest("/images/app", 7, mode=mode, root=root, environment=HOME)
    return launch_plan(place, "/merged", request, image)


def options(made: LaunchPlan) -> tuple[str, ...]:
    """What bubblewrap gets before the command."""
    [start] = [at for at, word in enumerate(made.argv) if word.endswith("/bwrap")]
    return made.argv[start : made.argv.index("--", start)]


def sequence(words: Sequence[str], of: Sequence[str]) -> int:
    """Where words stand one after the other."""
    [at] = [at for at in range(len(of)) if tuple(of[at : at + len(words)]) == tuple(words)]
    return at


def test_the_sandbox_has_the_writable_view_for_its_root_and_nothing_of_the_hosts() -> None:
    made = plan()
    assert made.argv[:2] == ("nsenter", "--")
    assert os.path.isabs(made.argv[2])
    given = options(made)
    at = given.index("--bind")
    assert given[at : at + 3] == ("--bind", "/merged", "/")
    sources = {given[i + 1] for i, word in enumerate(given) if "bind" in word}
    assert "--unshare-pid" in given
    assert "/" not in sources
    assert made.expand_argv == ()
    assert made.expand_environment == ()
    assert not made.expand_identity


def test_bindings_come_before_permissions_and_those_before_namespaces() -> None:
    made = plan(
        bindings=(
            Binding(BindingType.RO, "$HOME/a", "/a"),
            Binding(BindingType.DEV, "/dev/x", "/b c"),
        ),
        permissions=Permission.UDEV | Permission.DEV,
        unshare=Unshare.PID | Unshare.USER,
    )
    given = options(made)
    stored = ("--ro-bind-try", "$HOME/a", "/a", "--dev-bind-try", "/dev/x", "/b c")
    granted = ("--bind-try", "/run/udev", "/run/udev", "--dev-bind-try", "/dev", "/dev")
    assert sequence(stored, given) < sequence(granted, given) < given.index("--unshare-user-try")
    assert given.count("--unshare-pid") == 1
    assert [made.argv[index] for index in made.expand_argv] == ["$HOME/a"]


def test_stored_variables_override_all_but_who_the_program_is() -> None:
    made = plan(environment={"A": "1", "TERM": "dumb", "FIM_PID": "9", "XDG_RUNTIME_DIR": "/x"})
    expected = {"A": "1", "TERM": "dumb", "FIM_PID": "9"}
    assert made.environment.items() >= expected.items()
    assert made.environment["XDG_RUNTIME_DIR"] == f"/run/user/{os.getuid()}"


def test_what_has_to_be_expanded_is_left_to_the_client() -> None:
    stored = {"A": "$B", "$K": "v", "PS1": r"\u $", "P": "plain words", "": "nameless"}
    made = plan(environment=stored, boot=("$PROGRAM", "$HOME"), mode="boot")
    assert made.expand_environment == (("A", "$B"), ("$K", "v"))
    assert {"A", "$K", ""}.isdisjoint(made.environment)
    assert made.environment["PS1"] == r"\u $"
    assert [made.argv[index] for index in made.expand_argv] == ["$PROGRAM"]
    assert made.argv[-2:] == ("$PROGRAM", "$HOME")
    assert plan(environment={"SHELL": "$HOME/sh"}).expand_identity


def test_what_bears_on_the_hosts_programs_is_set_inside_only() -> None:
    made = plan(environment={"PATH": "/in:$PATH", "LD_PRELOAD": "/in.so"})
    assert sequence(
        ("--setenv", "PATH", "/in:$PATH", "--setenv", "LD_PRELOAD", "/in.so"), options(made)
    )
    assert [made.argv[index] for index in made.expand_argv] == ["/in:$PATH"]
    assert "LD_PRELOAD" not in made.environment
    assert made.environment["PATH"].startswith("/tmp/fim/app/u7/bin:/usr/bin:")


@pytest.mark.parametrize("app", ["/tmp/fim/app/u7", "/var/fim/app/u7"])
def test_of_the_runtime_tree_a_program_sees_its_own_and_the_programs_beside_it_read_only(
    app: str,
) -> None:
    given = options(plan(app=app, bindings=(Binding(BindingType.RW, "/", "/host"),)))
    shown = [given[i + 1] for i, word in enumerate(given) if word == "--ro-bind"]
    assert shown == [f"{app}/{name}" for name in ("bin", "sbin", "instance/7")]
    covered = [given[i + 1] for i, word in enumerate(given) if word == "--tmpfs"]
    assert f"/host{app}" in covered
    assert covered[-1] == app
    last_bound = max(at for at, word in enumerate(given) if "bind" in word)
    assert given[last_bound + 3 : last_bound + 5] == ("--remount-ro", app)


def test_what_leads_into_the_runtime_tree_is_left_out_with_a_warning(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "state").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tree / "state")
    for source in (tree, tree / "state", tmp_path / "link"):
        made = plan(app=str(tree), bindings=(Binding(BindingType.RW, str(source), "/x"),))
        assert "/x" not in made.argv
        [warning] = made.warnings
        assert str(source) in warning


@pytest.mark.parametrize(
    ("facts", "own"),
    [
        ({}, True),
        ({"permissions": Permission.PROCESSES}, False),
        ({"permissions": Permission.PROCESSES, "unshare": Unshare.PID}, True),
    ],
)
def test_the_hosts_processes_are_seen_by_permission_alone(facts: Any, own: bool) -> None:
    assert ("--unshare-pid" in options(plan(**facts))) is own


def test_root_inside_has_what_it_needs_and_others_no_capability() -> None:
    def added(made: LaunchPlan) -> set[str]:
        given = options(made)
        assert sequence(("--cap-drop", "ALL"), given) < given.index("--unshare-pid")
        return {given[at + 1] for at, word in enumerate(given) if word == "--cap-add"}

    assert {"CAP_CHOWN", "CAP_SETUID"} <= added(plan(root=True))
    assert added(plan(root=True)).isdisjoint({"CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_MKNOD"})
    if os.getuid() != 0:
        assert added(plan()) == set()


def test_a_name_cannot_add_a_line_to_passwd() -> None:
    if os.getuid() == 0:
        made = plan(environment={"SHELL": "/bin/sh\nevil:x:0:0"})
    else:
        made = plan(environment={"USER": "a:b\nevil:x:0:0"})
    assert made.files["passwd"].count("\n") == 1
    assert made.files["passwd"].count(":") == 6


def test_the_prompt_is_quoted() -> None:
    assert plan().files["bashrc"] == 'export PS1="[flatimage-${FIM_DIST,,}] \\W > "\n'
    made = plan(environment={"PS1": 'a "b" \\u > '})
    assert made.files["bashrc"] == 'export PS1="a \\"b\\" \\u > "\n'
