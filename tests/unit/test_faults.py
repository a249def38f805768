"""Which errors are faults of the server or its machine."""

from __future__ import annotations

import pytest

from opskit.postgres.connect import is_server_fault


@pytest.mark.parametrize(
    ("sqlstate", "source_file"),
    [
        ("53100", "md.c"),
        ("53200", "mcxt.c"),
        ("53300", "proc.c"),
        ("57P01", "postgres.c"),
        ("58030", "md.c"),
        ("08006", "pqcomm.c"),
        ("53100", ""),
    ],
)
def test_a_machine_that_fails_is_known_by_its_code(
    sqlstate: str, source_file: str
) -> None:
    assert is_server_fault(sqlstate, source_file)


@pytest.mark.parametrize(
    ("sqlstate", "source_file"),
    [
        ("23514", "execMain.c"),
        ("P0001", "pl_exec.c"),
        ("57014", "postgres.c"),
        ("53100", "pl_exec.c"),
        ("57P01", "plpy_elog.c"),
        ("58030", "plperl.c"),
        ("", ""),
    ],
)
def test_what_is_refused_or_raised_by_a_function_is_no_fault_of_the_machine(
    sqlstate: str, source_file: str
) -> None:
    assert not is_server_fault(sqlstate, source_file)
