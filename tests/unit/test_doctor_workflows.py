"""Doctor's look at the workflow of GitHub: a database must not be left out in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from opskit.checks import Check, Health
from opskit.config import Settings
from opskit.doctor.workflows import WORKFLOW, examine

ROOT = Path(__file__).resolve().parents[2]
GIVEN = (ROOT / "workflows" / "backup.yml").read_text()


def examined(folder: Path, text: str, settings: Settings) -> list[Check]:
    path = folder / WORKFLOW
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return list(examine(folder, settings))


def settings(*, beats: str = "", **databases: dict[str, str]) -> Settings:
    heartbeats = {beats: "https://hc.example/1"} if beats else {}
    return Settings.model_validate(
        {
            "databases": {
                name: {"url": "postgresql://db.example/x"} | more
                for name, more in databases.items()
            },
            "notify": {"heartbeats": heartbeats},
            "stores": {"offsite": {"url": "s3://acme/prod"}},
        }
    )


@pytest.mark.parametrize(
    "source",
    [
        "source: [shop, my_db] # all",
        "source: [\"shop\", 'my_db']",
        "source:\n          - shop # one\n          - my_db",
        "source: [\n          shop,\n          my_db,\n        ]",
    ],
)
def test_a_database_that_is_in_the_matrix_is_backed_up(
    tmp_path: Path, source: str
) -> None:
    """However the list is written."""
    text = GIVEN.replace("source: [shop]", source)

    databases, _store, beats = examined(
        tmp_path, text, settings(shop={}, my_db={}, beats="shop")
    )

    assert (databases.status, databases.observed) == (
        Health.HEALTHY,
        "it backs up shop, my_db",
    )
    assert beats.status is Health.HEALTHY
    assert beats.observed == "nobody notices when backups of my_db stop"
    assert "60 days" in beats.hint


def test_a_database_that_was_added_later_is_named(tmp_path: Path) -> None:
    """One without a schedule of its own; and one that is not configured any more."""
    configured = settings(crm={}, wiki={"schedule": "0 3 * * *"}, beats="crm")

    databases, *_others = examined(tmp_path, GIVEN, configured)

    assert databases.status is Health.DEGRADED
    assert databases.observed == "it does not back up crm; shop is not configured"
    assert databases.hint


def test_with_heartbeats_there_is_nothing_to_say(tmp_path: Path) -> None:
    """The file as it comes, for the database that it names."""
    found = examined(tmp_path, GIVEN, settings(shop={}, beats="shop"))

    assert [(e.status, e.hint) for e in found] == [(Health.HEALTHY, "")] * 3


def test_a_list_that_is_not_understood_is_not_taken_for_complete(
    tmp_path: Path,
) -> None:
    """It is said that nothing was compared."""
    text = GIVEN.replace(
        "source: [shop]", "source: ${{ fromJSON(needs.list.outputs.all) }}"
    )

    (found,) = examined(tmp_path, text, settings(shop={}))

    assert (found.passed, found.status) == (None, Health.DEGRADED)


def test_a_workflow_that_is_not_in_utf_8_is_read(tmp_path: Path) -> None:
    """A name in a comment may be in another encoding."""
    examined(tmp_path, GIVEN, settings(shop={}))
    path = tmp_path / WORKFLOW
    path.write_bytes(b"# J\xfcrgen\n" + path.read_bytes())

    databases, *_others = examine(tmp_path, settings(shop={}))

    assert databases.status == Health.HEALTHY


def test_without_the_workflow_nothing_is_said(tmp_path: Path) -> None:
    """Most users have none."""
    assert list(examine(tmp_path, settings(shop={}))) == []


def test_a_store_that_dies_with_the_machine_is_named(tmp_path: Path) -> None:
    """It is no fault on a runner of one's own, so only words."""
    given = settings(shop={}, beats="shop")
    folder = given.stores["offsite"].model_copy(update={"url": "file:///backups"})
    local = given.model_copy(update={"stores": {"local": folder}})

    _databases, store, _beats = examined(tmp_path, GIVEN, local)

    assert store.passed
    assert "GitHub deletes its machines" in store.observed
    assert store.hint


def test_a_matrix_from_the_configuration_leaves_out_nothing(tmp_path: Path) -> None:
    """As docs/fleet.md has it: also a database that was added later is in it."""
    text = GIVEN.replace(
        "source: [shop]", "${{ fromJSON(needs.databases.outputs.matrix) }}"
    ).replace("opskit github --secrets", "opskit fleet-manifests --github-matrix", 1)

    databases, *_others = examined(tmp_path, text, settings(crm={}, shop={}))

    assert databases.status is Health.HEALTHY
    assert databases.observed == "it backs up crm, shop"
