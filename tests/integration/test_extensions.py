"""What belongs to extensions: named where no dump holds it, and no reason for alarm."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from opskit.checks import Health
from opskit.doctor import databases
from opskit.postgres import beyond_dumps
from opskit.postgres.connect import connect
from opskit.postgres.parameters import parse
from opskit.postgres.servers import programs, throwaway
from opskit.postgres.servers.throwaway import Server
from tests.conftest import MajorServer
from tests.integration.test_false_alarms import create
from tests.kinds.installation import with_extension
from tests.support import back_up, execute, failed, run_drill, sets

# By what was done: the statements, and the names of what no dump holds.
LOST = {
    "a table was put into an extension": (
        """
        CREATE TABLE public.mine (id int PRIMARY KEY, note text);
        INSERT INTO public.mine VALUES (1, 'kept nowhere');
        ALTER EXTENSION citext ADD TABLE public.mine;
        CREATE INDEX mine_note ON public.mine (note)
        """,
        ["table public.mine"],
    ),
    "a table with rows was put into one by the transaction that made it": (
        """
        BEGIN; CREATE TABLE public.whole (id int); INSERT INTO public.whole VALUES (1);
        ALTER EXTENSION citext ADD TABLE public.whole; COMMIT
        """,
        ["table public.whole"],
    ),
    "a view was put into one": (
        "CREATE VIEW public.seen AS SELECT 1 AS a; "
        "ALTER EXTENSION citext ADD VIEW public.seen",
        ["view public.seen"],
    ),
    "a sequence was put into one and used": (
        "CREATE SEQUENCE public.counter; SELECT nextval('public.counter'); "
        "ALTER EXTENSION citext ADD SEQUENCE public.counter",
        ["sequence public.counter"],
    ),
    "functions were altered and put into one": (
        """
        ALTER FUNCTION public.citext_cmp(public.citext, public.citext)
            SET search_path = public;
        CREATE FUNCTION public.answer() RETURNS int LANGUAGE sql AS 'SELECT 42';
        ALTER EXTENSION citext ADD FUNCTION public.answer()
        """,
        ["public.citext_cmp(public.citext,public.citext)", "function public.answer()"],
    ),
    "a comment was put on a member": (
        "COMMENT ON FUNCTION public.citext_eq(public.citext, public.citext) IS 'mine'",
        ["changes of function public.citext_eq(public.citext,public.citext)"],
    ),
    "a member was handed to another role": (
        "ALTER FUNCTION public.citext_ne(public.citext, public.citext) OWNER TO handed",
        ["owner of function public.citext_ne(public.citext,public.citext)"],
    ),
    "default privileges were there first": (
        """
        ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO handed;
        CREATE EXTENSION pg_stat_statements SCHEMA public
        """,
        ["grants to handed on view public.pg_stat_statements"],
    ),
}
_ROLE = """
    DO $$ BEGIN CREATE ROLE handed; EXCEPTION WHEN duplicate_object THEN END $$;
    CREATE EXTENSION citext SCHEMA public;
"""


@pytest.mark.parametrize("kind", LOST)
def test_what_an_extension_keeps_out_of_the_dump_is_named_everywhere(
    kind: str, server_of: MajorServer, store_dir: Path
) -> None:
    """By the backup's warnings, by what the drill did not check, and by doctor."""
    script, names = LOST[kind]
    url = create(server_of(15), "belongs", _ROLE)
    execute(url, script)

    warnings = " ".join(back_up(url, store_dir).manifest.warnings)
    examined = databases.examine("shop", url, programs.installations())
    evidence = run_drill(sets(store_dir)[0])

    (by_day,) = (each for each in examined.checks if "no dump holds" in each.name)
    unmade = " ".join(each.name for each in evidence.not_checked)
    assert by_day.status is Health.DEGRADED
    for name in names:
        assert name in warnings
        assert name in unmade
        assert name in by_day.observed
    assert failed(evidence) == []


def test_extensions_as_their_scripts_made_them_lose_nothing(
    server_of: MajorServer, store_dir: Path
) -> None:
    """Grants that were made later are in the dump; so is another schema."""
    url = create(
        server_of(15),
        "untouched",
        """
        DO $$ BEGIN CREATE ROLE handed; EXCEPTION WHEN duplicate_object THEN END $$;
        SET search_path = public; CREATE SCHEMA elsewhere; CREATE EXTENSION hstore;
        CREATE EXTENSION pgcrypto; CREATE EXTENSION pg_stat_statements;
        CREATE EXTENSION postgres_fdw;
        GRANT SELECT ON public.pg_stat_statements TO handed;
        REVOKE EXECUTE ON FUNCTION public.digest(text, text) FROM PUBLIC;
        ALTER EXTENSION hstore SET SCHEMA elsewhere
        """,
    )

    assert back_up(url, store_dir).manifest.warnings == ()


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose installation has the extension with configuration tables."""
    folder = tmp_path_factory.mktemp("extended")
    for each in (folder, *folder.parents[:2]):
        each.chmod(0o755)
    found = programs.find_server(programs.installations(), major=18)
    with throwaway.throwaway(with_extension(found, folder)) as running:
        yield running


ON_ITS_TABLES = {
    "INSERT INTO kinds_cache VALUES (1)": "rows of the table public.kinds_cache",
    "UPDATE kinds_partly SET value = 'mine' WHERE id = 1": (
        "changed rows of the table public.kinds_partly"
    ),
    "CREATE INDEX sought ON kinds_setting (value)": "index public.sought",
    "CREATE POLICY few ON kinds_setting USING (true)": (
        "policy few on public.kinds_setting, added to public.kinds_setting"
    ),
    "ALTER TABLE kinds_setting ADD CHECK (value <> 'x')": "table constraint",
    "ALTER TABLE kinds_setting ADD at date": "table column public.kinds_setting.at",
    "ALTER TABLE kinds_setting DROP value": "a dropped column, added to",
    "ALTER TABLE kinds_setting ENABLE ROW LEVEL SECURITY": "row security, added to",
    "CREATE PUBLICATION published FOR TABLE kinds_setting": "publication relation",
    "CREATE FUNCTION pg_catalog.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'": (
        "function pg_catalog.mine()"
    ),
    "CREATE TABLE information_schema.mine (a int)": "table information_schema.mine",
    "CREATE RULE no AS ON DELETE TO kinds_setting DO INSTEAD NOTHING": "rule",
    "CREATE TRIGGER t BEFORE DELETE ON kinds_setting FOR EACH ROW EXECUTE FUNCTION "
    "suppress_redundant_updates_trigger()": "trigger t on public.kinds_setting",
}


def _losses(running: Server, script: str) -> list[str]:
    """Return the names of what no dump of a database with the extension holds."""
    url = create(running, "extended", "CREATE EXTENSION kinds_config SCHEMA public;")
    execute(url, script)
    with connect(url, purpose="test") as connection:
        return [each.name for each in beyond_dumps.take(connection)]


@pytest.mark.parametrize("statement", ON_ITS_TABLES)
def test_what_is_done_to_an_extensions_table_is_named(
    statement: str, extended: Server
) -> None:
    """Rows that it does not mark, its own rows, and whatever was put on it."""
    (name,) = _losses(extended, statement.replace(" kinds", " public.kinds"))

    assert ON_ITS_TABLES[statement] in name


def test_rows_that_an_extension_marks_are_no_loss(extended: Server) -> None:
    """They are in the dump, as are values of its sequences."""
    script = """
        INSERT INTO public.kinds_setting VALUES ('mine', 'kept');
        INSERT INTO public.kinds_partly VALUES (2000, 'kept');
        SELECT setval('public.kinds_numbers', 7);
        GRANT SELECT ON public.kinds_cache TO PUBLIC;
        ANALYZE; CHECKPOINT
    """

    assert _losses(extended, script) == []


SOUND = {
    "grants on what another role's extension holds": """
        SET ROLE handed; CREATE EXTENSION pgcrypto SCHEMA public;
        REVOKE EXECUTE ON FUNCTION public.digest(text, text) FROM PUBLIC
    """,
    "grants on members that were handed to another role": """
        ALTER FUNCTION public.citext_ne(public.citext, public.citext) OWNER TO handed;
        GRANT EXECUTE ON FUNCTION public.citext_ne(public.citext, public.citext)
            TO pg_monitor;
        REVOKE EXECUTE ON FUNCTION public.citext_ne(public.citext, public.citext)
            FROM PUBLIC
    """,
    "a grant of default privileges that was revoked": """
        ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO handed;
        CREATE EXTENSION pg_stat_statements SCHEMA public;
        REVOKE SELECT ON public.pg_stat_statements FROM handed
    """,
}
_MAY_CREATE = """
    DO $$ BEGIN CREATE ROLE handed; EXCEPTION WHEN duplicate_object THEN END $$;
    ALTER ROLE handed SUPERUSER; CREATE EXTENSION citext SCHEMA public;
"""


@pytest.mark.parametrize("kind", SOUND)
def test_grants_on_what_an_extension_holds_raise_no_alarm(
    kind: str, server_of: MajorServer, store_dir: Path
) -> None:
    """Nothing restores the owner, nor what default privileges once gave."""
    url = create(server_of(15), "granted", _MAY_CREATE)
    execute(url, SOUND[kind])
    back_up(url, store_dir)
    (chosen,) = sets(store_dir)

    assert failed(run_drill(chosen, jobs=2)) == []


def test_a_grant_on_what_an_extension_holds_that_is_gone_is_noticed(
    server_of: MajorServer, store_dir: Path
) -> None:
    """Whoever owns the function; the owner itself is named as not checked."""
    kind = "grants on what another role's extension holds"
    url = create(server_of(15), "granted", _MAY_CREATE)
    execute(url, SOUND[kind])
    back_up(url, store_dir)

    evidence = run_drill(
        sets(store_dir)[0],
        tamper=lambda copy: execute(
            copy, "GRANT EXECUTE ON FUNCTION public.digest(text, text) TO PUBLIC"
        ),
    )

    (check,) = (e for e in failed(evidence) if e.name.startswith("definition of"))
    assert check.name == "definition of ACL public.FUNCTION digest(text, text)"
    assert any("extension pgcrypto" in each.name for each in evidence.not_checked)


@contextmanager
def _listener() -> Iterator[tuple[int, list[int]]]:
    """Yield the port of a server that answers nothing, and who connected to it."""
    came: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, address = listening.accept()
                    came.append(address[1])
                    connection.close()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listening.getsockname()[1], came
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(10)


FAR = """
    SET search_path = public;
    CREATE EXTENSION postgres_fdw;
    CREATE FOREIGN DATA WRAPPER own HANDLER postgres_fdw_handler
        VALIDATOR postgres_fdw_validator;
    CREATE TABLE here AS SELECT 1 AS a;
    CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS ({options});
    CREATE SERVER farther FOREIGN DATA WRAPPER own OPTIONS ({options});
    CREATE USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (user '{user}');
    CREATE USER MAPPING FOR CURRENT_USER SERVER farther OPTIONS (user '{user}');
    CREATE FOREIGN TABLE there (a int) SERVER far OPTIONS (table_name 'here');
    CREATE FOREIGN TABLE yonder (a int) SERVER farther OPTIONS (table_name 'here');
    CREATE FUNCTION hidden() RETURNS bigint LANGUAGE plpgsql
        AS $$ BEGIN RETURN (SELECT count(*) FROM public.yonder); END $$;
    CREATE VIEW seen AS SELECT * FROM there;
"""
VIEWS = """
    CREATE MATERIALIZED VIEW public.plain AS SELECT * FROM public.there;
    CREATE UNIQUE INDEX ON public.plain (a);
    CREATE MATERIALIZED VIEW public.by_view AS SELECT * FROM public.seen;
    CREATE MATERIALIZED VIEW public.by_function AS SELECT public.hidden() AS n;
    CREATE MATERIALIZED VIEW public.by_another AS SELECT n FROM public.by_function;
    CREATE MATERIALIZED VIEW public.local AS SELECT a FROM public.here;
"""


def test_a_drill_connects_to_no_foreign_server(
    server_of: MajorServer, store_dir: Path
) -> None:
    """Views over foreign tables stay empty and are named; all else is compared."""
    running = server_of(15)
    url = create(running, "far", "")
    where = parse(running.url("far"))
    place = f"host '{where['host']}', port '{where['port']}', dbname 'far'"
    execute(url, FAR.format(options=place, user=where["user"]))
    execute(url, VIEWS)
    with _listener() as (port, came):
        for name in ("far", "farther"):
            execute(
                url,
                f"ALTER SERVER {name} OPTIONS (SET host '127.0.0.1', SET port '{port}')",
            )
        back_up(url, store_dir)

        evidence = run_drill(
            sets(store_dir)[0],
            kind="existing",
            existing_url=running.url(),
            on_source_server=True,
        )

    assert failed(evidence) == []
    assert came == []
    views = [e.name for e in evidence.not_checked if e.name.startswith("MATERIALIZED")]
    assert sorted(views) == [
        f"MATERIALIZED VIEW DATA public.{name}"
        for name in ("by_another", "by_function", "by_view", "plain")
    ]
