"""How time grows with the size of the data and with the number of tables."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks import dataset
from benchmarks.backups import dumps
from benchmarks.contenders import Contender, Place
from benchmarks.figures import growth_exponent, last_step_exponent
from benchmarks.measure import ContenderFailed
from benchmarks.options import Options, Part
from benchmarks.picture import Points, curves
from benchmarks.restores import restores
from benchmarks.rounds import in_turn, say
from benchmarks.servers import Server, ordinary
from benchmarks.tables import markdown

TABLES = (10, 1_000, 20_000)
# All of them hold as much together, so that only their number grows.
TABLES_SIZE_MB = 20.0
_SIZE_STEPS = (25, 5, 1)
_BACKUPS = ("opskit", "bare", "copy-floor", "pg_dump-Fc")
_RESTORES = ("opskit-drill", "pg_restore")


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One contender's seconds along an axis."""

    name: str
    points: Points

    @property
    def exponents(self) -> tuple[str, str]:
        """The growth over all points, and over the last step alone."""
        if len(self.points) < 2:
            return ("", "")
        xs, ys = [x for x, _ in self.points], [y for _, y in self.points]
        return (f"{growth_exponent(xs, ys):.2f}", f"{last_step_exponent(xs, ys):.2f}")


def measure_growth(options: Options, here: Place) -> Part:
    """Measure at three sizes and at three numbers of tables."""
    sizes = [options.size_mb / step for step in _SIZE_STEPS]

    def by_size(source: Server, database: str, size_mb: float) -> None:
        dataset.build(source, database, size_mb=size_mb)

    def by_tables(source: Server, database: str, tables: float) -> None:
        dataset.build_tables(
            source, database, tables=int(tables), size_mb=TABLES_SIZE_MB
        )

    grown = {
        "size": ("MB in the dump", _measure(options, here, "size", sizes, by_size)),
        "tables": (
            f"tables, {TABLES_SIZE_MB:g} MB in all of them",
            _measure(options, here, "tables", TABLES, by_tables),
        ),
    }
    text = "## How time grows\n\n"
    pictures = {}
    for name, (axis, found) in grown.items():
        text += f"By {axis}:\n\n{_table(found)}\n"
        lines = {each.name: each.points for each in found if each.points}
        pictures[f"curves-{name}"] = curves(f"Seconds by {axis}", axis, lines)
    data = {
        name: {each.name: each.points for each in found}
        for name, (_axis, found) in grown.items()
    }
    return Part(name="curves", text=text, pictures=pictures, data=data)


def _measure(
    options: Options,
    here: Place,
    axis: str,
    places: Sequence[float],
    build: Callable[[Server, str, float], None],
) -> list[Curve]:
    points: dict[str, list[tuple[float, float]]] = {}
    for each in places:
        database = f"{axis}_{each:.0f}"
        say(f"building {database}")
        build(here.source, database, each)
        folder = here.folder / database
        folder.mkdir()
        folder.chmod(0o755)
        place = Place(
            source=here.source, folder=folder, jobs=here.jobs, database=database
        )
        for name, seconds in _at_one_place(options, place):
            points.setdefault(name, []).append((each, seconds))
        here.source.psql("postgres", f"DROP DATABASE {database};")
        shutil.rmtree(folder)
    return [Curve(name=name, points=found) for name, found in points.items()]


def _at_one_place(options: Options, place: Place) -> list[tuple[str, float]]:
    installation = place.source.installation
    with ordinary(installation, place.folder / "target") as target:
        contenders = _named(dumps(place), _BACKUPS)
        try:
            contenders += _named(restores(place, target), _RESTORES)
        except ContenderFailed as error:
            say(f"no backup to restore: {error}")
        found = in_turn(
            contenders, rounds=options.rounds, timeout_seconds=options.timeout_seconds
        )
    return [(each.name, each.seconds) for each in found if not each.missing]


def _named(contenders: Sequence[Contender], names: Sequence[str]) -> list[Contender]:
    return [each for each in contenders if each.name in names]


def _table(found: Sequence[Curve]) -> str:
    places = sorted({x for each in found for x, _ in each.points})
    head = ["contender", *(f"{x:,.0f}" for x in places), "exponent", "of the last step"]
    rows = []
    for each in found:
        seconds = dict(each.points)
        cells = [f"{seconds[x]:.2f} s" if x in seconds else "" for x in places]
        rows.append([each.name, *cells, *each.exponents])
    return markdown(head, rows)
