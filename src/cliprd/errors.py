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

import re


def one_line(text: str) -> str:
    """`text` on one line of a terminal: line breaks become spaces, other control characters their escapes."""
    spaced = re.sub(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*", " ", text.strip())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in spaced)


class CliprdError(Exception):
    """Base of all failures meant for the user: printed as one line, without a traceback.

    Args:
        problem: what is wrong, and where (file, key, sample).
        remedy: what to do about it: a command or an edit.
    """

    exit_code = 1
    retryable = False

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = one_line(problem)
        self.remedy = one_line(remedy)
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
