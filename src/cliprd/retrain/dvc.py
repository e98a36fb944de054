"""Training by DVC, in the repository that is the present folder: `dvc repro` of what the retraining needs.

The work is DVC's: what has not changed is not run again, and what its remote holds is pulled. DVC's own run
cache does not know stages whose folders persist (a killed stage resumes from its leftovers), so a finished retraining
leaves its `dvc.lock` in the remote, under a name made of its inputs: the run after the merge finds what the pull
request's run has trained. A lock is a hint only: DVC compares everything with what is here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cliprd import storage
from cliprd.artifact import manifest
from cliprd.errors import CliprdError, InputError, MachineError, ParamsError, RetryableError, of_exit_code
from cliprd.extras import install
from cliprd.files import atomic_write, sweep_beside
from cliprd.lineage import inputs
from cliprd.machine import end_with_parent
from cliprd.names import one_line
from cliprd.params import Params, load
from cliprd.promotion.promote import judge
from cliprd.retrain.proposal import Plan
from cliprd.retrain.run import Judged, settle
from cliprd.tracking.provenance import git_head

LOCK = Path("dvc.lock")
LOCKS = "cliprd/locks"
INPUTS = "work/inputs"  # where dvc.yaml has `cliprd inputs` write
_TOGETHER = (
    'trap "trap - TERM; kill 0" TERM; "$@" & wait $!'  # SIGTERM, here of a parent's end, goes to the whole group
)
_EXITED = re.compile(r"exited with (-?\d+)")


class Repository:
    """The DVC repository in the present folder: a `Runner`.

    Raises:
        MachineError: DVC is not installed. InputError: there is no repository here.
        ParamsError: `dvc repro` would train something else than these parameters say.
    """

    name = "dvc"

    def __init__(self, params: Params) -> None:
        self.params = params
        if shutil.which("dvc") is None:
            raise MachineError(
                "dvc is not on the PATH.", f"Activate the environment it is in, or install it: {install('dvc')}"
            )
        if not Path("dvc.yaml").is_file():
            raise InputError("There is no dvc.yaml here.", "Run it where dvc.yaml lies, or use --runner kfp.")
        self._same_parameters()
        grid = params.ablation
        self.names = [f"{params.retrain.method}-{seed}" for seed in params.retrain.seeds]
        if params.retrain.method not in grid.methods:
            raise ParamsError(
                f"retrain.method = '{params.retrain.method}' is not in ablation.methods ({', '.join(grid.methods)}), "
                "which are the stages of dvc.yaml.",
                "Add it there.",
            )
        if absent := [seed for seed in params.retrain.seeds if seed not in grid.seeds]:
            raise ParamsError(
                f"retrain.seeds: {absent[0]} is not in ablation.seeds ({', '.join(map(str, grid.seeds))}), "
                "which are the stages of dvc.yaml.",
                "Add it there.",
            )
        self.remote = _config("core.remote")

    @property
    def targets(self) -> list[str]:
        """Stages that a retraining wants, and all that they depend on with them."""
        return [f"{stage}@{name}" for name in self.names for stage in ("distill", "benchmark")]

    def _same_parameters(self) -> None:
        """DVC reads params.yaml, whatever the command line says."""
        file = load(Path("params.yaml"))
        for section in Params.model_fields:
            if section not in ("retrain", "promote") and getattr(file, section) != getattr(self.params, section):
                raise ParamsError(
                    f"`dvc repro` reads params.yaml, whose section '{section}' differs from what this command has.",
                    "Write it into params.yaml; only retrain and promote can be set for one run.",
                )

    def would_run(self, planned: Plan) -> list[str]:
        """Stages that have changed, and all that come after them: those end earlier where they find nothing new."""
        if self._recorded(planned.inputs):
            return []
        changed = _changed_stages(_query("status", "--json", "--with-deps", *self.targets), missing=not self.remote)
        changed |= _changed_outside(self.params)
        graph = _query("dag", "--dot")
        edges = re.findall(r'^"([^"]+)" -> "([^"]+)";$', graph, re.MULTILINE)
        wanted = _reached(self.targets, [(after, before) for before, after in edges])
        stages = wanted & _reached(changed, edges)
        order = re.findall(r'^"([^"]+)";$', graph, re.MULTILINE)
        return [stage for stage in order if stage in stages and not stage.endswith(".dvc")]

    def retrain(self, planned: Plan, *, promote: bool, output: Path, asked_by: Mapping[str, str]) -> Judged:
        """Train and ask the gate; then push; then promote or refuse. See `Runner.retrain`."""
        student, benchmarks = self.train(planned.inputs)
        decision = judge(self.params, student, benchmarks, output / "gate")
        pushed = self.push(planned.inputs)
        version = settle(self.params, planned, student, benchmarks, decision, asked_by) if promote else None
        return Judged(decision, benchmarks, version, pushed)

    def train(self, digest: str) -> tuple[Path, list[Path]]:
        """Bring everything up to date.

        Args:
            digest: of all that goes in, the name under which the lock is looked up.

        Returns:
            Folders: of the first seed's student, and of its scores and the other seeds'.

        Raises:
            CliprdError: a stage failed; the error has its exit code.
        """
        self._recall(digest)
        options = ["--pull", "--allow-missing"] if self.remote else []
        lines = _follow(["dvc", "repro", *options, *self.targets])
        if lines is not None:
            raise _stage_failure(lines)
        folders = [Path("work/students") / self.names[0], *(Path("work/benchmark") / name for name in self.names)]
        if not all(
            (folder / manifest.NAME).is_file() for folder in folders
        ):  # DVC took them as done, and has not pulled them
            self._transfer("pull", *self.targets)
        return folders[0], folders[1:]

    def push(self, digest: str) -> str:
        """Bring the results into the remote, then the lock that names them. Returns what was done, for the report.

        Raises:
            RetryableError: the push failed.
        """
        if not self.remote:
            return "nothing was pushed: DVC has no default remote (`dvc remote add -d NAME URL`)"
        self._transfer("push", "--with-deps", *self.targets)
        with _only_a_hint("kept"):
            if url := self._lock_url(digest):
                storage.write_bytes(url, LOCK.read_bytes())
        return f"pushed to DVC's remote '{self.remote}'"

    def _transfer(self, action: str, *arguments: str) -> None:
        """`dvc pull` or `dvc push`."""
        lines = _follow(["dvc", action, *arguments])
        if lines is not None:
            problem = f"dvc {action} failed (remote '{self.remote}'): {_last(lines)}"
            raise RetryableError(problem, "Run the same command again.")

    def _lock_url(self, digest: str) -> str | None:
        """Where the lock of a retraining lies; None where the remote is not one that is reached from here as well."""
        url = _config(f"remote.{self.remote}.url")
        elsewhere = _config(f"remote.{self.remote}.endpointurl") not in ("", os.environ.get("AWS_ENDPOINT_URL"))
        here = Path(url).is_absolute() or (storage.is_s3(url) and not elsewhere)
        return storage.join(url, f"{LOCKS}/{digest}.yaml") if here else None

    def _recorded(self, digest: str) -> bytes | None:
        with _only_a_hint("looked for"):
            url = self._lock_url(digest) if self.remote else None
            return storage.read_bytes(url) if url else None
        return None

    def _recall(self, digest: str) -> None:
        data = self._recorded(digest)
        if data is None:
            return
        known = _known()
        merged = {**known, "stages": {**known["stages"], **yaml.safe_load(data)["stages"]}}
        if merged != known:
            sweep_beside(LOCK)
            with atomic_write(LOCK, "w") as file:
                yaml.safe_dump(merged, file, sort_keys=False, allow_unicode=True)
        print("retrain: the same inputs were trained before; DVC's remote has the results", flush=True)


def _known() -> dict[str, Any]:
    """The content of dvc.lock here."""
    if not LOCK.is_file():
        return {"schema": "2.0", "stages": {}}
    try:
        known = yaml.safe_load(LOCK.read_text(encoding="utf-8"))
        if isinstance(known["stages"], dict):
            return dict(known)
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError):
        pass
    raise InputError(
        "dvc.lock is damaged: empty, cut, or with the marks of a merge's conflict.",
        "Take one from git (`git checkout HEAD -- dvc.lock`), or delete it: what DVC's remote holds is found again.",
    )


def revision() -> Mapping[str, Any]:
    """Of git, for the report; empty outside a repository, and without git."""
    commit, changed = git_head()
    return {"revision": commit, "changed": changed} if commit else {}


@contextlib.contextmanager
def _only_a_hint(what: str) -> Iterator[None]:
    """Without the lock a merge trains again; its failure must not end a retraining."""
    try:
        yield
    except CliprdError as error:
        print(
            one_line(f"cliprd: warning: the lock of this retraining was not {what}: {error}"),
            file=sys.stderr,
            flush=True,
        )


def _query(*arguments: str) -> str:
    """The output of a dvc command that changes nothing."""
    ran = subprocess.run(["dvc", *arguments], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise InputError(
            f"dvc {arguments[0]}: {_last(ran.stderr)}", "Repair the repository: `dvc status`, `dvc doctor`."
        )
    return ran.stdout


def _changed_stages(status: str, *, missing: bool) -> set[str]:
    """Stages of `dvc status --json` with a change, or with what is missing here and can be brought from nowhere.

    What lies outside is left to `_changed_outside`: DVC knows it as the stage `inputs` found it last.
    """
    quiet = {"always changed"} if missing else {"always changed", "deleted", "not in cache"}

    def states(entry: Any) -> set[str]:
        if isinstance(entry, str):
            return {entry}
        seen = (value for name, value in entry.items() if not name.startswith(f"{INPUTS}/"))
        return set().union(*map(states, seen))

    return {
        stage
        for stage, entries in json.loads(status or "{}").items()
        if set().union(*(states(entry) for entry in entries)) - quiet
    }


def _changed_outside(params: Params) -> set[str]:
    """Stages that have seen other data, tasks, weights or code than there are now."""
    present = inputs.files(params).items()
    content = {f"{INPUTS}/{name}": hashlib.md5(data, usedforsecurity=False).hexdigest() for name, data in present}
    return {
        stage
        for stage, entry in _known()["stages"].items()
        for dep in entry.get("deps", ())
        if content.get(dep["path"], dep.get("md5")) != dep.get("md5")
    }


def _reached(first: Iterable[str], edges: Sequence[tuple[str, str]]) -> set[str]:
    """These and all that edges lead to from them."""
    reached = set(first)
    while further := {end for start, end in edges if start in reached} - reached:
        reached |= further
    return reached


def _config(name: str) -> str:
    ran = subprocess.run(["dvc", "config", name], capture_output=True, text=True, check=False)
    return ran.stdout.strip() if ran.returncode == 0 else ""


def _follow(command: Sequence[str]) -> list[str] | None:
    """Run it and show its output; None if it succeeded, else the lines of its output.

    However this process ends, the command does too, with the stage that it may have started: an orphan would train on,
    and the next attempt meet it.
    """
    process = subprocess.Popen(
        ["sh", "-c", _TOGETHER, "sh", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=end_with_parent,
    )
    lines = []
    assert process.stdout is not None
    try:
        for line in process.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            lines.append(line.rstrip())
        return lines if process.wait() else None
    except BaseException:
        process.terminate()
        process.wait()
        raise


def _stage_failure(lines: Sequence[str]) -> CliprdError:
    """With the exit code of the stage that failed, which DVC does not pass on."""
    code = next((int(match[1]) for line in reversed(lines) if (match := _EXITED.search(line))), 1)
    messages = [line.partition("cliprd: error: ")[2] for line in lines if "cliprd: error: " in line]
    if not messages and (lost := [line for line in lines if "Unable to acquire lock" in line]):
        return MachineError(f"dvc repro: {lost[-1]}", "Wait for the other dvc command.")
    error = of_exit_code(code)
    return error(f"dvc repro: {messages[-1] if messages else _last(lines)}", "The champion stays as it was.")


def _last(lines: Sequence[str] | str) -> str:
    lines = lines.splitlines() if isinstance(lines, str) else lines
    filled = [line for line in lines if line.strip()]
    errors = [line for line in filled if line.startswith("ERROR")]
    return (errors or filled or ["it printed nothing"])[-1]
