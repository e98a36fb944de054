"""Typed failures. Each says what is wrong, where, and what to do; its exit code tells a scheduler whether to retry.

| exit code | class                | retry? | meaning                                              |
|-----------|----------------------|--------|------------------------------------------------------|
| 1         | (any other)          | no     | a defect in cliprd                                   |
| 2         | ParamsError          | no     | params.yaml, an override or a command line is wrong  |
| 3         | InputError           | no     | data, cache, weights or a manifest are wrong         |
| 4         | DivergedError        | no     | training produced NaN/Inf or a scale ran away        |
| 5         | EnvironmentError_    | no     | disk full, folder unwritable, package missing        |
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
    """Training left the finite numbers, or a learned scale ran away."""

    exit_code = 4


class EnvironmentError_(CliprdError):
    """The machine cannot do it: disk full, folder not writable, an optional package not installed."""

    exit_code = 5


class RetryableError(CliprdError):
    """May heal by itself: network, throttling, preemption. 75 is sysexits' EX_TEMPFAIL."""

    exit_code = 75
    retryable = True


_REMEDIES = {
    errno.ENOSPC: "Free some space on its disk, then run the same command again.",
    errno.EDQUOT: "The quota is used up: free some space, then run the same command again.",
    errno.EFBIG: "A limit on the size of files is in force (`ulimit -f`): raise it, then run the same command again.",
    errno.EIO: "The disk or its network has failed: look at the kernel's log.",
    errno.EROFS: "Give a place that can be written, as with another --output.",
    errno.EACCES: "Fix its permissions, or give another place.",
    errno.EPERM: "Fix its permissions, or give another place.",
    errno.EMFILE: "Raise the limit on open files (`ulimit -n`).",
    errno.ENFILE: "The machine has too many open files: end other programs.",
    errno.ENOMEM: "Free memory, or lower batch_size or workers.",
    errno.EISDIR: "A file is needed there: remove the folder, or give another place.",
    errno.ENOTDIR: "A folder is needed there: remove the file, or give another place.",
    errno.EEXIST: "Something else has that name: remove it, or give another place.",
    errno.ENOENT: "Make it again with the command that writes it, or check the path.",
    errno.ENAMETOOLONG: "Give a shorter name.",
    errno.ELOOP: "A symbolic link leads back to itself: remove it.",
}
_OF_INPUT = {errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP}


def of_system(error: OSError, place: object = None) -> CliprdError | None:
    """What the operating system refused, as one line; None for an error that names neither a number nor a file.

    Args:
        place: what was worked on, where the error itself names no file.
    """
    if isinstance(error, ConnectionError | TimeoutError):
        return RetryableError(f"The network has failed: {error.strerror or error}.", "Try again.")
    where = error.filename if error.filename is not None else place
    if error.errno is None or (where is None and error.errno not in _REMEDIES):
        return None
    named = where.decode(errors="replace") if isinstance(where, bytes) else where
    told = str(named) if len(str(named)) < 300 else f"{str(named)[:300]}…"
    problem = f"{told}: {error.strerror}." if named is not None else f"{error.strerror}."
    kind = InputError if error.errno in _OF_INPUT else EnvironmentError_
    return kind(problem, _REMEDIES.get(error.errno, ""))
