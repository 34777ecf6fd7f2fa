"""Starts one program so that it cannot outlive us. Run as a script; uses the standard library only.

    python launch.py --parent PID --signal N [--as userns|UID] [--need PATH]… -- PROGRAM ARG…

On Linux the kernel is asked to send signal N to the program when the *thread* that started us ends,
and we then become the program: it has our process id. Elsewhere we stay as its parent, watch ours,
and pass signals on.

`--as userns` makes a user namespace in which we have uid 1000 instead of 0. PostgreSQL, which
refuses to run as root, then runs, and files keep their owner and parents of the folder need no
permissions for others. `--as UID` gives up root for real. `--need` names paths the program must
reach after that; exit code 126 says that one is out of reach, 125 that the change was refused.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1
INSIDE_ID = 1000
REFUSED, OUT_OF_REACH = 125, 126


def _fail(code: int, text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
    os._exit(code)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _enter_user_namespace() -> None:
    uid, gid = os.getuid(), os.getgid()
    if _libc().unshare(CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWUSER)")
    # The kernel wants setgroups closed before an unprivileged process may map its group.
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{INSIDE_ID} {uid} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{INSIDE_ID} {gid} 1", encoding="ascii")


def _become(who: str) -> None:
    if who == "userns":
        _enter_user_namespace()
    elif who:
        os.setgroups([])
        os.setgid(int(who))
        os.setuid(int(who))


def tie(parent: int, number: int) -> None:
    """Linux: the kernel signals us when the parent's thread ends. After a change of user only,
    because that change clears the request. Elsewhere nothing happens."""
    if sys.platform != "linux":
        return
    _libc().prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(0)


def _watch(parent: int, number: int, command: list[str]) -> int:
    child = subprocess.Popen(command)
    for passed_on in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(passed_on, lambda got, _frame: child.send_signal(got))
    while child.poll() is None:
        if os.getppid() != parent:
            child.send_signal(number)
            return child.wait()
        time.sleep(0.2)
    return child.returncode


def _options(argv: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    cut = argv.index("--")
    options: dict[str, list[str]] = {}
    for name, value in zip(argv[0:cut:2], argv[1:cut:2], strict=True):
        options.setdefault(name.removeprefix("--"), []).append(value)
    return options, argv[cut + 1 :]


def main(argv: list[str]) -> int:
    options, command = _options(argv)
    parent, number = int(options["parent"][0]), int(options["signal"][0])
    try:
        _become(options.get("as", [""])[0])
    except OSError as error:
        _fail(REFUSED, f"cannot change user: {error}")
    for path in options.get("need", []):
        if not os.access(path, os.R_OK | os.X_OK):
            _fail(OUT_OF_REACH, path)
    if sys.platform != "linux" or "watch" in options:
        return _watch(parent, number, command)
    tie(parent, number)
    try:
        os.execv(command[0], command)  # noqa: S606 (no shell is wanted)
    except OSError as error:
        _fail(127, f"{command[0]}: {error.strerror}")
    return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
