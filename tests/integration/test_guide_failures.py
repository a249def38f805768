"""RESTORE.md where one entry fails: its commands, run as written, bring the rows back."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from opskit.postgres.connect import connect
from opskit.postgres.parameters import parse
from opskit.postgres.servers import programs, throwaway
from tests import initialised
from tests.support import back_up, value

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeDatabase

SCRIPT = """
CREATE SCHEMA "e/x & t";
CREATE EXTENSION vector SCHEMA "e/x & t";
CREATE TABLE public.one (id int PRIMARY KEY);
CREATE TABLE public.orders (id int PRIMARY KEY, one int REFERENCES public.one,
    p "e/x & t".vector(2));
CREATE INDEX kept ON public.orders (one);
COMMENT ON TABLE public.orders IS 'kept too';
GRANT SELECT ON public.orders TO public;
INSERT INTO public.one VALUES (1), (2);
INSERT INTO public.orders VALUES (1, 1, '[1,2]'), (2, 2, '[1,2]');
CREATE FUNCTION public.noted() RETURNS trigger LANGUAGE plpgsql
    AS 'BEGIN RETURN new; END';
SET search_path = "e/x & t";
CREATE TRIGGER watch BEFORE UPDATE ON public.orders FOR EACH ROW
    WHEN (old.p IS DISTINCT FROM new.p) EXECUTE FUNCTION public.noted();
SET session_replication_role = replica;
DELETE FROM public.one WHERE id = 2;
"""


def _blocks(text: str) -> str:
    return "\n".join(re.findall(r"```sh\n(.*?)```", text, re.S))


@pytest.mark.parametrize("client", [16, 18])
def test_the_rows_come_back_by_stock_tools(
    make_database: MakeDatabase, store_dir: Path, client: int
) -> None:
    """What cannot be made is shown, and all the rest is there."""
    available = programs.installations()
    clients = [each for each in available if each.major == client]
    url = make_database(16, script=SCRIPT)
    manifest = back_up(url, store_dir, installations=clients).manifest
    name = parse(url)["dbname"]
    folder = store_dir / manifest.prefix
    guide = (folder / "RESTORE.md").read_text()
    before, _heading, rest = guide.partition("## 4. Restore")
    found = programs.find_server(available, major=16)

    with initialised.copied(), throwaway.throwaway(found) as fresh:

        def run(commands: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                ["bash", "-eo", "pipefail", "-c", commands],
                cwd=folder,
                env={
                    "PATH": f"{clients[0].bin_dir}:{os.environ['PATH']}",
                    "PGHOST": str(fresh.socket_dir),
                    "PGPORT": str(fresh.port),
                    "PGUSER": throwaway.SUPERUSER,
                },
                capture_output=True,
                text=True,
                check=False,
            )

        step_4 = rest.partition("## 5.")[0]
        assert run(_blocks(before + step_4)).returncode != 0
        finished = run(_blocks(rest.partition("## If one entry fails")[2]))
        assert finished.returncode == 0, finished.stderr
        copy = fresh.url(name)
        with connect(copy, purpose="test") as connection:
            constraints, triggers, indexes = (
                connection.execute(
                    """SELECT (SELECT count(*) FROM pg_constraint WHERE contype = 'f'),
                   (SELECT count(*) FROM pg_trigger WHERE tgname = 'watch'),
                   (SELECT count(*) FROM pg_class WHERE relname = 'kept')"""
                ).fetchone()
                or ()
            )
        rows = value(copy, "SELECT count(*) FROM public.orders")
        comment = "SELECT obj_description('public.orders'::regclass)"
        assert value(copy, comment) == "kept too"
        grant = "SELECT relacl::text FROM pg_class WHERE relname = 'orders'"
        assert "{=r/" in value(copy, grant) or ",=r/" in value(copy, grant)

    assert (rows, constraints, triggers, indexes) == (2, 0, 1, 1)
    assert "orders_one_fkey" in finished.stderr
