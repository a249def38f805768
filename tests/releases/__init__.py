"""Releases of the example service, good and bad ones, under a client that writes."""

from __future__ import annotations
