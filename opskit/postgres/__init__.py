"""Everything that speaks to a PostgreSQL server or its programs."""

from __future__ import annotations
