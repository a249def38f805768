"""Plants damage in a restored copy, to see that the comparison notices it."""

from __future__ import annotations

from opskit.drill.mutants.report import Mutant, MutantReport
from opskit.mutants.planting import plant

__all__ = ["Mutant", "MutantReport", "plant"]
