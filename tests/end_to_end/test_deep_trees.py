"""Trees of any depth, and directories that let nobody in, are committed, switched and removed."""

import os
from pathlib import Path

import pytest

from tests.support.overlays import INSTALLED
from tests.support.session import Session, wait_for

DOWN = (
    "i=0; while [ $i -lt {levels} ] && mkdir {name} && cd {name}; do i=$((i+1)); done 2>/dev/null"
)
SHAPES = {
    "levels": f"{DOWN.format(levels=1500, name='d')}; [ $i -gt 400 ]",
    "path": f"{DOWN.format(levels=600, name='n' * 60)}; [ $i -gt 10 ]",
    "modes": "mkdir a a/b e; echo x >a/b/c; echo x >e/f; chmod 0 a/b; chmod 0311 e",
}


@pytest.mark.parametrize("overlay", INSTALLED)
@pytest.mark.parametrize(
    "shape",
    ["modes", *(pytest.param(shape, marks=pytest.mark.slow) for shape in ("path", "levels"))],
)
def test_what_is_deep_or_closed_is_a_change_like_others(
    session: Session, image: Path, overlay: str, shape: str
) -> None:
    def run(script: str, overlay: str = overlay) -> str:
        variables = {"FIM_OVERLAY": overlay}
        return session.output(image, "fim-root", "sh", "-c", script, variables=variables)

    def kept() -> None:
        for other in (*INSTALLED, overlay):
            assert run("cat /kept; ls / | grep -c '^[adn]*$'", other) == "yes\n1\n"

    data = image.parent / f".{image.name}.data"
    run(f"rm /etc/release; echo yes >/kept; cd /; {SHAPES[shape]}")
    assert "+ /kept" in session.output("fimctl", "upper", "status", image)
    kept()
    assert "+ /kept" in session.output("fimctl", "upper", "status", image)
    assert "Layer saved" in session.output(image, "fim-layer", "commit", "layer")
    assert os.listdir(data / "root") == []
    wait_for(lambda: not os.listdir(data / "tmp"), what="the removal of the former upper")
    kept()
    run(f"echo more >/made; cd /; mkdir more; cd more; {SHAPES[shape]}")
    session.output("fimctl", "upper", "reset", "-y", image)
    assert os.listdir(data / "root") == []
    assert os.listdir(data / "tmp") == []
    kept()
