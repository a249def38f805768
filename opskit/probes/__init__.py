"""Probes: questions that a live service must answer right."""

from __future__ import annotations
