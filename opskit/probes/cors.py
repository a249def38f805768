"""CORS: which other origins a browser lets read the service's answers."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from opskit.checks import Check
from opskit.config.probes import CorsSettings
from opskit.config.smoke import Profile, SmokeSettings
from opskit.probes.probe import Probe, faultless
from opskit.probes.session import Answer, Session

_STRANGER = "https://opskit-smoke.example"
_ORIGIN = "Access-Control-Allow-Origin"
_CREDENTIALS = "Access-Control-Allow-Credentials"
_PRIVATE = "Access-Control-Allow-Private-Network"


def probes(settings: SmokeSettings) -> Iterator[Probe]:
    """Yield probes of the configured path: what each kind of origin may do."""
    rules = settings.cors
    if not rules.path:
        return
    if rules.origins:
        yield Probe(
            name="cors.listed-origin",
            ask=lambda session: _listed_origins(session, rules),
            what="Sends each listed origin, and looks for it in the answer.",
            why="Without the header, the site's scripts cannot read the service; "
            "without `Vary: Origin`, a cache gives one site the answer of another.",
            remedy="Add the origin to the service's list, and send `Vary: Origin`.",
        )
        yield Probe(
            name="cors.look-alike-origin",
            ask=lambda session: _strangers(session, rules, look_alikes(rules.origins)),
            what="Sends origins that look like a listed one: longer at either end, "
            "below it, with another scheme, port or letter in place of a dot, `null`.",
            why="A list that is searched for a part of the origin, or by a pattern "
            "without its ends, lets sites of attackers in.",
            remedy="Compare the whole origin with each entry of the list.",
        )
        yield Probe(
            name="cors.preflight",
            ask=lambda session: _preflights(session, rules),
            what="Asks with OPTIONS whether a listed origin may send the configured "
            "method and headers, and whether a stranger may.",
            why="Browsers ask this, without a key, before they send anything else.",
            remedy="Answer OPTIONS with 200 or 204 before the key is looked at, with "
            "the allowed methods and headers, for listed origins only.",
        )
    yield Probe(
        name="cors.other-origin",
        ask=lambda session: _strangers(session, rules, [_STRANGER]),
        what=f"Sends the origin {_STRANGER}, which must not be allowed.",
        why="A site that is allowed reads what its visitor may read.",
        remedy=f"Send {_ORIGIN} for listed origins only, and `*` for nobody.",
    )
    yield Probe(
        name="cors.credentials",
        ask=lambda session: _credentials(session, rules),
        what="Looks for `*` together with credentials, in all kinds of answers.",
        why="It says that every site may act for its visitor; browsers refuse it, "
        "other programs do not.",
        remedy="Name the origins, or allow no credentials.",
    )
    yield Probe(
        name="cors.private-network",
        ask=lambda session: _private_network(session, rules),
        what=f"Asks in a preflight request for {_PRIVATE}.",
        why="The header opens a service in a private network to public sites.",
        remedy="Remove the header; if it is meant, set `private_network = true` in "
        "`[smoke.cors]`.",
        profile=Profile.STRICT,
    )


def look_alikes(origins: list[str]) -> list[str]:
    """Return origins that a careless comparison takes for one of these."""
    found = ["null"]
    for origin in origins:
        scheme, host = urlsplit(origin).scheme, urlsplit(origin).netloc
        name = host.partition(":")[0]
        found += [
            f"{origin}.opskit-smoke.example",
            f"{scheme}://{name}.opskit-smoke.example",
            f"{scheme}://opskit-smoke{host}",
            f"{scheme}://opskit-smoke.{host}",
            f"{'http' if scheme == 'https' else 'https'}://{host}",
            f"{scheme}://{name}:{8443 if host.endswith(':8444') else 8444}",
            f"{origin}_.opskit-smoke.example",
            f"{scheme}://opskit-smoke.example/{host}",
        ]
        if "." in name:
            found.append(f"{scheme}://{host.replace('.', 'x', 1)}")
    return [each for each in dict.fromkeys(found) if each not in origins]


def _get(session: Session, rules: CorsSettings, origin: str) -> Answer:
    return session.get(rules.path, key=rules.key, headers={"Origin": origin})


def _preflight(
    session: Session, rules: CorsSettings, origin: str, **more: str
) -> Answer:
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": rules.method,
        "Access-Control-Request-Headers": ", ".join(rules.headers),
    }
    asked |= {name.replace("_", "-"): value for name, value in more.items()}
    return session.request("OPTIONS", rules.path, headers=asked)


def _words(answer: Answer, name: str) -> set[str]:
    """Return the entries of a list in a header, in lower case."""
    listed = ",".join(answer.headers.getlist(name)).split(",")
    return {word.strip().lower() for word in listed} - {""}


def _allowed(answer: Answer) -> list[str]:
    return answer.headers.getlist(_ORIGIN)


def _listed_origins(session: Session, rules: CorsSettings) -> Check:
    faults = []
    for origin in rules.origins:
        answer = _get(session, rules, origin)
        if _allowed(answer) != [origin]:
            faults.append(f"{origin}: {_ORIGIN}: {_allowed(answer) or 'none'}")
        elif not _words(answer, "Vary") & {"origin", "*"}:
            faults.append(f"{origin}: no Vary: Origin")
    return faultless("each listed origin echoed, with Vary: Origin", faults)


def _strangers(session: Session, rules: CorsSettings, origins: list[str]) -> Check:
    return faultless(
        f"no {_ORIGIN} for {', '.join(origins)}",
        (
            f"{origin}: {_ORIGIN}: {', '.join(allowed)}"
            for origin in origins
            if (allowed := _allowed(_get(session, rules, origin)))
        ),
    )


def _preflights(session: Session, rules: CorsSettings) -> Check:
    faults = []
    for origin in rules.origins:
        answer = _preflight(session, rules, origin)
        methods = _words(answer, "Access-Control-Allow-Methods") | {
            "get",
            "head",
            "post",
        }
        headers = _words(answer, "Access-Control-Allow-Headers")
        lacking = {header.lower() for header in rules.headers} - headers
        if answer.status not in (200, 204):
            faults.append(f"{origin}: {answer.status}")
        elif _allowed(answer) != [origin]:
            faults.append(f"{origin}: {_ORIGIN}: {_allowed(answer) or 'none'}")
        elif rules.method.lower() not in methods and "*" not in methods:
            faults.append(f"{origin}: {rules.method} is not allowed")
        elif lacking and "*" not in headers:
            faults.append(f"{origin}: {', '.join(sorted(lacking))} is not allowed")
    if allowed := _allowed(_preflight(session, rules, _STRANGER)):
        faults.append(f"{_STRANGER}: {_ORIGIN}: {', '.join(allowed)}")
    return faultless("listed origins may, others may not", faults)


def _credentials(session: Session, rules: CorsSettings) -> Check:
    faults = []
    for origin in (_STRANGER, *rules.origins):
        for answer in (
            _get(session, rules, origin),
            _preflight(session, rules, origin),
        ):
            if "*" in _allowed(answer) and _words(answer, _CREDENTIALS) == {"true"}:
                faults.append(f"{origin}: {_ORIGIN}: * with credentials")
    return faultless("never * with credentials", faults)


def _private_network(session: Session, rules: CorsSettings) -> Check:
    origin = rules.origins[0] if rules.origins else _STRANGER
    answer = _preflight(
        session, rules, origin, Access_Control_Request_Private_Network="true"
    )
    is_open = _words(answer, _PRIVATE) == {"true"}
    return faultless(
        f"{_PRIVATE}: {'true' if rules.private_network else 'none'}",
        [] if is_open == rules.private_network else [f"{_PRIVATE}: {is_open}"],
    )
