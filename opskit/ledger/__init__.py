"""The record of every run: chained lines in a file, and their copies in the stores."""

from __future__ import annotations

from opskit.ledger.ledger import Ledger, LedgerEntry

__all__ = ["Ledger", "LedgerEntry"]
