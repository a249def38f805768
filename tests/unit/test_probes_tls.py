"""The probes of TLS, asked of a real server with real certificates."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from opskit.checks import Check
from opskit.config.smoke import SmokeSettings
from opskit.probes import tls
from tests.certificates import Authority, self_signed
from tests.defects.defect import Defect
from tests.defects.tls import DEFECTS
from tests.unit.probed import asked_at

NAMES = ("tls.chain", "tls.expiry", "tls.names", "tls.versions")
LONG = timedelta(days=90)
WORKING = ("localhost", "127.0.0.1")
OLD = {"tls-1-0": ssl.TLSVersion.TLSv1, "tls-1-1": ssl.TLSVersion.TLSv1_1}
MODERN = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


@contextmanager
def _server(
    certificate: Path,
    versions: tuple[ssl.TLSVersion, ssl.TLSVersion] = MODERN,
) -> Iterator[str]:
    """Shake hands with whoever comes; say nothing more."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = versions
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(certificate)
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while not ended.is_set():
                with contextlib.suppress(OSError):
                    plain, _ = listener.accept()
                    with context.wrap_socket(plain, server_side=True) as secure:
                        secure.recv(1)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        try:
            yield f"https://localhost:{port}"
        finally:
            ended.set()
            socket.create_connection(("127.0.0.1", port), 60).close()
            thread.join(60)
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority that the probes trust."""
    return Authority(tmp_path_factory.mktemp("root"))


def _asked(
    certificate: Path,
    name: str,
    root: Authority,
    *,
    versions: Any = MODERN,
    **rules: Any,
) -> Check:
    settings: dict[str, Any] = {"tls": {"ca_file": str(root.file), **rules}}
    with _server(certificate, versions) as url:
        return asked_at(url, name, **settings)


def _with_key(certificate: Path, folder: Path) -> Path:
    path = folder / "both.pem"
    key = certificate.with_name("key.pem").read_bytes()
    path.write_bytes(key + certificate.read_bytes())
    return path


@pytest.mark.parametrize("name", NAMES)
def test_a_right_certificate_passes(root: Authority, name: str) -> None:
    check = _asked(root.issue(*WORKING, valid_for=LONG), name, root)

    assert check.passed, check


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_chain_passes(root: Authority, tmp_path: Path, name: str) -> None:
    below = Authority(tmp_path, root)
    certificate = below.issue(*WORKING, valid_for=LONG, chain=(below,))

    assert _asked(certificate, name, root).passed


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda each: each.name)
def test_each_defect_is_noticed(
    root: Authority, tmp_path: Path, defect: Defect
) -> None:
    """An old version fails together with a newer one, and also alone."""
    certificates = {
        "no-intermediate-certificate": lambda: Authority(tmp_path, root).issue(
            *WORKING, valid_for=LONG
        ),
        "unknown-authority": lambda: Authority(tmp_path).issue(
            *WORKING, valid_for=LONG
        ),
        "signed-by-itself": lambda: _with_key(self_signed(tmp_path), tmp_path),
        "expired": lambda: root.issue(*WORKING, valid_for=timedelta(minutes=-5)),
        "expires-soon": lambda: root.issue(*WORKING, valid_for=timedelta(days=10)),
        "another-name": lambda: root.issue("other.example", valid_for=LONG),
    }
    if defect.name in certificates:
        certificate = certificates[defect.name]()
    else:
        certificate = root.issue(*WORKING, valid_for=LONG)
    rows = [MODERN]
    if old := OLD.get(defect.name):
        rows = [(old, ssl.TLSVersion.TLSv1_3), (old, old)]

    for versions in rows:
        check = _asked(certificate, defect.probe, root, versions=versions)
        assert check.passed is False, check


def test_a_chain_without_what_is_between_fails(root: Authority, tmp_path: Path) -> None:
    """Its dates and names are judged none the less."""
    certificate = Authority(tmp_path, root).issue(*WORKING, valid_for=LONG)

    check = _asked(certificate, "tls.chain", root)

    assert (check.passed, check.observed) == (
        False,
        "unable to get local issuer certificate",
    )
    assert _asked(certificate, "tls.expiry", root).passed
    assert _asked(certificate, "tls.names", root).passed


def test_a_certificate_that_signed_itself_fails(
    root: Authority, tmp_path: Path
) -> None:
    check = _asked(_with_key(self_signed(tmp_path), tmp_path), "tls.chain", root)

    assert (check.passed, check.observed) == (False, "self-signed certificate")


@pytest.mark.parametrize("name", ["tls.chain", "tls.expiry"])
def test_an_expired_certificate_fails(root: Authority, name: str) -> None:
    certificate = root.issue(*WORKING, valid_for=timedelta(minutes=-5))

    check = _asked(certificate, name, root)

    assert (check.passed, check.observed) == (False, "certificate has expired")


def test_a_certificate_that_expires_soon_fails(root: Authority) -> None:
    certificate = root.issue(*WORKING, valid_for=timedelta(days=10, hours=12))

    soon = _asked(certificate, "tls.expiry", root)
    enough = _asked(certificate, "tls.expiry", root, valid_for="9d")

    assert (soon.passed, enough.passed) == (False, True)
    assert soon.observed.startswith("10 d")


def test_a_certificate_of_other_names_fails(root: Authority) -> None:
    other = root.issue("other.example", valid_for=LONG)
    own = root.issue(*WORKING, valid_for=LONG)

    assert _asked(other, "tls.names", root).passed is False
    assert _asked(own, "tls.names", root, names=["api.example"]).passed is False
    assert _asked(own, "tls.names", root, names=["127.0.0.1"]).passed


def test_no_tls_at_all_is_inconclusive() -> None:
    """What answers there may be a balancer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://localhost:{listener.getsockname()[1]}"

    for name in NAMES:
        assert asked_at(url, name).passed is None


def test_nothing_is_asked_of_an_address_without_tls() -> None:
    assert not list(tls.probes(SmokeSettings(url="http://a.example")))
