"""Benchmarks: medians, ratios, growth, tables, pictures and the model on paper."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from random import Random
from xml.etree import ElementTree

import pytest

from benchmarks import __main__ as command_line
from benchmarks import fleet, listing, measure, parts, report
from benchmarks.figures import (
    TARGETS,
    Target,
    growth_exponent,
    last_step_exponent,
    ratios,
)
from benchmarks.measure import ContenderFailed, Measured
from benchmarks.model import Stage, limit
from benchmarks.nights import night, recorded, seconds_of
from benchmarks.options import Part
from benchmarks.picture import bars, curves
from benchmarks.rounds import Result
from benchmarks.tables import markdown, phases_table, ratios_table, results_table

README = Path(report.README)
_SVG = "{http://www.w3.org/2000/svg}"

HALF = Target(what="ours", contender="a", against="b", at_most=0.5)


def measured(seconds: float = 1.0, peak: int = 5, own_peak: int = 3) -> Measured:
    """Return one run."""
    return Measured(
        seconds=seconds,
        cpu_seconds=seconds * 2,
        server_cpu_seconds=seconds / 2,
        peak_bytes=peak * 1_000_000,
        own_peak_bytes=own_peak * 1_000_000,
        output="",
    )


def stage(name: str, rate: float, *, cores: float = 0.0, at_once: int = 1) -> Stage:
    """Return a stage."""
    return Stage(name=name, mb_per_second=rate, cores=cores, at_once=at_once)


def run_shell(script: str, folder: Path, timeout_seconds: float = 30) -> Measured:
    """Measure a shell's script."""
    return measure.run(
        ["sh", "-c", script],
        folder=folder,
        environment={"PATH": os.environ["PATH"]},
        timeout_seconds=timeout_seconds,
    )


def test_a_ratio_is_that_of_the_medians_and_tells_the_single_rounds() -> None:
    """One slow round moves the extremes and not the value."""
    (found,) = ratios({"a": [1.0, 2.0, 9.0], "b": [4.0, 4.0, 3.0]}, [HALF])

    assert (found.value, found.lowest, found.highest) == (0.5, 0.25, 3.0)
    assert found.reached


def test_a_ratio_above_its_target_is_not_reached() -> None:
    """What must be at most a half is not reached by a little more."""
    (found,) = ratios({"a": [2.1], "b": [4.0]}, [HALF])

    assert not found.reached


@pytest.mark.parametrize("rounds", [{"a": [1.0]}, {"a": [1.0], "b": []}])
def test_a_target_with_one_side_missing_has_no_ratio(
    rounds: dict[str, list[float]],
) -> None:
    """An alternative that was not run is nothing that was beaten."""
    assert ratios(rounds, [HALF]) == []


def test_the_targets_are_those_that_were_asked_for() -> None:
    """The numbers were given beforehand, and are not for us to change."""
    asked = {(each.contender, each.against): each.at_most for each in TARGETS}

    assert asked == {
        ("opskit", "bare"): 1.10,
        ("opskit-encrypted", "bare"): 1.25,
        ("opskit", "pg_dump-Fc"): 0.50,
        ("opskit", "restic"): 0.65,
        ("opskit-s3", "rclone"): 1.10,
        ("opskit", "copy-floor"): 1.25,
        ("opskit-drill", "pg_restore"): 1.15,
    }


@pytest.mark.parametrize("power", [0.0, 1.0, 1.5, 2.0])
def test_the_exponent_of_a_power_is_found(power: float) -> None:
    """Times that are a power of the size have that power as their exponent."""
    sizes = [10.0, 1_000.0, 20_000.0]

    found = growth_exponent(sizes, [3 * size**power for size in sizes])

    assert found == pytest.approx(power)


def test_the_last_step_is_told_apart_from_a_constant_part() -> None:
    """Where a constant hides the growth at first, the two largest show it."""
    sizes = [20_000.0, 10.0, 1_000.0]
    seconds = [1 + size**2 / 1e6 for size in sizes]

    assert growth_exponent(sizes, seconds) < 1
    assert last_step_exponent(sizes, seconds) == pytest.approx(1.77, abs=0.01)


@pytest.mark.parametrize(
    ("sizes", "seconds"), [([5, 5], [1, 2]), ([1], [1]), ([1, 2], [0, 1])]
)
def test_a_curve_needs_two_sizes_above_nothing(
    sizes: list[float], seconds: list[float]
) -> None:
    """One point has no slope, and nothing has no logarithm."""
    with pytest.raises(ValueError, match="two different sizes"):
        growth_exponent(sizes, seconds)


def test_a_table_is_markdown() -> None:
    """Each line begins and ends with a bar, and a rule follows the head."""
    assert markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"


def test_the_table_of_ratios_says_what_was_not_reached() -> None:
    """Beside each ratio stands what it must be and whether it is."""
    table = ratios_table(ratios({"a": [3.0], "b": [4.0]}, [HALF]))

    assert table.splitlines()[2] == (
        "| ours | **0.75** | 0.75 to 0.75 | at most 0.50 | no |"
    )


def test_the_table_of_results_has_medians_of_time_and_peaks_of_memory() -> None:
    """Memory is the highest of all rounds: a limit that is met once is met."""
    runs = [measured(1, 9, 2), measured(3, 5, 8), measured(2, 5, 3)]
    result = Result(name="x", what="does", rounds=runs, result_bytes=1_500_000)

    assert results_table([result]).splitlines()[2] == (
        "| x | does | 2.00 | 4.00 | 1.00 | 9 | 8 | 1.5 |"
    )


def test_the_table_of_results_names_what_was_not_run() -> None:
    """An alternative that is missing stands in the table with its reason."""
    result = Result(name="x", what="does", missing="no x\n| here")

    assert results_table([result]).splitlines()[2] == (
        "| x | does | not run: no x / here |  |  |  |  |  |"
    )


def test_bars_are_as_long_as_their_times_and_the_longest_is_first() -> None:
    """The picture is well-formed, and its lengths have the ratio of the times."""
    root = ElementTree.fromstring(bars("A & B", {"opskit": 1.0, "other <1>": 4.0}))

    widths = [float(each.attrib["width"]) for each in root.findall(f"{_SVG}rect")[1:]]
    words = [each.text for each in root.findall(f"{_SVG}text")]

    assert widths == [600.0, 150.0]
    assert words == ["A & B", "other <1>", "4.00 s", "opskit", "1.00 s"]


def test_a_power_is_drawn_as_a_straight_line() -> None:
    """Both axes are logarithmic, so that an exponent can be seen as a slope."""
    points = [(1.0, 1.0), (10.0, 100.0), (100.0, 10_000.0)]
    root = ElementTree.fromstring(curves("Growth", "MB", {"square": points}))

    line = root.findall(f"{_SVG}polyline")[0].attrib["points"]
    places = [tuple(map(float, each.split(","))) for each in line.split()]

    assert places == [(70.0, 400.0), (375.0, 225.0), (680.0, 50.0)]


def test_a_dashed_line_is_drawn_over_the_line_of_its_name() -> None:
    """On the same axes, which are long enough for both, and with another unit."""
    lines = {"a": [(1.0, 100.0), (100.0, 100.0)], "b": [(1.0, 1_000.0)]}
    dashed = {"a": [(1.0, 10.0), (100.0, 10.0)]}
    root = ElementTree.fromstring(curves("Rate", "workers", lines, dashed, unit="/s"))

    drawn = root.findall(f"{_SVG}polyline")
    words = [each.text for each in root.findall(f"{_SVG}text")]

    assert [each.attrib["points"] for each in drawn] == [
        "70.0,225.0 680.0,225.0",
        "70.0,400.0 680.0,400.0",
        "70.0,50.0",
    ]
    assert ["stroke-dasharray" in each.attrib for each in drawn] == [False, True, False]
    assert {"10/s", "100/s", "1,000/s"} <= set(words)


def test_one_point_can_be_drawn() -> None:
    """A curve of one measurement is a point and no division by zero."""
    root = ElementTree.fromstring(curves("Growth", "MB", {"single": [(5.0, 2.0)]}))

    assert len(root.findall(f"{_SVG}circle")) == 1


def test_the_seconds_of_a_backup_lie_on_what_was_recorded() -> None:
    """On a line between two sizes, and on the last one beyond the largest."""
    curve = [(20.0, 1.0), (100.0, 2.0), (200.0, 6.0)]

    found = [seconds_of(size, curve) for size in (5, 20, 60, 100, 150, 200, 1_000)]

    assert found == [1.0, 1.0, 1.5, 2.0, 4.0, 6.0, 38.0]
    assert [size for size, _ in recorded()] == [20, 100, 500, 2_000]


def test_a_night_ends_no_earlier_than_it_can() -> None:
    """One worker needs the sum in any order; more of them gain by the longest first."""
    alone = night(200, 1, recorded(), Random("a night"))
    many = night(200, 8, recorded(), Random("a night"))

    assert alone.longest_first == pytest.approx(alone.at_least)
    assert alone.by_name == pytest.approx(alone.at_least)
    assert many.at_least <= many.longest_first < many.by_name
    assert many.longest_first < 1.1 * many.at_least


def test_what_a_fleet_took_is_shown_for_each_job() -> None:
    """Rates beside what they may be, and the processors' time, which load does not change."""
    took = fleet.Took(seconds=10.0, cpu_seconds=1.0, server_cpu_seconds=4.0)
    waits = {
        kind: dict.fromkeys(fleet.WORKERS, took.of_each(jobs))
        for kind, jobs in (("jobs that do nothing", 200), ("jobs of five seconds", 20))
    }

    part = fleet.part(waits, {"ms": 1.0})

    assert "| 1 | 20 | 5 | 20 | 2.0 | **2.50** |" in part.text
    assert "| 16 | 20 | 5 | 20 | 2.0 | **0.16** |" in part.text
    assert "| ms | 1.00 |" in part.text
    assert "stroke-dasharray" in part.pictures["fleet"]


def test_the_slowest_stage_is_the_limit() -> None:
    """Stages run beside each other: the slowest one sets the pace."""
    found = limit([stage("dump", 100), stage("zip", 50)], cores=8, streams=1)

    assert (found.name, found.mb_per_second) == ("zip", 50)
    assert found.minutes_a_terabyte == pytest.approx(333.3, abs=0.1)


def test_streams_multiply_what_is_not_shared() -> None:
    """With four dumps at once the disk, which all of them share, is the limit."""
    stages = [stage("dump", 100), stage("disk", 250, at_once=0)]

    found = limit(stages, cores=8, streams=4)

    assert (found.name, found.mb_per_second) == ("disk", 250)


def test_too_few_processors_are_the_limit() -> None:
    """Two stages that each keep a processor busy cannot both run on one."""
    stages = [stage("dump", 100, cores=1), stage("zip", 100, cores=1)]

    found = limit(stages, cores=1, streams=1)

    assert (found.name, found.mb_per_second) == ("all processors busy", 50)


def test_a_run_tells_the_time_and_memory_of_all_its_processes(tmp_path: Path) -> None:
    """Memory that a child holds is the tree's, and not the first process's own."""
    child = "x = b'x' * 50_000_000; import time; time.sleep(4)"

    found = run_shell(f'{sys.executable} -c "{child}"; echo done', tmp_path)

    assert found.output == "done\n"
    assert found.seconds > 0.5
    assert found.cpu_seconds > 0
    assert found.peak_bytes > 50_000_000 > found.own_peak_bytes > 0


def test_the_memory_of_a_server_counts_where_it_is_its_own(tmp_path: Path) -> None:
    """A server that restores is part of the restore, though it ran before."""
    held = "x = b'x' * 50_000_000; print(flush=True); input()"
    server = subprocess.Popen(
        [sys.executable, "-c", held], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with server:
        assert server.stdout is not None
        server.stdout.readline()
        found = measure.run(
            ["true"], folder=tmp_path, environment={}, timeout_seconds=30,
            own_servers=[server.pid],
        )  # fmt: skip
        server.communicate(b"\n")

    assert found.peak_bytes > 50_000_000


def test_a_command_that_fails_has_no_time(tmp_path: Path) -> None:
    """Its exit code and its words are told instead."""
    with pytest.raises(ContenderFailed, match=r"^exit code 3 after \d+ s: sorry"):
        run_shell("echo sorry >&2; exit 3", tmp_path)


def test_a_command_that_takes_too_long_is_ended_with_all_its_processes(
    tmp_path: Path,
) -> None:
    """Nothing of it goes on beside the next contender."""
    sign = tmp_path / "pid"
    for seconds in (2, 10, 50):  # it must have begun
        with pytest.raises(ContenderFailed, match=f"^it took longer than {seconds} s$"):
            run_shell("sleep 90 & echo $! >pid; sleep 90", tmp_path, seconds)
        if sign.exists():
            break

    command_line_of_it = Path(f"/proc/{sign.read_text().strip()}/cmdline")
    until = time.monotonic() + 60  # it was told to end; a busy machine takes its time
    with suppress(FileNotFoundError):  # a dead one that nobody waited for has none
        while command_line_of_it.read_bytes() != b"":
            assert time.monotonic() < until
            time.sleep(0.01)


def test_a_command_that_takes_too_long_may_tidy_up(tmp_path: Path) -> None:
    """It is asked to end before it is made to: opskit ends its own server then."""
    with pytest.raises(ContenderFailed):
        run_shell("trap 'echo >tidied; exit 1' TERM; sleep 60 & wait", tmp_path, 5)

    assert (tmp_path / "tidied").exists()


def test_heavy_imports_are_found_in_the_report_of_the_interpreter() -> None:
    """A part of a package counts as the package, one that sounds alike does not."""
    times = (
        "import time: self [us] | cumulative | imported package\n"
        "import time:       110 |        220 |   boto3.session\n"
        "import time:       110 |        220 | alembicish\n"
    )

    assert listing.heavy_imports(times) == ["boto3"]


def test_the_part_of_a_document_is_replaced_and_the_rest_kept() -> None:
    """Backslashes come through; other parts and the words around stay."""
    text = "a\n<!-- s3 -->\nold\n<!-- end of s3 -->\nb\n"

    changed = report.with_part(text, "s3", r"new \1")

    assert changed == "a\n<!-- s3 -->\n\nnew \\1\n<!-- end of s3 -->\nb\n"


def test_a_part_without_a_place_is_refused() -> None:
    """Results that nobody would see are an error."""
    with pytest.raises(ValueError, match="no place for s3"):
        report.with_part("nothing", "s3", "new")


def test_the_readme_has_a_place_for_every_part() -> None:
    """Whatever can be measured can be written down."""
    text = README.read_text(encoding="utf-8")
    places = re.findall(r"^<!-- (?!end of)(\S+) -->$", text, re.MULTILINE)

    assert set(places) == set(command_line.PARTS)
    for name in places:
        assert f"<!-- end of {name} -->" in text


def test_every_part_is_a_function_with_its_name() -> None:
    """The names of the command line are those of the code."""
    named = {name: getattr(parts, name, None) for name in command_line.PARTS}
    named["list"] = parts.listing

    assert named == command_line.PARTS


def test_sizes_are_words_or_megabytes(tmp_path: Path) -> None:
    """The large size is 2,000 MB, and memory is measured at ten times the size too."""
    wanted = command_line.parse(["--size", "large", "--out", str(tmp_path)])
    exact = command_line.parse(["--size", "7", "--out", str(tmp_path)])

    assert wanted.options.size_mb == 2000
    assert exact.options.memory_sizes_mb == [7, 70]


@pytest.mark.parametrize(
    "arguments",
    [["--size", "huge"], ["--parts", "backup,x"], ["--rounds", "0"], ["--size", "-1"]],
)
def test_a_wrong_call_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends with 2 before anything is built, and says why."""
    with pytest.raises(SystemExit) as ended:
        command_line.parse(arguments)

    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_the_phases_that_a_drill_tells_are_shown_as_medians() -> None:
    """What opskit prints of its phases is told, what another prints is not."""
    told = [
        Measured(**{**vars(measured()), "output": f'{{"phases": {{"load": {n}}}}}'})
        for n in (1.0, 9.0, 2.0)
    ]
    ours = Result(name="x", what="does", rounds=told)
    other = Result(name="y", what="does", rounds=[measured()])

    assert phases_table(ours) == (
        "\n| phase of x | seconds |\n| --- | --- |\n| load | 2.00 |\n"
    )
    assert phases_table(other) == ""
    assert "output" not in str(ours.as_data())


def test_what_was_measured_is_written_for_people_and_for_programs(
    tmp_path: Path,
) -> None:
    """The whole has headings; a part goes below one that the README has already."""
    options = command_line.parse(["--size", "7", "--out", str(tmp_path)]).options
    part = Part(
        name="s3", text="## To S3\n\nwords\n", pictures={"s3": "<svg/>"}, data=[1]
    )

    report.write(tmp_path, options, [part])

    assert (tmp_path / "results.md").read_text().startswith("## To S3\n\nwords\n")
    assert (
        (tmp_path / "s3.md")
        .read_text()
        .startswith("words\n\n![s3](results/s3.svg)\n\n*Measured on 20")
    )
    assert json.loads((tmp_path / "s3.json").read_text())["s3"] == [1]
    assert (tmp_path / "s3.svg").read_text() == "<svg/>"
