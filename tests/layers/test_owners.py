"""Whom a layer's files belong to, by the ids that are mapped."""

import pytest

from fimd.layers.owners import NOBODY, Owners


@pytest.mark.parametrize(
    ("ids", "shown"),
    [
        (1, {0: 0, 6: 0, 1000: 0, 70000: 0}),
        (10, {0: 0, 6: 6, 1000: 0, 70000: 0}),
        (65536, {0: 0, 6: 6, 1000: 1000, 70000: NOBODY}),
        (2**32 - 1, {0: 0, 6: 6, 1000: 1000, 70000: 70000}),
    ],
)
def test_owners_are_those_of_the_layer_as_far_as_they_are_mapped(
    ids: int, shown: dict[int, int]
) -> None:
    owners = Owners(top_user=0, top_group=0, ids=ids)
    assert {uid: owners.user(uid) for uid in shown} == shown
    assert {gid: owners.group(gid) for gid in shown} == shown


@pytest.mark.parametrize("ids", [1, 10, 65536])
def test_who_owns_the_top_directory_is_root(ids: int) -> None:
    owners = Owners(top_user=70000, top_group=1000, ids=ids)
    assert (owners.user(70000), owners.group(1000)) == (0, 0)
