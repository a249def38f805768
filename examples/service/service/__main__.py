"""The command line: `python -m service serve`, and what is done beside serving."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from service import (
    accounts,
    audit,
    imports,
    keys,
    logs,
    migrations,
    server,
    settings,
    tokens,
    uploads,
)
from service.accounts import Role
from service.database import Connection, Database
from service.settings import Settings
from service.workers import AWAY

Result = TypeVar("Result")


def main() -> None:
    """Run one command."""
    given = _arguments()
    if given.command == "env-example":
        print(settings.example(), end="")
        return
    try:
        configured = Settings()
    except ValidationError as error:
        sys.exit(f"the settings are not right: {error}")
    logs.configure(configured.log_level)
    if given.command == "serve":
        server.serve(configured, given.port)
    elif given.command == "import-json":
        _import_json(configured, given.file)
    elif given.command == "work":
        state = uploads.state_file(configured)
        sys.exit(_connected(configured, lambda it: uploads.work(it, state, given.id)))
    elif given.command == "migrate":
        migrations.upgrade()
    elif given.command == "create-key":
        print(_in_transaction(configured, lambda it: _key(it, given)))
    elif given.command == "create-token":
        if configured.jwt_secret is None:
            sys.exit("there is nothing to sign with: set SERVICE_JWT_SECRET")
        lifetime = timedelta(minutes=given.minutes)
        print(tokens.create(configured, given.name, lifetime))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m service", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="answer requests until a signal comes")
    serve.add_argument("--port", type=int, default=8000)
    commands.add_parser("migrate", help="bring the database's schema up to date")
    key = commands.add_parser("create-key", help="make a key, and print it once")
    key.add_argument("name", help="of the account, which is made if there is none")
    key.add_argument("--role", type=Role, choices=list(Role), default=Role.READER)
    key.add_argument(
        "--rate-limit", type=settings.rate_text, help="its own, such as 20/minute"
    )
    token = commands.add_parser("create-token", help="print a JSON Web Token")
    token.add_argument("name", help="of an account")
    token.add_argument("--minutes", type=int, default=60)
    store = commands.add_parser("import-json", help="import tasks, all or none of them")
    store.add_argument("file", type=Path, help="whose records name their owners")
    work = commands.add_parser("work", help="what the service starts for an upload")
    work.add_argument("id", help="of the import; the file is standard input")
    commands.add_parser("env-example", help="print .env.example")
    return parser.parse_args()


async def _key(connection: Connection, given: argparse.Namespace) -> str:
    account = await accounts.ensure(connection, given.name, given.role)
    await audit.record(connection, account, "key.created", f"account:{account.name}")
    return await keys.create(connection, account.id, given.rate_limit)


def _import_json(configured: Settings, file: Path) -> None:
    try:
        done = _in_transaction(configured, lambda it: imports.from_file(it, file))
    except (imports.Refused, *AWAY) as error:
        sys.exit(f"nothing was imported: {error}")
    print(json.dumps(asdict(done)))


def _in_transaction(
    configured: Settings, work: Callable[[Connection], Awaitable[Result]]
) -> Result:
    async def run(database: Database) -> Result:
        async with database.transaction() as connection:
            return await work(connection)

    return _connected(configured, run)


def _connected(
    configured: Settings, work: Callable[[Database], Awaitable[Result]]
) -> Result:
    async def run() -> Result:
        database = Database(configured)
        await database.open()
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(run())


if __name__ == "__main__":
    main()
