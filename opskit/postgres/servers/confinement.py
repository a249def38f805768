"""Keeps a throw-away server apart from the machine: how its processes are started.

Loading runs functions of the source. On Linux the server has namespaces of its own,
made by util-linux: no process but its own, no network, and a file system that holds the
programs, the data and nothing else. Where the kernel refuses that, only a user of its
own is left, and where we are not root not even that.
"""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from opskit.errors import DatabaseError
from opskit.postgres.servers import programs as servers_programs
from opskit.postgres.servers import supervisor
from opskit.postgres.servers.programs import Installation

# No distribution, and no container engine, gives these numbers to anybody. The second
# range is for systems that have no higher ones.
_FREE_NUMBERS = (range(1_900_000_000, 2_100_000_000), range(60_578, 61_184))
_ATTEMPTS = 100


@dataclass(frozen=True, kw_only=True)
class Account:
    """A user and a group by their numbers."""

    uid: int
    gid: int


def ourselves() -> Account:
    """Return the user of this process."""
    return Account(uid=os.geteuid(), gid=os.getegid())


def nobody() -> Account:
    """Return the user nobody, which has a name for initdb; or DatabaseError."""
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise DatabaseError(
            "there is no user nobody to run initdb as",
            hint="Create that user, or run as an ordinary user.",
        ) from None
    return Account(uid=entry.pw_uid, gid=entry.pw_gid)


def unused() -> Account:
    """Return a user that owns nothing: nobody has its number; or DatabaseError."""
    maps = [Path("/proc/self/uid_map"), Path("/proc/self/gid_map")]
    for numbers in _FREE_NUMBERS:
        for _ in range(_ATTEMPTS):
            number = secrets.choice(numbers)
            is_taken = has_name(number) or has_name(number, grp.getgrgid)
            if not is_taken and all(_is_known(number, each) for each in maps):
                return Account(uid=number, gid=number)
    raise DatabaseError(
        "there is no unused user number to run PostgreSQL as",
        hint="Run as an ordinary user: PostgreSQL does not run as root.",
    )


def has_name(number: int, look_up: Callable[[int], object] = pwd.getpwuid) -> bool:
    """Return whether the system knows a name for a user's or a group's number."""
    try:
        look_up(number)
    except KeyError:
        return False
    return True


def own(folder: Path, account: Account) -> None:
    """Make a folder private to the account."""
    folder.chmod(0o700)
    if os.geteuid() == 0:
        os.chown(folder, account.uid, account.gid)


def _is_known(number: int, kernel_map: Path) -> bool:
    """Return whether this system has the number: containers may have few."""
    try:
        lines = kernel_map.read_text().splitlines()
    except OSError:
        return True
    for line in lines:
        first, _outside, count = map(int, line.split())
        if first <= number < first + count:
            return True
    return False


# What programs need: no home, no /run, no /var, of /etc only what has no secrets.
_VISIBLE = (
    *("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store"),
    *(f"/usr/{name}" for name in ("bin", "sbin", "lib", "lib32", "lib64", "libexec")),
    *("/usr/share", "/usr/local/bin", "/usr/local/lib", "/usr/local/share"),
    *("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime", "/etc/perl"),
    *("/etc/ssl/openssl.cnf", "/etc/crypto-policies", "/var/cache/postgresql"),
)
_PRIVATE = ("/tmp", "/dev/shm")  # noqa: S108
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_READ_ONLY = "rbind,ro,nosuid,nodev"
# Below /tmp the mount point is hidden, and has to be made anew.
_MAKE = "X-mount.mkdir=0755"
_OLD_ROOT = "old-root"
# $1 is the folder that becomes the root, $2 the table of what is mounted in it.
_ENTER = f"""set -eu
mount --all --fstab "$2"
mount -t proc -o nosuid,nodev,noexec proc "$1/proc" 2>/dev/null || :
cd "$1"
shift 2
pivot_root . {_OLD_ROOT}
umount -l {_OLD_ROOT}
exec "$@"
"""
_TRIAL = 'for each; do test -w "$each" || exit; done; exec "$0" --version'
_UNSHARE = ("--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child")
# Of the package libnss-wrapper, which images of PostgreSQL hold for this purpose.
_NAME_WRAPPERS = tuple(f"{each}/libnss_wrapper.so" for each in ("lib/*", "lib*"))
_RUN_SECONDS_MAX = 60


@dataclass(frozen=True, kw_only=True)
class Confinement:
    """How processes of one throw-away server are started.

    `account` is whom its files belong to. `before` stands in front of a command;
    `becomes` is the user to change to before it, None where the command does that.
    """

    description: str
    account: Account
    becomes: Account | None = None
    before: Sequence[str] = ()

    def run(
        self,
        command: Sequence[str],
        becomes: Account | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program that runs no code but its own, and return how it ended."""
        becomes = becomes or self.becomes
        options = {"user": becomes.uid, "group": becomes.gid} if becomes else {}
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            [*self.before, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_RUN_SECONDS_MAX,
            check=False,
            extra_groups=[] if becomes else None,
            **_bare(environment),
            **options,
        )

    def initialise(
        self, command: Sequence[str], data: Path
    ) -> subprocess.CompletedProcess[bytes]:
        """Run initdb, which works only for a user who has a name."""
        if self.becomes is None:
            is_plain = not self.before
            names = _lent_name(self.account, data.parent) if is_plain else {}
            return self.run(command, environment=names)
        maker = nobody()
        for each in (data.parent, data):
            own(each, maker)
        finished = self.run(command, maker)
        for each in (data.parent, data, *data.rglob("*")):
            os.chown(each, self.account.uid, self.account.gid, follow_symlinks=False)
        return finished

    def start(self, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Start a program that ends, with all it started, when its input is closed.

        The log stays locked until the last of these processes is gone.
        """
        numbers = (self.becomes.uid, self.becomes.gid) if self.becomes else (-1, -1)
        watched = [sys.executable, "-I", "-S", str(supervisor.__file__)]
        watched += [*map(str, numbers), *self.before, *command]
        with log.open("wb") as output:
            fcntl.flock(output, fcntl.LOCK_EX)
            return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
                watched,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                **_bare(),
            )


@dataclass(frozen=True, kw_only=True)
class Reach:
    """What a server may reach: some folders, all below one of ours or beside it."""

    folder: Path
    shared: Sequence[Path]
    network: bool = False


def confine(
    installation: Installation, reach: Reach
) -> tuple[Confinement, Installation]:
    """Return the strictest way to run a server here, and the programs that it can run.

    Root's copy of the embedded programs is copied into the folder where others cannot
    reach it. DatabaseError: the user that it is to run as cannot run the programs.
    """
    account = unused() if os.geteuid() == 0 else ourselves()
    for programs in _within_reach(installation, reach):
        for confinement in _confinements(programs, reach, account):
            for each in reach.shared:
                own(each, account)
            if _works(confinement, programs, reach):
                return confinement, programs
    raise DatabaseError(
        f"an unprivileged user cannot run the programs in {installation.bin_dir}, or "
        f"cannot enter {reach.folder.parent}",
        hint="Make both folders, and those above them, accessible to every user.",
    )


def _within_reach(installation: Installation, reach: Reach) -> Iterator[Installation]:
    yield installation
    if installation.embedded and os.geteuid() == 0:
        copied = reach.folder / "programs"
        bin_dir = servers_programs.copy_programs(installation.bin_dir, copied)
        yield replace(installation, bin_dir=bin_dir)


def _works(confinement: Confinement, installation: Installation, reach: Reach) -> bool:
    command = ["sh", "-c", _TRIAL, installation.program("postgres")]
    try:
        return confinement.run([*command, *map(str, reach.shared)]).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _confinements(
    installation: Installation, reach: Reach, account: Account
) -> Iterator[Confinement]:
    is_root = os.geteuid() == 0
    owner = "a user of its own" if is_root else "this user"
    apart = "" if reach.network else "no network, "
    if shutil.which("unshare") and shutil.which("setpriv"):
        yield Confinement(
            description=f"isolated: {owner}, {apart}processes and files of its own",
            account=account,
            before=_jailed(installation, reach, account, is_root),
        )
    # Its folders lie in one that must be the account's as well.
    own(reach.folder, account)
    yield Confinement(
        description=f"not isolated: {owner}, with the machine's network and files",
        account=account,
        becomes=account if is_root else None,
    )


def _jailed(
    installation: Installation, reach: Reach, account: Account, is_root: bool
) -> list[str]:
    """Return the command that enters namespaces of its own and gives all rights up."""
    root, table = _own_root(installation, reach, account)
    become = ["setpriv", "--no-new-privs", "--pdeathsig=KILL"]
    if is_root:
        become += [f"--reuid={account.uid}", f"--regid={account.gid}"]
        become += ["--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]
    else:
        numbers = [f"--map-user={account.uid}", f"--map-group={account.gid}"]
        become = ["unshare", "--user", *numbers, *become]
    user = [] if is_root else ["--user", "--map-root-user"]
    network = [] if reach.network else ["--net"]
    unshare = [str(shutil.which("unshare")), *_UNSHARE, *user, *network]
    enter = ["sh", "-c", _ENTER, "sh", str(root), str(table)]
    return [*unshare, *enter, *become]


def _own_root(
    installation: Installation, reach: Reach, account: Account
) -> tuple[Path, Path]:
    """Make the folder that becomes the root, and the table of what is mounted in it."""
    root, table = reach.folder / "root", reach.folder / "mounts"
    shutil.rmtree(root, ignore_errors=True)
    mounts = [(str(root), str(root), "none", "bind,ro,nosuid,nodev")]

    def add(
        path: Path | str, make: Callable[[Path], None], kind: str, options: str
    ) -> None:
        inside = Path(f"{root}{path}")
        _make_folder(root, inside.parent)
        make(inside)
        mounts.append((str(path), str(inside), kind, options))

    def folder(path: Path) -> None:
        _make_folder(root, path)

    for each in ("proc", "dev", _OLD_ROOT):
        folder(root / each)
    for each in _PRIVATE:
        add(each, folder, "tmpfs", "nosuid,nodev,mode=1777")
    for each in _DEVICES:
        add(each, Path.touch, "none", "bind")
    for path in _programs(installation):
        if path.is_dir():
            add(path, folder, "none", f"{_READ_ONLY},{_MAKE}")
        else:
            add(path, Path.touch, "none", _READ_ONLY)
    for path in reach.shared:
        add(path, folder, "none", f"bind,nosuid,nodev,{_MAKE}")
    folder(root / "etc")
    _write_names(account, root / "etc")
    table.write_text("".join(_fstab_line(each) for each in mounts))
    return root, table


def _programs(installation: Installation) -> Iterable[Path]:
    """Return what has to be readable: the system's programs, and PostgreSQL's own."""
    visible = [Path(name) for name in _VISIBLE if Path(name).exists()]
    beside = [installation.bin_dir]
    beside += map(installation.folder, ("libdir", "pkglibdir", "sharedir"))
    # There if these are the wheel's programs, or a copy of them.
    beside.append(servers_programs.libraries(installation.bin_dir))
    return visible + [
        each
        for each in beside
        if each.is_dir() and not any(each.is_relative_to(one) for one in visible)
    ]


def _make_folder(root: Path, path: Path) -> None:
    """Make a folder and those above it, readable for everybody whatever our umask."""
    missing = [path, *(each for each in path.parents if each.is_relative_to(root))]
    for each in reversed(missing):
        if not each.exists():
            each.mkdir()
            each.chmod(0o755)


def _fstab_line(fields: Iterable[str]) -> str:
    def escaped(text: str) -> str:
        return "".join(
            f"\\{ord(each):03o}" if each in " \t\n\\#" else each for each in text
        )

    return " ".join(map(escaped, fields)) + " 0 0\n"


def _lent_name(account: Account, folder: Path) -> Mapping[str, str]:
    """Return an environment in which a user without a name has one, if that can be."""
    wrappers = [each for name in _NAME_WRAPPERS for each in Path("/usr").glob(name)]
    if has_name(account.uid) or not wrappers:
        return {}
    _write_names(account, folder)
    return {
        "LD_PRELOAD": str(wrappers[0]),
        "NSS_WRAPPER_PASSWD": str(folder / "passwd"),
        "NSS_WRAPPER_GROUP": str(folder / "group"),
    }


def _write_names(account: Account, folder: Path) -> None:
    line = f"opskit:x:{account.uid}:{account.gid}::/:/bin/sh\n"
    for name, text in (("passwd", line), ("group", f"opskit:x:{account.gid}:\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o644)


def _bare(environment: Mapping[str, str] | None = None) -> dict[str, object]:
    """Return how every process of a server is started: with a bare environment."""
    path = os.environ.get("PATH", os.defpath)
    return {
        "cwd": "/",
        "env": {"PATH": path, "LC_ALL": "C", "TZ": "UTC", **(environment or {})},
        "process_group": 0,
    }
