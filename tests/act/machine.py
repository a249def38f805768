"""Machine: what runs the jobs of a workflow, as a machine of GitHub does, with act."""

from __future__ import annotations

import configparser
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import opskit
from tests.processes import ROOT

_ACTIONS = Path(__file__).parent / "actions"
_PROGRAMS = Path(sys.executable).parent
_SECONDS_MAX = 300
# act 0.2.89 takes them for mistakes, and a run of its own would not heed them.
_UNKNOWN = re.compile(r"^ +(queue: max|deployment: false)\n", re.MULTILINE)
_USES = re.compile(r"uses: (([\w.-]+/([\w.-]+))@[0-9a-f]{40})")
_STEP = re.compile(r"^\[([^]]+)\] +(✅|❌)  (?:Success|Failure) - Main (.*?) \[[^]]+\]$", re.MULTILINE)  # fmt: skip
_JOB = re.compile(r"^\[([^]]+)\] 🏁  Job (succeeded|failed)$", re.MULTILINE)
# It shows progress, as it has a terminal for each step; GitHub has none.
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
_NOISE = re.compile(
    r"^(.*(━|LocalRepositoryCache|docker connection).*|\s*|\[[^]]+\]   \| )\n",
    re.MULTILINE,
)
_SCRIPT = """\
#!{python}
import sys
import {module}
sys.exit({module}.{called}())
"""


def without_unknown(workflow: str) -> str:
    """Return a workflow without the two keys that act does not know."""
    return _UNKNOWN.sub("", workflow)


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A run of a workflow: its exit code and its log."""

    code: int
    log: str

    @property
    def jobs(self) -> dict[str, bool]:
        """Say of each job whether it succeeded."""
        return {
            name.rpartition("/")[2].strip(): how == "succeeded"
            for name, how in _JOB.findall(self.log)
        }

    @property
    def steps(self) -> dict[str, bool]:
        """Say of each step that ran whether it succeeded."""
        return {name: mark == "✅" for _job, mark, name in _STEP.findall(self.log)}

    def printed(self, count: int = 25) -> str:
        """Return the last lines of the log."""
        return "\n".join(self.log.splitlines()[-count:])


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Runs workflows of a repository; each job has a folder of its own, a fresh copy."""

    folder: Path
    repository: Path
    secrets: Mapping[str, str]
    variables: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def artifacts(self) -> Path:
        """Where the artifacts of all runs are."""
        return self.folder / "artifacts"

    @property
    def python(self) -> Path:
        """The environment in which opskit is installed."""
        return self.folder / "python"

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    @property
    def log(self) -> str:
        """What the newest run has printed so far."""
        return _NOISE.sub("", _ESCAPE.sub("", self._log.read_text(errors="replace")))

    def with_github(self, address: str, token: str) -> Machine:
        """Return the same machine, whose jobs find GitHub at an address."""
        environment = {**self.environment, "GITHUB_API_URL": address}
        secrets = {**self.secrets, "GITHUB_TOKEN": token}
        return replace(self, environment=environment, secrets=secrets)

    def with_role(self) -> Machine:
        """Return the same machine with a role in place of the store's credentials."""
        secret = "AWS_SHARED_CREDENTIALS_FILE"
        keys = configparser.ConfigParser()
        keys.read_string(self.secrets[secret])
        path = self.folder / "role"
        path.write_text(
            "".join(f"{k.upper()}={v}\n" for k, v in keys["default"].items())
        )
        role = "arn:aws:iam::000000000000:role/backup"
        return replace(
            self,
            secrets={k: v for k, v in self.secrets.items() if k != secret},
            variables={"AWS_ROLE": role, "AWS_REGION": "us-east-1"},
            environment={"ACT_ROLE": role, "ACT_ROLE_CREDENTIALS": str(path)},
        )

    def prepare(self) -> None:
        """Make what the jobs find on the machine."""
        for name in ("artifacts", "home", "tmp"):
            (self.folder / name).mkdir(parents=True)
        _install(self.python)

    def run(self, name: str, **options: Any) -> Ran:
        """Run a workflow to its end."""
        with self.started(name, **options) as process:
            return self.end(process)

    @contextlib.contextmanager
    def started(
        self,
        name: str,
        *,
        event: str = "workflow_dispatch",
        job: str = "",
        payload: Mapping[str, Any] | None = None,
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Start a workflow; what goes on after the block is killed."""
        text = (self.repository / ".github/workflows" / name).read_text()
        workflow = self.folder / name
        workflow.write_text(without_unknown(text))
        arguments = [
            event,
            "--workflows",
            str(workflow),
            *self._arguments(text, payload),
        ]
        arguments += ["--job", job] if job else []
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                [_PROGRAMS / "act", *arguments],
                cwd=self.repository,
                env={
                    "PATH": os.defpath,
                    "HOME": str(self.folder / "home"),
                    "TMPDIR": str(self.folder / "tmp"),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            with process:
                try:
                    yield process
                finally:
                    # The steps end with their terminal.
                    process.kill()
        finally:
            shutil.rmtree(self.folder / "cache", ignore_errors=True)

    def end(self, process: subprocess.Popen[bytes]) -> Ran:
        """Wait for the end of a run."""
        process.wait(_SECONDS_MAX)
        return Ran(code=process.returncode, log=self.log)

    def _arguments(self, workflow: str, payload: Mapping[str, Any] | None) -> list[str]:
        """Return what is the same for each run; secrets lie in a file."""
        given = {
            "secret": dict(self.secrets),
            "var": dict(self.variables),
            "env": {
                "ACT_PYTHON": str(self.python),
                "ACT_ACTIONS": str(_ACTIONS),
                "ACT_ARTIFACTS": str(self.artifacts),
                "PIP_NO_INDEX": "1",
                "PIP_QUIET": "1",
                "TMPDIR": str(self.folder / "tmp"),
                **self.environment,
            },
        }
        arguments = [
            "--platform", "ubuntu-latest=-self-hosted",
            "--action-cache-path", str(self.folder / "cache"),
            "--action-offline-mode", "--no-cache-server",
        ]  # fmt: skip
        for name, values in given.items():
            path = self.folder / f"{name}.yml"
            path.write_text(json.dumps(values))
            path.chmod(0o600)
            arguments += [f"--{name}-file", str(path)]
        event = self.folder / "event.json"
        event.write_text(json.dumps(payload or {}))
        arguments += ["--eventpath", str(event)]
        for used, action, short in sorted(set(_USES.findall(workflow))):
            if action != "actions/checkout":  # act copies the repository itself
                arguments += ["--local-repository", f"{used}={_ACTIONS / short}"]
        return arguments


def _install(folder: Path) -> None:
    """Make an environment with opskit as its wheel has it, beside what the lock holds."""
    venv.EnvBuilder(symlinks=True).create(folder)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (site / "lock.pth").write_text(sysconfig.get_path("purelib") + "\n")
    # Others may be compiling at the moment: what they have not finished vanishes.
    unfinished = shutil.ignore_patterns("*.pyc.*")
    shutil.copytree(ROOT / "opskit", site / "opskit", ignore=unfinished)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    for source, target in (wheel["sources"] | wheel["force-include"]).items():
        path = site / target
        path.parent.mkdir(exist_ok=True)
        copied = shutil.copytree if (ROOT / source).is_dir() else shutil.copyfile
        copied(ROOT / source, path)
    described = site / f"opskit_postgres-{opskit.__version__}.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("\n".join(_metadata(project["project"])) + "\n")
    for name, module in (("opskit", "opskit.__main__"), ("inv", "invoke.main")):
        script = folder / "bin" / name
        called = "main" if name == "opskit" else "program.run"
        script.write_text(
            _SCRIPT.format(
                python=folder / "bin" / "python", module=module, called=called
            )
        )
        script.chmod(0o755)
    (folder / "bin" / "squawk").symlink_to(_PROGRAMS / "squawk")


def _metadata(project: Mapping[str, Any]) -> Iterator[str]:
    yield "Metadata-Version: 2.4"
    yield f"Name: {project['name']}"
    yield f"Version: {opskit.__version__}"
    for needed in project["dependencies"]:
        yield f"Requires-Dist: {needed}"
    for extra, listed in project["optional-dependencies"].items():
        yield f"Provides-Extra: {extra}"
        for needed in listed:
            yield f'Requires-Dist: {needed}; extra == "{extra}"'
