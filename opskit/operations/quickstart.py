"""A first backup and drill on an embedded server, with data awkward on purpose."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opskit import config, files
from opskit.errors import ExtraMissing, UsageError
from opskit.operations.backup import BackedUp, back_up_source
from opskit.operations.drill import Drilled, RestoreDrillRequest, drill
from opskit.operations.first_releases import try_releases
from opskit.operations.outcome import Outcome
from opskit.operations.run import begin
from opskit.operations.steps import OnStep, Released
from opskit.postgres import database
from opskit.postgres.connect import connect, quoted
from opskit.postgres.servers.programs import (
    SERVER_PROGRAMS,
    Installation,
    installations,
)
from opskit.postgres.servers.throwaway import Server, throwaway

SOURCE = "sample"
DATABASE = "sample shop"  # a space: names are quoted everywhere or this fails

_SAMPLE = r"""
CREATE ROLE "sample-app" LOGIN;
CREATE SCHEMA shop AUTHORIZATION "sample-app";
CREATE TYPE shop.state AS ENUM ('new', 'paid', 'sent');
CREATE DOMAIN shop.price AS numeric(12, 2) CHECK (VALUE >= 0);
CREATE TABLE shop.customers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    "e-mail" text UNIQUE,
    tags text[] NOT NULL DEFAULT '{}',
    profile jsonb
);
CREATE TABLE shop.orders (
    id serial PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES shop.customers,
    state shop.state NOT NULL DEFAULT 'new',
    total shop.price NOT NULL,
    placed_at timestamptz NOT NULL
) ;
CREATE INDEX orders_open ON shop.orders (placed_at) WHERE state <> 'sent';
CREATE TABLE shop.measurements (at date NOT NULL, value double precision)
    PARTITION BY RANGE (at);
CREATE TABLE shop.measurements_2025 PARTITION OF shop.measurements
    FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE shop.measurements_rest PARTITION OF shop.measurements DEFAULT;
CREATE TABLE shop."odd ""values"" table" (
    n numeric, f double precision, t timestamptz, i interval, b bytea, r int4range,
    x text
);
CREATE TABLE shop.nothing_in_it ();
INSERT INTO shop.customers (name, "e-mail", tags, profile)
    SELECT 'Customer ' || i || E'\twith a tab,\na newline and \\.',
           'c' || i || '@shop.example', ARRAY['tag ' || i % 7, NULL],
           jsonb_build_object('n', i, 'ü', 'ß')
    FROM generate_series(1, 2000) i;
INSERT INTO shop.orders (customer_id, state, total, placed_at)
    SELECT 1 + i % 2000, (ARRAY['new', 'paid', 'sent']::shop.state[])[1 + i % 3],
           (i % 9973) / 7.0,
           timestamptz '2026-01-01 00:00:00+00' + i * interval '1 minute'
    FROM generate_series(1, 20000) i;
INSERT INTO shop.measurements
    SELECT date '2024-12-01' + i % 500, i / 3.0 FROM generate_series(1, 20000) i;
INSERT INTO shop."odd ""values"" table" VALUES
    ('NaN', '-Infinity', 'infinity', '-1 year 2 days 03:04:05.678', '\x00ff', '[1,5)',
     ''),
    (1e-20, '-0', '4713-01-01 00:00:00+00 BC', '0', '', 'empty', E'\\.'),
    (12345678901234567890.0123456789, 0.1, '294276-12-31 23:59:59+00', NULL, NULL,
     NULL, NULL);
SELECT lo_from_bytea(0, convert_to(repeat('large object ', 50000), 'UTF8'));
CREATE VIEW shop.open_orders AS
    SELECT o.id, c.name FROM shop.orders o JOIN shop.customers c ON c.id = o.customer_id
    WHERE o.state <> 'sent';
CREATE MATERIALIZED VIEW shop.totals AS
    SELECT customer_id, sum(total) AS total FROM shop.orders GROUP BY customer_id;
CREATE FUNCTION shop.touch() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN NEW.placed_at := coalesce(NEW.placed_at, now()); RETURN NEW; END $$;
CREATE TRIGGER orders_touch BEFORE INSERT ON shop.orders
    FOR EACH ROW EXECUTE FUNCTION shop.touch();
GRANT SELECT ON shop.orders TO "sample-app";
"""


@dataclass(frozen=True, kw_only=True)
class FirstProof:
    """The set of the sample, its drill, and the configuration to go on with.

    And the releases of its service, if they were tried.
    """

    backup: BackedUp
    drill: Drilled
    config: Path
    releases: Sequence[Released] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the contract."""
        releases = [each.as_json() for each in self.releases]
        return {
            "backup": self.backup.as_json(),
            "drill": self.drill.as_json(),
            "config": str(self.config),
            **({"releases": releases} if releases else {}),
        }


def quickstart(
    folder: Path,
    *,
    on_start: Callable[[Installation], None],
    on_done: Callable[[Outcome[Any]], object],
    releases: bool = False,
    on_version: Callable[[str], object] = lambda _words: None,
    on_step: OnStep = lambda _step: None,
) -> Outcome[Any]:
    """Boot a server with the sample, back it up into a folder, and drill the set.

    With `releases` a good and a bad release of a service follow. `on_done` gets the
    outcomes of the backup, the drill and the releases; the one that failed is returned.

    Raises:
        UsageError: the folder cannot be made.
        OpskitError: there is no server to start, or it does not start; or a release
            did not end as it must.
    """
    try:
        files.make_directories(folder)
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be made: {error.strerror}",
            hint="Run this in a folder that you may write to.",
        ) from error
    installation = choose(installations())
    on_start(installation)
    with throwaway(installation) as running:
        url = load_sample(running)
        path = write_configuration(folder, url, own_state=releases)
        run = begin(config.load(path))
        backed_up = back_up_source(run, SOURCE)
        on_done(backed_up)
        if backed_up.result is None:
            return backed_up
        backup_id = backed_up.result.manifest.backup_id
        drilled = drill(run, RestoreDrillRequest(backup=backup_id))
        on_done(drilled)
        if drilled.result is None or drilled.errors:
            return drilled
        released = (
            try_releases(
                path,
                source=SOURCE,
                url=url,
                on_version=on_version,
                on_step=on_step,
                on_done=on_done,
            )
            if releases
            else ()
        )
    proof = FirstProof(
        backup=backed_up.result, drill=drilled.result, config=path, releases=released
    )
    return Outcome(
        operation="quickstart",
        status="ok",
        run_id=run.run_id,
        started_at=backed_up.started_at,
        seconds=backed_up.seconds + drilled.seconds,
        subject=SOURCE,
        result=proof,
    )


def choose(available: list[Installation]) -> Installation:
    """Return the newest programs for the sample's server, embedded ones if possible.

    Raises:
        ExtraMissing: there are none.
    """
    servers = [each for each in available if each.has(SERVER_PROGRAMS)]
    if not servers:
        raise ExtraMissing("no PostgreSQL server programs were found", extra="embedded")
    return max(servers, key=lambda each: (each.embedded, each.major))


def load_sample(running: Server) -> str:
    """Create the sample database and return its URL."""
    with connect(running.url(), purpose="quickstart") as connection:
        database.run_script(connection, f"CREATE DATABASE {quoted(DATABASE)}")
    url = running.url(DATABASE)
    with connect(url, purpose="quickstart") as connection:
        database.run_script(connection, _SAMPLE)
    return url


def write_configuration(folder: Path, url: str, *, own_state: bool = False) -> Path:
    """Write the configuration of the quickstart and return its path.

    With a state folder of its own no earlier release is on record, which may have been
    interrupted and would have to be taken up first.
    """
    store = folder / "store"
    files.make_directories(store)
    state = tempfile.mkdtemp(prefix="state-", dir=folder) if own_state else ".opskit"
    path = folder / "opskit.toml"
    files.write_text(
        path,
        f"""\
# Written by `inv quickstart`. Its server is gone; the backup sets are not:
# ./inv --config {path} backups
state_dir = {_toml(state)}

[databases.{SOURCE}]
url = {_toml(url)}

[stores.local]
url = {_toml(store.as_uri())}
""",
    )
    return path


def _toml(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
