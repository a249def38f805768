"""What runs a fleet elsewhere: workers in Kubernetes, a matrix on GitHub."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from opskit.config import Settings, load
from opskit.crypto import keys
from opskit.errors import ConfigurationError, UsageError
from opskit.fleet.manifests import github_matrix, kubernetes
from opskit.tasks import namespace
from opskit.tasks.arguments import parse

_VALIDATE = Path(sys.executable).parent / "kubernetes-validate"
_CONFIGURATION = """
[databases.shop]
url = "postgresql://ops@db.example/shop"
schedule = "0 2 * * *"
[databases.crm]
url_file = "/run/secrets/opskit/crm-url"
schedule = "15 3 * * *"
[databases.logs]
url = "postgresql://ops@db.example/logs"
schedule = "40 4 * * 7"
[databases.rates]
url = "postgresql://ops@db.example/rates"
schedule = "15 3 * * *"
[databases.far]
url = "postgresql://ops@far.example/far"
label = "eu_west-"
[files.state]
path = "/srv/state"
[stores.offsite]
url = "s3://acme-backups/prod"
ca_file = "authority.pem"
[stores.local]
url = "file:///var/backups/opskit"
[signing]
key_file = "/run/secrets/opskit/signing-key"
[scheduler]
timezone = "Europe/Berlin"
job_timeout = "3h"
stop_timeout = "60s"
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Two labels, one without a schedule; folders of a host, and keys in files."""
    return settings_of(tmp_path, _CONFIGURATION)


def settings_of(folder: Path, text: str) -> Settings:
    path = folder / "opskit.toml"
    path.write_text(text, encoding="utf-8")
    return load(path)


def objects(settings: Settings) -> dict[str, Any]:
    text = kubernetes(settings, image="registry.example/opskit:1")
    return {e["metadata"]["name"]: e for e in yaml.safe_load_all(text)}


def pods(settings: Settings) -> list[Any]:
    """Return what the pods of all objects are to be."""
    specs = [each["spec"] for each in objects(settings).values()]
    jobs = [e["jobTemplate"]["spec"] if "jobTemplate" in e else e for e in specs]
    return [each["template"]["spec"] for each in jobs]


def judged(folder: Path, text: str, version: str) -> str:
    """Return what the validator says of objects that it refuses."""
    path = folder / "workers.yml"
    path.write_text(text, encoding="utf-8")
    command: list[str | Path] = [_VALIDATE, "--strict", "--quiet", "-k", version, path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr if done.returncode else ""


def test_kubernetes_takes_them(settings: Settings, tmp_path: Path) -> None:
    """By the schemas of the oldest and the newest version; a wrong key is refused."""
    text = kubernetes(settings, image="registry.example/opskit:1")

    assert judged(tmp_path, text, "1.29") == judged(tmp_path, text, "1.37") == ""
    assert text.count("readOnlyRootFilesystem") == 3
    for right, wrong in (
        ("terminationGracePeriodSeconds: ", "terminationGraceSeconds: "),
        ("podReplacementPolicy", "replacementPolicy"),
        ("exec:", "execute:"),
        ("replicas: 2", "replicas: two"),
    ):
        assert right in text
        assert judged(tmp_path, text.replace(right, wrong), "1.29"), right


def test_each_label_has_workers_and_more_of_them_at_night(settings: Settings) -> None:
    """When most backups of the label are due, and the tick has put them into the queue."""
    made = objects(settings)
    burst = made["opskit-burst-default"]["spec"]
    arguments = [each["containers"][0]["args"] for each in pods(settings)]

    assert [e["kind"] for e in made.values()] == ["Deployment", "CronJob", "Deployment"]
    assert arguments == [
        ["fleet-worker", "--label", "default"],
        ["fleet-worker", "--label", "default", "--until-idle"],
        ["fleet-worker", "--label", "eu_west-"],
    ]
    assert burst["schedule"] == "17 3 * * *"
    assert burst["timeZone"] == "Europe/Berlin"
    tasks = {str(each.name): each for each in namespace.to_contexts()}
    calls = [parse(each, tasks) for each in arguments]
    assert {each.task.name for each in calls if each.task} == {"fleet-worker"}


def test_a_label_that_only_a_rule_has_gets_workers(tmp_path: Path) -> None:
    """Its databases need not be known yet; what is about all sources is default's."""
    text = """[discover.more]
url = "postgresql://ops@far.example/postgres"
pattern = ["*"]
label = "asia"
schedule = "@daily"
"""
    made = objects(settings_of(tmp_path, text))

    assert list(made) == ["opskit-asia", "opskit-burst-asia", "opskit-default"]


def test_names_are_possible_and_differ(tmp_path: Path) -> None:
    """A label may have what a name in Kubernetes may not, and be longer."""
    labels = ["a-b", "a_b", "a--b", "a-", "7", "x" * 63, "x" * 62]
    text = "".join(
        f"[databases.d{number}]\nurl = 'postgresql://ops@db.example/d'\n"
        f"schedule = '@daily'\nlabel = '{label}'\n"
        for number, label in enumerate(labels)
    )
    settings = settings_of(tmp_path, text)
    made = objects(settings)

    assert len(made) == 2 * len(labels) + 1
    for name in made:
        assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])", name)
        assert len(name) <= 52
    given = {each["containers"][0]["args"][2] for each in pods(settings)}
    assert given == {*labels, "default"}  # which verifies and prunes


def test_a_worker_may_do_little_and_is_given_time_to_end(settings: Settings) -> None:
    """No rights, nothing to write but its volumes, no token of the cluster."""
    for pod in pods(settings):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["terminationGracePeriodSeconds"] > 3 * 3600 + 60
        (worker,) = pod["containers"]
        assert worker["resources"].keys() == {"requests", "limits"}
        for each in (worker, *pod["initContainers"]):
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
        volumes = {each["name"] for each in pod["volumes"]}
        mounts = (*worker["volumeMounts"], *pod["initContainers"][0]["volumeMounts"])
        assert {each["name"] for each in mounts} == volumes


def test_folders_of_a_host_are_claims(settings: Settings) -> None:
    """A store is at each worker, a folder that is backed up at those of its label."""
    here, _burst, far = (
        {
            each["name"]: each["mountPath"]
            for each in pod["containers"][0]["volumeMounts"]
        }
        for pod in pods(settings)
    )
    claims = [
        e["persistentVolumeClaim"]["claimName"]
        for e in pods(settings)[0]["volumes"]
        if "persistentVolumeClaim" in e
    ]

    assert here["store-local"] == far["store-local"] == "/var/backups/opskit"
    assert here["files-state"] == "/srv/state"
    assert "files-state" not in far
    assert claims == ["opskit-store-local", "opskit-files-state"]


def test_nothing_of_the_configuration_is_inlined(settings: Settings) -> None:
    """It is mounted: what has to be made first stands at the top."""
    text = kubernetes(settings, image="registry.example/opskit:1")
    _about, configuration, secrets = text.splitlines()[:3]

    assert ".example" not in text.replace("registry.example/opskit:1", "")
    assert "postgresql://" not in text
    assert configuration == (
        "# kubectl create configmap opskit --from-file=opskit.toml "
        "--from-file=authority.pem"
    )
    assert secrets == (
        "# kubectl create secret generic opskit --from-file=crm-url "
        "--from-file=signing-key"
    )


def test_the_claims_of_folders_are_to_be_made_first(tmp_path: Path) -> None:
    """Without a secret, its command ends with its name."""
    text = "[stores.local]\nurl = 'file:///backups'\n[files.data]\npath = '/data'"
    head = kubernetes(settings_of(tmp_path, text), image="opskit").partition("---")[0]

    assert "# kubectl create secret generic opskit\n" in head
    assert "(ReadWriteMany): opskit-store-local, opskit-files-data\n" in head


def test_a_file_that_no_worker_would_have_is_refused(tmp_path: Path) -> None:
    """Also one deep in the configuration."""
    text = "[[notify.webhooks]]\nurl = 'https://app.example'\nsecret_file = '/etc/hook'"

    with pytest.raises(UsageError) as raised:
        kubernetes(settings_of(tmp_path, text), image="opskit")

    assert "notify.webhooks.0.secret_file is /etc/hook" in raised.value.message
    assert "/run/secrets/opskit/hook" in raised.value.hint


def test_secrets_are_copied_so_that_only_their_owner_reads_them(
    settings: Settings, tmp_path: Path
) -> None:
    """As they are mounted, links to files of a group, opskit refuses them."""
    given, copied = tmp_path / "given", tmp_path / "copied"
    (given / "..2026").mkdir(parents=True)
    copied.mkdir()
    (given / "..data").symlink_to("..2026")
    for name in ("signing-key", "pgpass"):
        (given / "..2026" / name).write_text(f"the {name}")
        (given / "..2026" / name).chmod(0o440)
        (given / name).symlink_to(f"..data/{name}")
    with pytest.raises(ConfigurationError, match="may be read by others"):
        keys.read(given / "signing-key", "signing.key_file")
    places = {"/mnt/secrets": str(given), "/run/secrets/opskit": str(copied)}
    command = pods(settings)[0]["initContainers"][0]["command"]

    for _ in range(2):  # as after a restart of the machine
        subprocess.run(
            [places.get(each, each) for each in command], check=True, timeout=60
        )

    assert sorted(each.name for each in copied.iterdir()) == ["pgpass", "signing-key"]
    assert keys.read(copied / "signing-key", "signing.key_file") == b"the signing-key"


def test_the_probe_asks_for_a_sign_of_life(settings: Settings, tmp_path: Path) -> None:
    """A file that was touched ten minutes ago or less."""
    (worker,) = pods(settings)[0]["containers"]
    shell, flag, script = worker["livenessProbe"]["exec"]["command"]
    alive = tmp_path / "alive"
    script = script.replace("/var/lib/opskit/alive", str(alive))

    def is_well() -> bool:
        done = subprocess.run([shell, flag, script], capture_output=True, timeout=60)
        return done.returncode == 0

    assert worker["startupProbe"] == worker["readinessProbe"] == worker["livenessProbe"]
    assert not is_well()
    alive.touch()
    assert is_well()
    old = time.time() - 700
    os.utime(alive, (old, old))
    assert not is_well()


def test_a_service_of_the_cluster_changes_no_configuration(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Service named opskit sets a variable that would be refused."""
    assert {pod["enableServiceLinks"] for pod in pods(settings)} == {False}
    monkeypatch.setenv("OPSKIT_PORT", "tcp://10.0.0.1:8321")

    with pytest.raises(ConfigurationError, match="OPSKIT_PORT"):
        load(tmp_path / "opskit.toml")


def test_no_two_workers_of_a_burst_have_one_ledger(settings: Settings) -> None:
    """Each goes on with that of its number in the night before."""
    burst = objects(settings)["opskit-burst-default"]["spec"]
    job = burst["jobTemplate"]["spec"]
    index, ledger = job["template"]["spec"]["containers"][0]["env"][-2:]

    assert burst["concurrencyPolicy"] == "Forbid"
    assert job["podReplacementPolicy"] == "Failed"
    grace = job["template"]["spec"]["terminationGracePeriodSeconds"]
    assert job["activeDeadlineSeconds"] + grace < 24 * 3600
    assert job["completionMode"] == "Indexed"
    assert ledger == {"name": "OPSKIT_LEDGER_NAME", "value": "burst-default-$(INDEX)"}
    assert index["name"] == "INDEX"


def test_a_matrix_has_all_databases_that_there_are(tmp_path: Path) -> None:
    """Listed and discovered, of all labels or of one; none is left out in silence."""
    (tmp_path / "urls").write_text('{"wiki": "postgresql://ops@db.example/wiki"}')
    text = (
        f"{_CONFIGURATION}[discover.ours]\nfile = '{tmp_path}/urls'\nlabel = 'eu_west-'"
    )
    settings = settings_of(tmp_path, text)

    whole = {"source": ["crm", "far", "logs", "rates", "shop", "wiki"]}
    assert json.loads(github_matrix(settings)) == whole
    part = github_matrix(settings, label="eu_west-")
    assert json.loads(part) == {"source": ["far", "wiki"]}
    (tmp_path / "urls").write_text('{"wiki": "postgr')
    with pytest.raises(ConfigurationError, match=r"discover\.ours"):
        github_matrix(settings)
    assert "shop" in github_matrix(settings, label="default")


def test_a_matrix_has_as_many_databases_as_github_takes(tmp_path: Path) -> None:
    """What it would refuse is refused before a workflow runs."""

    def of(number: int) -> Settings:
        each = "[databases.d{}]\nurl = 'postgresql://ops@db.example/d'\n"
        return settings_of(tmp_path, "".join(map(each.format, range(number))))

    assert len(json.loads(github_matrix(of(256)))["source"]) == 256
    with pytest.raises(UsageError, match="257 databases"):
        github_matrix(of(257))
    with pytest.raises(UsageError, match="0 databases"):
        github_matrix(of(0))


def test_the_task_writes_one_kind(tmp_path: Path) -> None:
    """To standard output, for kubectl or for the step of a workflow; else it ends with 2."""
    settings_of(tmp_path, _CONFIGURATION)

    def call(*flags: str, code: int = 0) -> str:
        words = [sys.executable, "-m", "opskit", "fleet-manifests", *flags]
        done = subprocess.run(
            words, cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == code, done.stderr
        return done.stdout

    written = list(yaml.safe_load_all(call("--kubernetes", "--image", "a/b:1")))
    assert {each["kind"] for each in written} == {"Deployment", "CronJob"}
    assert json.loads(call("--github-matrix", "--label", "eu_west-")) == {
        "source": ["far"]
    }
    call("--kubernetes", "--github-matrix", code=2)
