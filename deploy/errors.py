"""What an operator is told when a command cannot go on.

    Trouble                exit 1: something is wrong, or the answer is no
    ├── UsageTrouble       exit 2: the command was called or set up wrongly
    └── NotReachable       exit 3: a process or server it needs does not answer

Every one carries one line that says what is wrong and one that says what to do. `deploy.cli.main`
prints them and never shows a traceback for them.
"""

import errno

NEEDED_BYTES = 300 * 1024 * 1024


class Trouble(Exception):
    """`what` is wrong and what `todo` about it; `exit_code` is what the command ends with."""

    exit_code = 1

    def __init__(self, what: str, todo: str) -> None:
        super().__init__(what)
        self.what = what
        self.todo = todo

    def __str__(self) -> str:
        return f"{self.what}\n{self.todo}"


class UsageTrouble(Trouble):
    """The command line or a setting is wrong."""

    exit_code = 2


class NotReachable(Trouble):
    """No connection to something the command needs."""

    exit_code = 3


def trouble_of(error: OSError) -> Trouble | None:
    """The advice for an operating-system error that has one, else `None`."""
    name = error.filename or "the state folder"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Trouble(
            f"The disk that holds {name} is full.",
            "Free some space there, or set AFTERWRITE_HOME to a folder on another disk.",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Trouble(
            f"No permission to write {name}.",
            "Run as the user who owns it, or set AFTERWRITE_HOME to a folder of your own.",
        )
    return None
