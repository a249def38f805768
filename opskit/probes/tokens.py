"""Tokens: JSON Web Tokens that must be accepted, and forged ones that must not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from opskit.checks import Check
from opskit.config.access import TokenSettings
from opskit.config.watch import read_key
from opskit.errors import ConfigurationError
from opskit.log import hide
from opskit.probes.probe import Probe, expecting, faultless
from opskit.probes.session import Session

_LIFE_SECONDS = 300
# More than services allow clocks to differ by.
_AWAY_SECONDS = 86_400
_ANOTHER = "opskit-another"


class _Mint:
    """Makes tokens with the service's own secret or private key."""

    def __init__(self, settings: TokenSettings) -> None:
        self.settings, self.now = settings, int(time.time())
        self._secret = read_key(
            "smoke.authentication.token.key_file", settings.key_file
        )
        hide(self._secret)

    def token(self, *, signed: bool = True, **claims: Any) -> str:
        """Return a token that is right but for these claims; None leaves one out.

        Raises:
            ConfigurationError: it cannot be signed.
        """
        import jwt

        given = {**self.settings.claims, "exp": self.now + _LIFE_SECONDS, **claims}
        payload = {name: each for name, each in given.items() if each is not None}
        if not signed:
            return jwt.encode(payload, "", algorithm="none")
        algorithm = self.settings.algorithm
        try:
            return jwt.encode(payload, self._secret, algorithm=algorithm)
        except (jwt.PyJWTError, NotImplementedError, TypeError, ValueError):
            raise ConfigurationError(
                f"no token can be signed with {self.settings.key_file} and {algorithm}",
                hint="Check key_file, algorithm and claims in "
                "[smoke.authentication.token].",
            ) from None

    def tampered(self) -> str:
        """Return a token with the signature of another one."""
        claims, signature = self.token(jti="1"), self.token(jti="2")
        return ".".join([*claims.split(".")[:2], signature.split(".")[2]])


@dataclass(frozen=True, kw_only=True)
class _Forgery:
    """Tokens that must be refused; `claim` is what a right token must have for it."""

    name: str
    make: Callable[[_Mint], list[str]]
    what: str
    why: str
    remedy: str
    claim: str = ""


_FORGERIES = (
    _Forgery(
        name="token-expired",
        make=lambda mint: [mint.token(exp=mint.now - _AWAY_SECONDS)],
        what="that expired a day ago",
        why="A token that was stolen once would open the service for ever.",
        remedy="verify `exp` (PyJWT does, unless `verify_exp` is off)",
    ),
    _Forgery(
        name="token-signature",
        make=lambda mint: [mint.tampered()],
        what="with the signature of another token",
        why="Everybody can write a token; only the signature says who wrote it.",
        remedy="verify the signature (never decode with `verify_signature` off)",
    ),
    _Forgery(
        name="token-unsigned",
        make=lambda mint: [mint.token(signed=False)],
        what="that names `none` as its algorithm",
        why="A service that lets the token choose the algorithm accepts any token.",
        remedy="name the algorithms that are accepted, and never `none`",
    ),
    _Forgery(
        name="token-audience",
        make=lambda mint: [mint.token(aud=_ANOTHER), mint.token(aud=None)],
        what="for another audience, and one for none",
        why="A token for one service would open every other one of the same issuer.",
        remedy="verify `aud` against the name of this service, and require it",
        claim="aud",
    ),
    _Forgery(
        name="token-issuer",
        make=lambda mint: [mint.token(iss=_ANOTHER), mint.token(iss=None)],
        what="of another issuer, and one of none",
        why="Keys are shared more often than planned: a test system's token would do.",
        remedy="verify `iss`, and require it",
        claim="iss",
    ),
    _Forgery(
        name="token-without-expiry",
        make=lambda mint: [mint.token(exp=None)],
        what="that never expires",
        why="Libraries verify `exp` only where there is one: a token without it is "
        "valid for ever.",
        remedy='require `exp` (PyJWT: `options={"require": ["exp"]}`)',
    ),
    _Forgery(
        name="token-not-yet-valid",
        make=lambda mint: [
            mint.token(nbf=mint.now + _AWAY_SECONDS, exp=mint.now + 2 * _AWAY_SECONDS)
        ],
        what="that is valid from tomorrow",
        why="What was issued for later must not open the service today.",
        remedy="verify `nbf` (PyJWT does, unless `verify_nbf` is off)",
    ),
)


def probes(settings: TokenSettings) -> Iterator[Probe]:
    """Yield a probe for the right token, and one for each forgery."""

    def right(session: Session) -> Check:
        status = _status(session, settings, _Mint(settings).token())
        faults = [] if 200 <= status <= 299 else [str(status)]
        return faultless(f"a status from 200 to 299 for GET {settings.path}", faults)

    yield Probe(
        name="authentication.token",
        ask=right,
        what=f"Asks {settings.path} with a token that is right, and soon expires.",
        why="A service that refuses every token passes all questions about wrong ones.",
        remedy="Compare audience, issuer, algorithm and secret of the service with "
        "[smoke.authentication.token].",
    )
    for each in _FORGERIES:
        if not each.claim or each.claim in settings.claims:
            yield Probe(
                name=f"authentication.{each.name}",
                ask=_refused(settings, each),
                what=f"Asks {settings.path} with a token {each.what}.",
                why=each.why,
                remedy=f"Where the service decodes tokens, {each.remedy}; answer 401.",
            )


def _refused(settings: TokenSettings, forgery: _Forgery) -> Callable[[Session], Check]:
    def faults(session: Session) -> Iterator[str]:
        for token in forgery.make(_Mint(settings)):
            if (status := _status(session, settings, token)) != 401:
                yield f"GET {settings.path}: {status}"

    return expecting("401", faults)


def _status(session: Session, settings: TokenSettings, token: str) -> int:
    headers = {settings.header: settings.prefix + token}
    return session.get(settings.path, headers=headers).status
