"""A start, of layers that are mounted and of cold ones, beside bubblewrap and the script."""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.bench.rows import Row, compared
from tests.bench.timing import Rounds, in_turn, seconds
from tests.bench.world import BARE, make_image, make_layers, make_script, make_trees, new_session
from tests.support.session import Session

_ROUNDS = 30
_MOST_OVER_BARE = 45.0
"""Milliseconds."""
_OTHERS = 300


def measure() -> Iterator[Row]:
    """Measure starts of an image of ten layers."""
    with tempfile.TemporaryDirectory(prefix="fimd-bench-") as name, new_session() as session:
        scratch = Path(name)
        scratch.chmod(0o755)
        trees = make_trees(scratch, 10)
        layers = make_layers(trees, scratch)
        script = make_script(session, trees, layers, scratch)
        image = session.adopt(make_image(layers, scratch / "image"), "app.flatimage")
        ten = f"script, ten layers by {script.mounter}"
        start = partial(session.output, str(image), "fim-exec", "true")
        run_script = partial(session.output, *script.command("true"))

        keeper = session.background(image, "sleep 3600")
        actions = {"mounted": start, "bare bwrap": partial(session.output, *BARE), ten: run_script}
        rounds = in_turn(actions, _ROUNDS)
        keeper.kill()
        keeper.wait()
        yield compared("start, layers mounted", rounds, "mounted", ten, most=0.4)
        yield _over_bare(rounds)

        session.wait_until_clean()
        yield compared(
            "first start, ten cold layers",
            _cold(session, start, ten, run_script),
            "cold",
            ten,
            most=1.0,
        )
        yield _among_others(scratch / "others", session, start, image)


def _among_others(scratch: Path, session: Session, start: partial[str], image: Path) -> Row:
    """Compare starts while many layers of another image are mounted with starts without them."""
    scratch.mkdir()
    layers = make_layers(make_trees(scratch, _OTHERS), scratch)
    other = session.adopt(make_image(layers, scratch / "image"), "other.flatimage")
    rounds = Rounds()
    for number in range(_ROUNDS):
        keepers = [session.background(image, "sleep 3600")]
        start()
        alone = seconds(start)
        keepers.append(session.background(other, "sleep 3600"))
        start()
        among = seconds(start)
        for keeper in keepers:
            keeper.kill()
            keeper.wait()
        session.output("fimctl", "prune")
        session.wait_until_clean()
        if number:
            rounds.note("among", among)
            rounds.note("alone", alone)
    what = f"start, {_OTHERS} layers of another image mounted"
    return compared(what, rounds, "among", "alone", most=1.1)


def _over_bare(rounds: Rounds) -> Row:
    mounted, bare = rounds.median("mounted") * 1e3, rounds.median("bare bwrap") * 1e3
    over = mounted - bare
    return Row(
        "start over bare bwrap, layers mounted",
        f"{over:.1f} ms",
        "bare bwrap",
        f"{bare:.1f} ms",
        rounds.ratio("mounted", "bare bwrap"),
        f"≤ {_MOST_OVER_BARE:g} ms more",
        over <= _MOST_OVER_BARE,
    )


def _cold(session: Session, start: partial[str], ten: str, run_script: partial[str]) -> Rounds:
    """Let the layers go before each start; that is no part of what is measured."""
    rounds = Rounds()
    for number in range(_ROUNDS):
        for name, action in [("cold", start), (ten, run_script)][:: -1 if number % 2 else 1]:
            session.output("fimctl", "prune")
            session.wait_until_clean()
            value = seconds(action)
            if number:
                rounds.note(name, value)
    return rounds
