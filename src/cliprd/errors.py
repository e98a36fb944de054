"""Exceptions for users. Each states what is wrong, where, and what to do; its exit code shows whether to retry.

| exit code | class                | retry? | meaning                                              |
|-----------|----------------------|--------|------------------------------------------------------|
| 1         | (any other)          | no     | a defect in cliprd                                   |
| 2         | ParamsError          | no     | params.yaml, an override or a command line is wrong  |
| 3         | InputError           | no     | data, cache, weights or a manifest are wrong         |
| 4         | DivergedError        | no     | training gave NaN/Inf, or a scale left its limits    |
| 5         | MachineError         | no     | disk full, folder not writable, package missing      |
| 75        | RetryableError       | yes    | network, preemption: the same call may succeed later |
"""

from __future__ import annotations

import errno

from cliprd.names import visible


class CliprdError(Exception):
    """Base of all failures meant for the user: one line without control characters, printed without a traceback.

    Args:
        problem: what is wrong, and where (file, key, sample).
        remedy: what to do about it: a command or an edit.
    """

    exit_code = 1
    retryable = False

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = visible(problem.strip())
        self.remedy = visible(remedy.strip())
        super().__init__(f"{self.problem} {self.remedy}".strip())


class ParamsError(CliprdError):
    """A parameter, an override or an argument is not what the schema allows."""

    exit_code = 2


class InputError(CliprdError):
    """An input folder, file or weight is missing, damaged or belongs to something else."""

    exit_code = 3


class DivergedError(CliprdError):
    """Training gave NaN or infinite values, or a learned scale exceeded its limit."""

    exit_code = 4


class MachineError(CliprdError):
    """The machine lacks something: disk full, folder not writable, an optional package not installed."""

    exit_code = 5


class RetryableError(CliprdError):
    """A temporary failure: network, throttling, preemption. 75 is sysexits' EX_TEMPFAIL."""

    exit_code = 75
    retryable = True


_REMEDIES = {
    errno.ENOSPC: "Free some space on its disk, then run the same command again.",
    errno.EDQUOT: "The quota is used up: free some space, then run the same command again.",
    errno.EFBIG: "A limit on the size of files is in force (`ulimit -f`): raise it, then run the same command again.",
    errno.EIO: "The disk or its network has failed: look at the kernel's log.",
    errno.EROFS: "Give a writable path, for example another --output.",
    errno.EACCES: "Fix its permissions, or give another path.",
    errno.EPERM: "Fix its permissions, or give another path.",
    errno.EMFILE: "Raise the limit on open files (`ulimit -n`).",
    errno.ENFILE: "The machine has too many open files: close other programs.",
    errno.ENOMEM: "Free memory, or lower batch_size or workers.",
    errno.EISDIR: "A file is needed there: remove the folder, or give another path.",
    errno.ENOTDIR: "A folder is needed there: remove the file, or give another path.",
    errno.EEXIST: "Something else has that name: remove it, or give another path.",
    errno.ENOENT: "Create it with the command that writes it, or check the path.",
    errno.ENAMETOOLONG: "Give a shorter name.",
    errno.ELOOP: "A symbolic link points to itself: remove it.",
}
_OF_INPUT = {errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP}


def of_exit_code(code: int) -> type[CliprdError]:
    """The class here that ends a process with this exit code; `CliprdError`, a defect, for any other."""
    kinds = [kind for kind in CliprdError.__subclasses__() if kind.__module__ == __name__]
    return next((kind for kind in kinds if kind.exit_code == code), CliprdError)


def of_system(error: OSError, place: object = None) -> CliprdError | None:
    """An operating system's error as a CliprdError; None if it has neither an error number nor a file.

    Args:
        place: path in use, for errors that name no file.
    """
    if isinstance(error, ConnectionError | TimeoutError):
        return RetryableError(f"The network has failed: {error.strerror or error}.", "Try again.")
    where = error.filename if error.filename is not None else place
    if error.errno is None or (where is None and error.errno not in _REMEDIES):
        return None
    shown_name = where.decode(errors="replace") if isinstance(where, bytes) else where
    path = str(shown_name) if len(str(shown_name)) < 300 else f"{str(shown_name)[:300]}…"
    problem = f"{path}: {error.strerror}." if shown_name is not None else f"{error.strerror}."
    kind = InputError if error.errno in _OF_INPUT else MachineError
    return kind(problem, _REMEDIES.get(error.errno, ""))
