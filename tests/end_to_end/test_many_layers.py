"""More layers at once than fusermount3 would mount for a plain user (its mount_max is 1 000)."""

import os
from pathlib import Path

import pytest

from fimd.dwarfs.write import create
from tests.support.session import Session

LAYERS = 1100
IMAGES = 3
"""Each with fewer layers than the kernel's overlay takes, which is 500."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def layers(session: Session, tmp_path: Path) -> list[list[Path]]:
    """Layers of one file each, in a directory for each image."""
    found: list[list[Path]] = [[] for _ in range(IMAGES)]
    for number in range(LAYERS):
        tree = tmp_path / str(number)
        (tree / "many").mkdir(parents=True)
        (tree / "many" / str(number)).write_text(f"{number}\n")
        directory = session.directory / "work" / f"layers{number % IMAGES}"
        directory.mkdir(exist_ok=True)
        layer = directory / f"{number:04d}.layer"
        create(tree, layer, level=1)
        os.chown(layer, session.account.uid, session.account.gid)
        found[number % IMAGES].append(layer)
    return found


def test_images_of_more_than_a_thousand_layers_together_run_at_once(
    session: Session, busybox_image: Path, layers: list[list[Path]]
) -> None:
    programs = []
    for number in range(IMAGES):
        image = session.adopt(busybox_image, f"{number}.flatimage")
        variables = {"FIM_LAYERS": str(layers[number][0].parent)}
        programs.append(session.background(image, "sleep 1000", variables=variables))
        shown = session.output(image, "fim-exec", "sh", "-c", "cat /many/*", variables=variables)
        expected = sorted(str(one) for one in range(number, LAYERS, IMAGES))
        assert sorted(shown.split()) == expected
    mounted = session.objects("layers")
    assert len(mounted) == LAYERS + IMAGES
    assert all(one["References"] > 0 for one in mounted)
    on_the_host = Path("/proc/self/mountinfo").read_text()
    assert str(session.directory) not in on_the_host
    for program in programs:
        program.kill()
        program.wait()
    session.wait_until_clean(30)
