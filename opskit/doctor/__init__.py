"""Examines what a night's backup and a drill of it will need, before they do."""

from __future__ import annotations
