"""The archive of a release: everything behind it, checked with stock programs."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import threading
from pathlib import Path

from tests.acceptance.conftest import Project
from tests.listening import answer, listening


def sh(folder: Path, command: str) -> str:
    return subprocess.run(
        command, shell=True, cwd=folder, check=True, capture_output=True, text=True
    ).stdout


def reply(connection: socket.socket, _head: bytes, _ended: threading.Event) -> None:
    connection.sendall(answer(b"{}"))


def test_an_archive_holds_everything_behind_a_release(
    project: Project, tmp_path: Path
) -> None:
    """The same bytes each time; tar, sha256sum and ssh-keygen suffice to check it."""
    (project.folder / "migrations").mkdir()
    (project.folder / "migrations" / "1.sql").write_text("CREATE TABLE public.more ();")
    (project.folder / "releases" / "2").mkdir(parents=True)
    sh(tmp_path, "ssh-keygen -q -t ed25519 -N '' -f key")
    with listening(reply) as place:
        project.configure(
            f"""
[signing]
key_file = "{tmp_path / "key"}"
[smoke]
url = "http://{place}"
profile = "minimal"
version = {{ field = "" }}
[release]
deployer = "local"
local = {{ restart = ["true"] }}
migrations = {{ tool = "sql", database = "shop" }}
"""
        )
        project.run("backup")
        project.run("restore-drill")
        released = project.json("release", "--version", "2")

    made = project.json("evidence", "--release", released["release_id"][:6])

    assert (made["version"], made["missing"]) == ("2", [])
    content = Path(made["archive"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == made["sha256"]
    again = project.json("evidence", "--release", released["release_id"])
    assert (again["sha256"], again["files"]) == (made["sha256"], made["files"])

    run, point = released["release_id"], released["restore_point"]
    names = {each["name"] for each in made["files"]}
    assert names >= {
        "SHA256SUMS", "ledger.jsonl",
        *(
            f"reports/{name}{suffix}"
            for name in (f"release-{run}", f"rehearsal-{point}-{run}",
                         f"baseline-smoke-{run}", f"smoke-{run}")
            for suffix in (".json", ".json.sig", ".md")
        ),
        f"sets/{point}/manifest.json", f"sets/{point}/manifest.json.sig",
    }  # fmt: skip
    assert any(e.startswith(f"sets/{point}/evidence/") for e in names)

    sh(tmp_path, f"tar -xf {made['archive']}")
    folder = tmp_path / f"evidence-{run}"
    assert (
        sh(folder, "sha256sum --strict -c SHA256SUMS").count(": OK") == len(names) - 1
    )
    sh(tmp_path, "printf 'opskit %s\\n' \"$(cut -d ' ' -f 1,2 key.pub)\" >signers")
    for signature in folder.rglob("*.sig"):
        sh(
            folder,
            f"ssh-keygen -Y verify -f ../signers -I opskit -n opskit -s {signature} "
            f"<{signature.with_suffix('')}",
        )
    steps = [
        json.loads(line)["details"].get("step")
        for line in (folder / "ledger.jsonl").read_text().splitlines()
    ]
    assert {"preflight", "rehearse", "migrate", "deploy"} <= {*steps}

    # What is gone by then is named.
    (project.store / f"_reports/{next((project.store / '_reports').iterdir()).name}"
     f"/smoke-{run}.json").unlink()  # fmt: skip
    (project.folder / ".opskit" / "reports" / f"smoke-{run}.json").unlink()
    missing = project.json("evidence", "--release", run)["missing"]
    assert missing == [f"the report smoke-{run}.json"]

    assert "releases" in project.json("evidence", "--release", "ffff", code=2)["hint"]
