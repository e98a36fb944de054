"""What CI does for a retraining, for any CI system; .github/workflows/retrain.yml is a thin face of it.

    python -m cliprd.retrain.ci train     bring the data that DVC tracks, then `cliprd retrain`: work/retrain/report.md
    python -m cliprd.retrain.ci record    commit and push dvc.lock, where the retraining has changed it

Run it in a checkout. docs/retraining.md has the whole story. Environment, all of it optional:

    RETRAIN_DRY_RUN=true       say what would be done, and change nothing
    RETRAIN_PROMOTE=false      train and gate only: for pull requests
    RETRAIN_RUNNER             dvc (default) or kfp
    RETRAIN_IMAGE              of the steps, for the runner kfp
    RETRAIN_METHOD, RETRAIN_SEEDS      in place of those in params.yaml: clip_rd-exp, and 0,1,2
    RETRAIN_REASON             kept with the decision
    RETRAIN_BRANCH             of `record`: where dvc.lock is pushed to
    RETRAIN_NAME, RETRAIN_EMAIL        of `record`: the commit's author
    RETRAIN_LOCK               of `record`: dvc.lock as `train` has given it to GITHUB_OUTPUT; empty: the file here

Credentials are those of DVC's remote (AWS_*), MLflow (MLFLOW_TRACKING_*) and Kubeflow (KFP_TOKEN). Only the standard
library is imported: `record` runs where cliprd is installed without its dependencies.
"""

from __future__ import annotations

import base64
import gzip
import os
import re
import secrets
import subprocess
import sys
from pathlib import Path

REPORT = Path("work/retrain")
TEXT = REPORT / "report.md"
LOCK = Path("dvc.lock")
CLIPRD = (sys.executable, "-m", "cliprd")
ATTEMPTS = 3


def main(arguments: list[str]) -> int:
    """Entry point: the exit code of `cliprd retrain`, or of the first command that failed."""
    actions = {"train": train, "record": record}
    if len(arguments) != 1 or arguments[0] not in actions:
        print(__doc__, file=sys.stderr)
        return 2
    for name in [name for name, value in os.environ.items() if re.match("(AWS|MLFLOW|KFP|KF)_", name) and not value]:
        del os.environ[name]  # a CI system sets what it lacks to nothing
    os.environ["DVC_NO_ANALYTICS"] = "1"
    try:
        os.chdir(_output("git", "rev-parse", "--show-toplevel"))
        return actions[arguments[0]]()
    except subprocess.CalledProcessError as error:  # it has said on stderr what is wrong
        print(f"retrain: `{' '.join(map(str, error.cmd[:3]))} ...` failed", file=sys.stderr)
        return error.returncode if error.returncode > 0 else 1


def train() -> int:
    """`cliprd retrain`; the report, whatever happens, goes to the jobs that follow and to the run's summary."""
    REPORT.mkdir(parents=True, exist_ok=True)
    for path in (TEXT, REPORT / "report.json"):
        path.unlink(missing_ok=True)
    code = 1
    try:
        code = _train()
    except subprocess.CalledProcessError as error:
        code = error.returncode
        raise
    finally:
        _publish(code)
    return code


def _train() -> int:
    if _is_off():  # a copy of the repository that nobody has set up: not a failure at every push
        TEXT.write_text("## Retraining: off\n\nparams.yaml names no place for a champion (promote.champion).\n")
        print(TEXT.read_text(), flush=True)
        return 0
    pointers = _output("git", "ls-files", "-z", "--", "*.dvc").split("\0")
    if any(pointers) and _output("dvc", "config", "core.remote", check=False):
        subprocess.run(["dvc", "pull", *filter(None, pointers)], check=True)
    command = [*CLIPRD, "retrain", "--output", str(REPORT), "--runner", os.environ.get("RETRAIN_RUNNER") or "dvc"]
    for name, option in (
        ("RETRAIN_IMAGE", "--image={}"),
        ("RETRAIN_REASON", "--reason={}"),
        ("RETRAIN_METHOD", "--set=retrain.method={}"),
        ("RETRAIN_SEEDS", "--set=retrain.seeds=[{}]"),
    ):
        if value := os.environ.get(name):
            command.append(option.format(value))
    if (os.environ.get("RETRAIN_PROMOTE") or "true") != "true":
        command.append("--no-promote")
    if os.environ.get("RETRAIN_DRY_RUN") != "true":
        return subprocess.run(command, check=False).returncode
    ran = subprocess.run([*command, "--dry-run"], stdout=subprocess.PIPE, text=True, check=False)
    TEXT.write_text(ran.stdout, encoding="utf-8")
    print(ran.stdout, flush=True)
    return ran.returncode


def _is_off() -> bool:
    section = re.search(r"^promote:\n((?: .*\n)*)", _output(*CLIPRD, "params", check=False) + "\n", re.MULTILINE)
    return bool(section and re.search(r"^  champion: ''$", section[1], re.MULTILINE))


def _publish(code: int) -> None:
    if not TEXT.is_file() or not TEXT.read_text(encoding="utf-8").strip():  # a dry run that failed leaves it empty
        end = f"It ended with exit code {code} before it could write a report; see the log."
        TEXT.write_text(f"## Retraining: failed\n\n{end}\n", encoding="utf-8")
    text = TEXT.read_text(encoding="utf-8")
    _set_output("report", text)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with open(summary, "a", encoding="utf-8") as file:
            file.write(text)
    if code == 0 and LOCK.is_file() and _output("git", "status", "--porcelain", "--", str(LOCK)):
        _set_output("lock", base64.b64encode(gzip.compress(LOCK.read_bytes(), mtime=0)).decode())


def _set_output(name: str, value: str) -> None:
    """For the jobs that follow."""
    if target := os.environ.get("GITHUB_OUTPUT"):
        end = f"end-{secrets.token_hex(8)}"
        with open(target, "a", encoding="utf-8") as file:
            file.write(f"{name}<<{end}\n{value}\n{end}\n")


def record() -> int:
    """Commit dvc.lock, and push it upon what others have pushed meanwhile."""
    for role in ("AUTHOR", "COMMITTER"):  # for the commit, and for `pull --rebase`, which makes it again
        os.environ[f"GIT_{role}_NAME"] = os.environ.get("RETRAIN_NAME") or "cliprd retrain"
        os.environ[f"GIT_{role}_EMAIL"] = os.environ.get("RETRAIN_EMAIL") or "cliprd@localhost"
    if lock := os.environ.get("RETRAIN_LOCK"):
        LOCK.write_bytes(gzip.decompress(base64.b64decode(lock)))
    branch = os.environ["RETRAIN_BRANCH"]
    subprocess.run(["git", "add", str(LOCK)], check=True)
    if subprocess.run(["git", "diff", "--cached", "--quiet"], check=False).returncode == 0:
        print("retrain: dvc.lock is as it was")
        return 0
    message = ["-m", "Retrained: dvc.lock", "-m", os.environ.get("RETRAIN_REASON", "")]
    subprocess.run(["git", "commit", "-q", *message], check=True)
    for _ in range(ATTEMPTS):
        if subprocess.run(["git", "push", "-q", "origin", f"HEAD:refs/heads/{branch}"], check=False).returncode == 0:
            return 0
        subprocess.run(["git", "pull", "-q", "--rebase", "origin", branch], check=True)
    print(f"retrain: dvc.lock could not be pushed to {branch}", file=sys.stderr)
    return 1


def _output(*command: str, check: bool = True) -> str:
    """What a command prints; empty where it may fail and does."""
    try:
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=check)
    except FileNotFoundError:
        if check:
            raise
        return ""
    return ran.stdout.strip() if ran.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
