"""TLS: the certificate, the chain that it hangs on, and the protocol's versions."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from opskit.checks import Check, duration
from opskit.config.probes import TlsSettings
from opskit.config.smoke import SmokeSettings
from opskit.probes.probe import Inconclusive, Probe, faultless
from opskit.probes.session import Session

_OLD = {"TLS 1.0": ssl.TLSVersion.TLSv1, "TLS 1.1": ssl.TLSVersion.TLSv1_1}
# OpenSSL's verdicts on a certificate's dates, and on its names.
_NOT_YET_VALID, _EXPIRED, _NAME, _ADDRESS = 9, 10, 62, 64


def probes(settings: SmokeSettings) -> Iterator[Probe]:
    """Yield the probes, where the address is https."""
    if not settings.url.startswith("https:"):
        return
    rules = settings.tls
    yield Probe(
        name="tls.chain",
        ask=lambda session: _chain(session, rules),
        what="Verifies the certificate as a client does that has seen none before.",
        why="Browsers fetch or remember a missing intermediate certificate; programs "
        "refuse the service.",
        remedy="Let the server send the certificate and all intermediate ones "
        "(`fullchain.pem`). For authorities of your own, set `smoke.tls.ca_file`.",
        versionless=True,
    )
    yield Probe(
        name="tls.expiry",
        ask=lambda session: _expiry(session, rules.valid_for, time.time),
        what="Reads how long the certificate is still valid.",
        why="A renewal that fails is not noticed before the certificate expires, and "
        "then everything fails.",
        remedy="Renew the certificate, let the server read it again, and see why the "
        "timer did not do so.",
        versionless=True,
    )
    yield Probe(
        name="tls.names",
        ask=lambda session: _names(session, rules.names),
        what="Compares the certificate's names with the address and `smoke.tls.names`.",
        why="Clients refuse a certificate of another name.",
        remedy="Order the certificate with each name as a subject alternative name.",
        versionless=True,
    )
    yield Probe(
        name="tls.versions",
        ask=_versions,
        what="Offers TLS 1.0 and 1.1 alone, which must be refused, then newer ones.",
        why="The old versions have known holes, and RFC 8996 forbids them.",
        remedy="In nginx, set `ssl_protocols TLSv1.2 TLSv1.3`.",
        versionless=True,
    )


def _chain(session: Session, rules: TlsSettings) -> Check:
    try:
        context = ssl.create_default_context(cafile=rules.ca_file)
    except OSError as error:
        raise Inconclusive(f"{rules.ca_file} cannot be read") from error
    context.check_hostname = False
    fault = _verified(session, context)
    return faultless("a chain that is trusted", [fault] if fault else [])


def _expiry(
    session: Session, valid_for: timedelta, clock: Callable[[], float]
) -> Check:
    context = _trusting_its_own(session)
    context.check_hostname = False
    wanted = duration(valid_for.total_seconds())
    if fault := _verified(session, context, _NOT_YET_VALID, _EXPIRED):
        return faultless(f"valid for {wanted}", [fault])
    certificate, _ = _greet(session, context)
    left = ssl.cert_time_to_seconds(str(certificate["notAfter"])) - clock()
    return Check(
        name="",
        passed=left >= valid_for.total_seconds(),
        expected=f"valid for {wanted}",
        observed=duration(left),
    )


def _names(session: Session, names: list[str]) -> Check:
    faults = []
    for name in (str(urlsplit(session.target.url).hostname), *names):
        context = _trusting_its_own(session, name)
        if fault := _verified(session, context, _NAME, _ADDRESS, name=name):
            faults.append(fault)
    return faultless("a certificate of each name", faults)


def _versions(session: Session) -> Check:
    faults = []
    for name, version in _OLD.items():
        context = _trusting_anyone()
        context.minimum_version = context.maximum_version = version
        context.set_ciphers("ALL:@SECLEVEL=0")  # or OpenSSL does not offer them
        with suppress(ssl.SSLError, Inconclusive):
            _greet(session, context)
            faults.append(f"{name} is spoken")
    # A refusal is one only if the server was there.
    try:
        _greet(session, _trusting_anyone())
    except ssl.SSLError as error:
        faults.append(f"neither TLS 1.2 nor 1.3: {error.reason}")
    return Check(
        name="",
        passed=not faults if ssl.HAS_TLSv1 and ssl.HAS_TLSv1_1 else None,
        expected="TLS 1.2 or 1.3, and none older",
        observed="; ".join(faults) or "as expected",
        detail="" if ssl.HAS_TLSv1_1 else "OpenSSL here speaks no TLS 1.1 to offer",
    )


def _verified(
    session: Session, context: ssl.SSLContext, *codes: int, name: str = ""
) -> str:
    """Return why the certificate is not valid; empty if it is.

    Raises:
        Inconclusive: no certificate, or a verdict that is none of the codes, if any.
    """
    try:
        _greet(session, context, name)
    except ssl.SSLCertVerificationError as error:
        if codes and error.verify_code not in codes:
            raise Inconclusive(error.verify_message) from error
        return error.verify_message
    except ssl.SSLError as error:
        raise Inconclusive(f"no TLS: {error.reason}") from error
    return ""


def _trusting_anyone() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _trusting_its_own(session: Session, name: str = "") -> ssl.SSLContext:
    """Return a context that trusts the service's certificate, whoever signed it.

    What is verified with it is the rest: the dates, and the names.
    """
    try:
        _, certificate = _greet(session, _trusting_anyone(), name)
    except ssl.SSLError as error:
        raise Inconclusive(f"no TLS: {error.reason}") from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=certificate)
    return context


def _greet(
    session: Session, context: ssl.SSLContext, name: str = ""
) -> tuple[dict[str, Any], bytes]:
    """Shake hands; return the certificate, read if it was verified, and its bytes.

    Raises:
        Inconclusive: no answer.
        ssl.SSLError: an answer that ends the handshake.
    """
    host = str(urlsplit(session.target.url).hostname)
    try:
        with (
            session.socket() as plain,
            context.wrap_socket(plain, server_hostname=name or host) as secure,
        ):
            read, certificate = secure.getpeercert(), secure.getpeercert(True)
    except ssl.SSLError:
        raise
    except OSError as error:
        raise Inconclusive(f"no TLS: {type(error).__name__}") from error
    return dict(read or {}), certificate or b""
