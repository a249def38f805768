"""The tasks of opskit, and those for working on it; `./inv` runs this."""

from __future__ import annotations

from development.tasks import audit, bench, gamedays, test
from opskit.__main__ import main
from opskit.tasks import namespace

__all__ = ["namespace"]

namespace.add_task(test)
namespace.add_task(bench)
namespace.add_task(audit)
namespace.add_task(gamedays)

if __name__ == "__main__":
    main()
