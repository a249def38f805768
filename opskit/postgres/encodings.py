"""PostgreSQL's names of encodings, and Python's codecs for them."""

from __future__ import annotations

_CODECS = {
    "SQL_ASCII": "latin-1",
    "UTF8": "utf-8",
    "KOI8R": "koi8-r",
    "KOI8U": "koi8-u",
    "EUC_JP": "euc_jp",
    "EUC_KR": "euc_kr",
    "EUC_CN": "gb2312",
    "EUC_JIS_2004": "euc_jis_2004",
    "LATIN1": "latin-1",
    "LATIN6": "iso8859-10",
    "LATIN7": "iso8859-13",
    "LATIN8": "iso8859-14",
    "LATIN9": "iso8859-15",
    "LATIN10": "iso8859-16",
    "LATIN5": "iso8859-9",
    "WIN866": "cp866",
    "WIN874": "cp874",
    "JOHAB": "johab",
    # Python has no codec for these; what is not ASCII is escaped.
    "EUC_TW": "utf-8",
    "MULE_INTERNAL": "utf-8",
}


def python_codec(encoding: str) -> str:
    """Return the codec that reads text of a PostgreSQL server encoding.

    Callers decode with `surrogateescape`, so that bytes which no codec knows survive.

    Raises:
        LookupError: PostgreSQL has no such server encoding.
    """
    if encoding in _CODECS:
        return _CODECS[encoding]
    for prefix, codec in (
        ("WIN125", "cp125"),
        ("LATIN", "latin"),
        ("ISO_8859_", "iso8859-"),
    ):
        if encoding.startswith(prefix):
            return codec + encoding.removeprefix(prefix)
    raise LookupError(f"the encoding {encoding} is not known")
