"""The record of every run: chained lines in a file, and their copies in the stores."""

from __future__ import annotations

from opskit.ledger.chain import LedgerEntry
from opskit.ledger.ledger import Ledger, Recovered

__all__ = ["Ledger", "LedgerEntry", "Recovered"]
