"""Policy: what a Content-Security-Policy leaves open to an attacker."""

from __future__ import annotations

from collections.abc import Collection, Iterator

# Sources that stand for any server, or for text that an attacker writes.
_SCHEMES = (
    "ftp:",
    "http:",
    "https:",
    "http://*",
    "http://*.*",
    "https://*",
    "https://*.*",
)
_BROAD = {"*", "data:", *_SCHEMES}
_NONCES = ("'nonce-", "'sha256-", "'sha384-", "'sha512-")
_INLINE, _EVAL, _DYNAMIC = "'unsafe-inline'", "'unsafe-eval'", "'strict-dynamic'"
_SCRIPTS = ("script-src", "script-src-elem", "script-src-attr")
# What is loaded from there is shown, not run.
_PASSIVE = ("img-src", "media-src")


def weaknesses(headers: Collection[str], wanted: Collection[str]) -> set[str]:
    """Return what the policies leave open; `wanted` are directives that must be safe.

    A browser obeys all of them, so that only what each leaves open is open.
    """
    policies = [policy for header in headers for policy in header.split(",")]
    if not policies:
        return {"there is no policy"}
    return set.intersection(*(set(_of_one(policy, wanted)) for policy in policies))


def _of_one(policy: str, wanted: Collection[str]) -> Iterator[str]:
    directives: dict[str, list[str]] = {}
    for part in filter(None, map(str.split, policy.split(";"))):
        name, *sources = (word.lower() for word in part)
        if name in directives and not name.startswith("report-"):
            yield f"{name} is there twice, and only the first counts"
        directives.setdefault(name, sources)
    for name in wanted:
        fallback = directives.get("default-src") if name.endswith("-src") else None
        if (found := directives.get(name, fallback)) is None:
            yield f"{name} is missing"
        else:
            yield from (f"{name} allows {each}" for each in _unsafe(name, found))
    for name in set(directives).intersection(_SCRIPTS[1:]):
        yield from (f"{name} allows {each}" for each in _unsafe(name, directives[name]))
    for name in set(directives).difference(_PASSIVE):
        for source in directives[name]:
            if source.startswith(("http:", "ftp:")):
                yield f"{name} allows {source}"


def _unsafe(name: str, sources: list[str]) -> list[str]:
    """Return the sources that are; as browsers do, without those that others undo."""
    unsafe = _BROAD.intersection(sources)
    if not name.startswith(("script-src", "style-src")):
        return sorted(unsafe)
    has_nonce = any(source.startswith(_NONCES) for source in sources)
    if has_nonce and _DYNAMIC in sources:
        unsafe = set()
    if not has_nonce:
        unsafe.update({_INLINE}.intersection(sources))
    return sorted(unsafe.union({_EVAL}.intersection(sources)))
