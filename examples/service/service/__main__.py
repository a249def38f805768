"""The command line: `python -m service serve`, and what is done beside serving."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from service import accounts, audit, keys, logs, migrations, server, settings, tokens
from service.accounts import Role
from service.database import Connection, Database
from service.settings import Settings

Result = TypeVar("Result")


def main() -> None:
    """Run one command."""
    given = _arguments()
    if given.command == "env-example":
        print(settings.example(), end="")
        return
    configured = Settings()
    logs.configure(configured.log_level)
    if given.command == "serve":
        server.serve(configured, given.port)
    elif given.command == "migrate":
        migrations.upgrade()
    elif given.command == "create-key":
        print(_in_transaction(configured, lambda it: _key(it, given.name, given.role)))
    elif given.command == "create-token":
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
    token = commands.add_parser("create-token", help="print a JSON Web Token")
    token.add_argument("name", help="of an account")
    token.add_argument("--minutes", type=int, default=60)
    commands.add_parser("env-example", help="print .env.example")
    return parser.parse_args()


async def _key(connection: Connection, name: str, role: Role) -> str:
    account = await accounts.ensure(connection, name, role)
    await audit.record(connection, account, "key.created", f"account:{name}")
    return await keys.create(connection, account.id)


def _in_transaction(
    configured: Settings, work: Callable[[Connection], Awaitable[Result]]
) -> Result:
    async def run() -> Result:
        database = Database(configured)
        await database.open()
        try:
            async with database.transaction() as connection:
                return await work(connection)
        finally:
            await database.close()

    return asyncio.run(run())


if __name__ == "__main__":
    main()
