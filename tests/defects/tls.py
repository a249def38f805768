"""Defects of certificates and of what a server offers.

They are tried in `tests/unit/test_probes_tls.py`, on a server of its own: the example
service leaves TLS to what is in front of it.
"""

from __future__ import annotations

from tests.defects.defect import Defect

DEFECTS = tuple(
    Defect(name=name, what=what, probe=f"tls.{probe}")
    for name, probe, what in (
        (
            "no-intermediate-certificate",
            "chain",
            "The server sends its certificate without the one that signed it.",
        ),
        (
            "unknown-authority",
            "chain",
            "An authority that nobody trusts has signed it.",
        ),
        ("signed-by-itself", "chain", "The certificate has signed itself."),
        ("expired", "expiry", "The certificate has expired."),
        ("expires-soon", "expiry", "The certificate expires in ten days."),
        ("another-name", "names", "The certificate is of another name."),
        ("tls-1-0", "versions", "TLS 1.0 is spoken beside TLS 1.3."),
        ("tls-1-1", "versions", "TLS 1.1 is spoken beside TLS 1.3."),
    )
)
