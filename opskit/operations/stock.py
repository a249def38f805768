"""The configured stores, and the sets that lie in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from opskit import log
from opskit.catalog import catalog, listing
from opskit.catalog.cache import CatalogCache
from opskit.catalog.catalog import Catalog
from opskit.catalog.listing import Listing
from opskit.config import Settings
from opskit.errors import ConfigurationError
from opskit.operations import keys
from opskit.store import Store, open_store

_Found = TypeVar("_Found", Catalog, Listing)


@dataclass(frozen=True)
class Stock:
    """What the settings name, opened when it is first asked for."""

    settings: Settings

    @cached_property
    def stores(self) -> list[Store]:
        """Every configured store, the nearest first: folders, then what is remote.

        Raises:
            ConfigurationError: there is none.
        """
        if not self.settings.stores:
            raise ConfigurationError(
                "no store is configured",
                hint='Add one: [stores.local] with url = "file:///var/backups/opskit".',
            )
        nearest_first = sorted(
            self.settings.stores.items(),
            key=lambda item: not item[1].url.startswith("file:"),
        )
        return [open_store(name, each) for name, each in nearest_first]

    @property
    def state_dir(self) -> Path:
        """Where locks, the ledger and reports lie."""
        return self.settings.state_dir

    def listing(self, source: str | None = None, *, whole: bool = False) -> Listing:
        """List the stores, with what was seen of them before; else like `catalog`.

        To show, to plan and to choose by; what is chosen is read from the stores.

        Raises:
            StoreError: no store can be reached, or with `whole` not every one.
        """
        found = listing.read(
            self.stores,
            source=source,
            trust=keys.trust(self.settings),
            caches=self._caches,
        )
        return self._told(found, whole=whole)

    def catalog(self, source: str | None = None, *, whole: bool = False) -> Catalog:
        """Read the stores; warn of every store and manifest that cannot be used.

        Raises:
            StoreError: no store can be reached, or with `whole` not every one.
        """
        return self._told(self._read_catalog(self.stores, source), whole=whole)

    def catalog_of(self, store: Store) -> Catalog:
        """Read one store.

        Raises:
            StoreError: it cannot be reached.
        """
        return self._read_catalog([store], None)

    def _read_catalog(self, stores: Sequence[Store], source: str | None) -> Catalog:
        return catalog.read(stores, source=source, trust=keys.trust(self.settings))

    @cached_property
    def _caches(self) -> dict[str, CatalogCache]:
        folder = self.state_dir / "catalog-cache"
        return {
            name: CatalogCache(folder, store=(name, each.url, each.endpoint_url))
            for name, each in self.settings.stores.items()
        }

    @staticmethod
    def _told(found: _Found, *, whole: bool) -> _Found:
        for error in found.unreachable:
            if whole:
                raise error
            log.logger().error("a store cannot be reached", error=error.message)
        for bad in found.unreadable:
            log.logger().warning(
                "a backup set cannot be used",
                store=bad.store,
                key=bad.key,
                reason=bad.reason,
            )
        return found
