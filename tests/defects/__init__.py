"""Ways to break the example service, each noticed by a probe."""

from __future__ import annotations
