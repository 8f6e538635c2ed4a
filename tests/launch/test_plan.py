"""The launch plan: what stands where in it, and what of it the image can have a say in."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fimd.base.errors import UnsupportedError
from fimd.flatimage.settings import Binding, BindingType, Permission, Unshare
from fimd.images.image import ImageFacts
from fimd.launch.draft import Draft, draft
from fimd.launch.place import Place
from fimd.launch.plan import LaunchPlan, launch_plan
from fimd.launch.request import StartRequest
from fimd.launch.targets import Found

HOME = {"HOME": "/home/me", "USER": "me", "PATH": "/usr/bin"}


def make(
    mode: str = "exec",
    app: str = "/tmp/fim/app/u7",
    root: bool = False,
    caller: Mapping[str, str] = HOME,
    **facts: Any,
) -> tuple[Draft, LaunchPlan]:
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
    request = StartRequest(
        "/images/app", 7, mode=mode, root=root, environment=caller, executed=True
    )
    asked = draft(place, request, image)
    real = [replace(bind, real=os.path.realpath(bind.source)) for bind in asked.binds]
    found = Found(tuple(real), (), ())
    return asked, launch_plan(place, "/merged", request, image, asked, found)


def plan(*given: Any, **facts: Any) -> LaunchPlan:
    return make(*given, **facts)[1]


def variables(made: LaunchPlan) -> dict[str, str]:
    """What bubblewrap sets."""
    at = [index for index, word in enumerate(made.argv) if word == "--setenv"]
    return {made.argv[index + 1]: made.argv[index + 2] for index in at}


def options(made: LaunchPlan) -> tuple[str, ...]:
    """What bubblewrap gets before the command."""
    start = made.argv.index(shutil.which("bwrap") or "")
    return made.argv[start : made.argv.index("--", start)]


def sequence(words: Sequence[str], of: Sequence[str]) -> int:
    """Where words stand one after the other."""
    [at] = [at for at in range(len(of)) if tuple(of[at : at + len(words)]) == tuple(words)]
    return at


def test_the_sandbox_has_the_writable_view_for_its_root_and_nothing_of_the_hosts() -> None:
    made = plan()
    assert made.argv[:3] == (shutil.which("nsenter"), "--", shutil.which("bwrap"))
    given = options(made)
    at = given.index("--bind")
    assert given[at : at + 3] == ("--bind", "/merged", "/")
    sources = {given[i + 1] for i, word in enumerate(given) if "bind" in word}
    assert "--unshare-pid" in given
    assert "/" not in sources


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
    stored = ("--ro-bind-try", "/home/me/a", "/a", "--dev-bind-try", "/dev/x", "/b c")
    granted = ("--bind-try", "/run/udev", "/run/udev", "--dev-bind-try", "/dev", "/dev")
    assert sequence(stored, given) < sequence(granted, given) < given.index("--unshare-user-try")
    assert given.count("--unshare-pid") == 1


def test_paths_of_bindings_are_final_and_those_that_are_none_are_left_out() -> None:
    pairs = [
        *(("$HOME/x", "/x$USER"), ("~", "home"), ("relative", "/r"), ("$(id)", "/a")),
        *(("/a", "`id`"), ("$NONE", "/n"), ("/[a]*", "/p")),
    ]
    bindings = tuple(Binding(BindingType.RO, *pair) for pair in pairs)
    asked, _ = make(bindings=bindings)
    shown = [
        (bind.source, bind.target)
        for bind in asked.binds
        if bind.option == "--ro-bind-try" and not bind.is_ours
    ]
    assert shown == [("/home/me/x", "/xme"), ("/home/me", "/home"), ("/[a]*", "/p")]
    command, absolute = "no command is run for a path", "it is not an absolute path"
    assert list(asked.warnings) == [
        f"the binding 'relative' to '/r' is left out: {absolute}",
        f"the binding '$(id)' to '/a' is left out: {command}",
        f"the binding '/a' to '`id`' is left out: {command}",
        f"the binding '$NONE' to '/n' is left out: {absolute}",
    ]
    asked, _ = make(bindings=bindings, caller={**HOME, "PWD": "/work"})
    assert ("/work/relative", "/r") in [(bind.source, bind.target) for bind in asked.binds]


def test_stored_variables_override_all_but_who_the_program_is() -> None:
    made = plan(environment={"A": "1", "TERM": "dumb", "FIM_PID": "9", "XDG_RUNTIME_DIR": "/x"})
    expected = {"A": "1", "TERM": "dumb", "FIM_PID": "9"}
    assert variables(made).items() >= expected.items()
    assert variables(made)["XDG_RUNTIME_DIR"] == f"/run/user/{os.getuid()}"


def test_stored_words_are_expanded_by_the_callers_variables() -> None:
    stored = {"A": "$USER", "$K": "v", "PS1": r"\u $", "P": "$PATH", "F": "$FIM_PID"}
    made = plan(environment=stored, boot=("$HOME/x", "$HOME"), mode="boot")
    assert made.argv[-2:] == ("/home/me/x", "$HOME")
    shown = variables(made)
    assert (shown["A"], shown["$K"], shown["PS1"], shown["F"]) == ("me", "v", r"\u $", "7")
    assert shown["P"].startswith("/usr/bin:")
    assert shown["P"].endswith(":/tmp/fim/app/u7/bin:/tmp/fim/app/u7/sbin")


def test_a_command_in_a_stored_word_is_for_the_shell_inside_or_nobodys() -> None:
    stored = {"A": "$(id)", "SHELL": "$(id)", "UID": "`id`"}
    asked, made = make(environment=stored, boot=("$(id)",), mode="boot")
    assert made.argv[-1] == "$(id)"
    assert made.argv[-3].startswith(". '/tmp/fim/app/u7/instance/7/variables'\n")
    assert "'$(id)'" in asked.files["variables"]
    assert asked.who.shell != "$(id)"
    assert [warning.split(" is ")[0] for warning in asked.warnings] == [
        *("the stored UID", "the stored SHELL")
    ]


def test_an_identity_is_expanded_in_passwd_too() -> None:
    asked, made = make(environment={"SHELL": "$HOME/sh", "USER": "x$USER"})
    assert variables(made)["SHELL"] == "/home/me/sh"
    assert asked.files["passwd"].endswith(":/home/me/sh\n")


def test_programs_outside_are_those_of_the_callers_own_path(tmp_path: Path) -> None:
    for name in ("bwrap", "nsenter"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    stored = {"PATH": "/evil", "LD_PRELOAD": "/evil.so"}
    made = plan(caller={**HOME, "PATH": f".::relative:{tmp_path}"}, environment=stored)
    assert (made.argv[0], made.argv[2]) == (f"{tmp_path}/nsenter", f"{tmp_path}/bwrap")
    assert variables(made).items() >= stored.items()
    assert plan(caller={}).argv[2] == shutil.which("bwrap")


def test_a_machine_without_bubblewrap_is_told_to_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "nsenter").symlink_to("/bin/true")
    with pytest.raises(UnsupportedError, match=r"bubblewrap .* is not installed: install it"):
        plan(caller={**HOME, "PATH": str(tmp_path)})


def test_more_bindings_than_bubblewrap_takes_are_refused() -> None:
    many = tuple(Binding(BindingType.RO, f"/{number}", f"/{number}") for number in range(2700))
    with pytest.raises(UnsupportedError, match=r"27.. bindings .* more than bubblewrap takes"):
        plan(bindings=many)


@pytest.mark.parametrize("app", ["/tmp/fim/app/u7", "/var/fim/app/u7"])
def test_of_the_runtime_tree_a_program_sees_its_own_and_the_programs_beside_it_read_only(
    app: str,
) -> None:
    given = options(plan(app=app, bindings=(Binding(BindingType.RW, "/", "/host"),)))
    shown = [given[i + 1] for i, word in enumerate(given) if word == "--ro-bind"]
    assert shown == ["/sys", *(f"{app}/{name}" for name in ("bin", "sbin", "instance/7"))]
    covered = [given[i + 1] for i, word in enumerate(given) if word == "--tmpfs"]
    assert f"/host{app}" in covered
    assert covered.count(app) == 1
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
        asked, _ = make(environment={"SHELL": "/bin/sh\nevil:x:0:0"})
    else:
        asked, _ = make(environment={"USER": "a:b\nevil:x:0:0"})
    assert asked.files["passwd"].count("\n") == 1
    assert asked.files["passwd"].count(":") == 6


def test_the_prompt_is_quoted() -> None:
    assert make()[0].files["bashrc"] == 'export PS1="[flatimage-${FIM_DIST,,}] \\W > "\n'
    asked, _ = make(environment={"PS1": 'a "b" \\u > '})
    assert asked.files["bashrc"] == 'export PS1="a \\"b\\" \\u > "\n'
