"""Where the runtime tree is hidden: under every name that a part of the host shows it by."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from fimd.launch.cover import Cover
from fimd.mounts.table import Mount


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "run" / "fim" / "app" / "u7"
    (tree / "state").mkdir(parents=True)
    return tree


def table(*mounts: tuple[str, str, Path | str]) -> list[Mount]:
    return [Mount(device, root, str(point), "ext4", "disk") for device, root, point in mounts]


def covered(cover: Cover, source: Path | str, target: str) -> list[str]:
    shown = os.path.realpath(source)
    words = list(cover.over(shown, target))
    shown = shown.rstrip("/")
    while words[:1] == ["--bind"]:  # what it lies in, each over itself
        assert shown + words[2].removeprefix(target) == words[1]
        del words[:3]
    assert words[2::6] == ["--tmpfs"] * (len(words) // 6)
    assert words[3::6] == words[5::6]
    return words[3::6]


def test_it_is_hidden_below_whatever_shows_it(tmp_path: Path, tree: Path) -> None:
    cover = Cover.of([str(tree)], table(("8:1", "/", "/")))
    assert covered(cover, "/", "/host") == [f"/host{tree}"]
    assert covered(cover, tmp_path, str(tmp_path)) == [str(tree)]
    assert covered(cover, tree.parent, "/x") == ["/x/u7"]
    assert covered(cover, tmp_path / "nowhere", "/x") == []
    other = tmp_path / "other"
    other.mkdir()
    assert covered(cover, other, "/x") == []


def test_a_link_is_taken_for_what_it_leads_to(tmp_path: Path, tree: Path) -> None:
    cover = Cover.of([str(tree)], table(("8:1", "/", "/")))
    link = tmp_path / "link"
    link.symlink_to(tree.parent.parent)
    assert covered(cover, link, "/x") == ["/x/app/u7"]
    assert not cover.holds(os.path.realpath(link))
    for inside in (tree, tree / "state", link / "app" / "u7" / "state" / "new"):
        assert cover.holds(os.path.realpath(inside))
    assert not cover.holds(f"{tree}0")


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        ([("8:1", "/", "/"), ("8:1", "/TMP/run", "/TMP/again")], ["/TMP/again/fim/app/u7"]),
        ([("8:1", "/", "/"), ("8:2", "/TMP/run", "/TMP/again")], []),
        ([("8:1", "/", "/"), ("8:1", "/TREE/state", "/TMP/again")], ["/TMP/again"]),
        (
            [("8:1", "/", "/"), ("8:2", "/home/run", "/TMP/run"), ("8:2", "/home", "/TMP/again")],
            ["/TMP/again/run/fim/app/u7"],
        ),
        # a later mount hides what an earlier one has at the same place
        (
            [("8:1", "/", "/TMP/run"), ("8:2", "/r", "/TMP/run"), ("8:1", "/", "/TMP/again")],
            [],
        ),
    ],
)
def test_other_mounts_of_its_file_system_are_names_of_it(
    tmp_path: Path,
    tree: Path,
    mounts: Sequence[tuple[str, str, str]],
    expected: Sequence[str],
) -> None:
    def real(path: str) -> str:
        return path.replace("/TREE", str(tree)).replace("/TMP", str(tmp_path))

    for place in expected:  # stands for the mount, which only root could make
        Path(real(place)).mkdir(parents=True, exist_ok=True)
    found = Cover.of(
        [str(tree)], table(*((device, real(root), real(point)) for device, root, point in mounts))
    )
    assert found.places == (str(tree), *map(real, expected))


def test_what_it_lies_in_is_bound_over_itself_before_it_is_hidden(
    tmp_path: Path, tree: Path
) -> None:
    words = list(Cover((str(tree), f"{tree}-too")).over(str(tmp_path), "/shown", bound="/other"))
    pins = [("--bind", f"/other/{path}", f"/shown/{path}") for path in ("run", "run/fim")]
    pins.append(("--bind", "/other/run/fim/app", "/shown/run/fim/app"))
    assert [tuple(words[at : at + 3]) for at in range(0, 9, 3)] == pins
    assert "--bind" not in words[9:]


def test_nothing_is_bound_in_what_can_only_be_read(tmp_path: Path, tree: Path) -> None:
    words = list(Cover((str(tree),)).over(str(tmp_path), "/shown", option="--ro-bind-try"))
    assert words[2] == "--tmpfs"
