"""The command line: parse, load parameters, call a stage, turn a failure into one line and an exit code.

Nothing heavy is imported here or at module level of what `--help` touches: a stage's module is imported when it runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cliprd.names import one_line, shown_streams, visible

if TYPE_CHECKING:
    from cliprd.manifest import Manifest
    from cliprd.params import Params
    from cliprd.retrain.run import Runner
    from cliprd.storage import Location
    from pipelines.client import Api

EPILOG = """folders (DIR) may lie in S3: s3://bucket/prefix

exit codes: 0 done, 2 wrong parameters, 3 wrong or damaged input, 4 training diverged, 5 machine not fit,
75 may succeed if tried again, 1 a failed run, a difference (diff), a refusal (promote), or a defect in cliprd
(see it with --debug); ended by a signal: 130 SIGINT, 143 SIGTERM, 129 SIGHUP"""


class _Parser(argparse.ArgumentParser):
    """Reports what is wrong with a command line in one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        self.exit(_fail(f"{message} (see `{self.prog} --help`)", 2))


def parser() -> _Parser:
    """The whole command line; its help text is frozen by a test."""
    common = _Parser(add_help=False)
    group = common.add_argument_group("on every command")
    group.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE", help="parameter file")
    group.add_argument("--set", action="append", default=[], metavar="A.B=C", dest="overrides", help="override one key")
    group.add_argument("--debug", action="store_true", help="show the traceback of a failure")

    root = _Parser(
        prog="cliprd",
        description="Distil a large CLIP into a small one with relational distillation (CLIP-RD).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # `--out` would change its meaning with the first new option
    )
    root.add_argument("--version", action="store_true", help="print the version and exit")
    commands = root.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, call: Callable[[argparse.Namespace], int], text: str) -> _Parser:
        sub = commands.add_parser(name, parents=[common], help=text, description=text, allow_abbrev=False)
        sub.set_defaults(call=call)
        return sub

    def stage(name: str, text: str, **inputs: str) -> _Parser:
        sub = command(name, _run_stage, text)
        for flag, value in inputs.items():
            required, _, explain = value.partition("|")
            sub.add_argument(f"--{flag}", type=_folder, required=required == "!", metavar="DIR", help=explain)
        sub.add_argument("--output", type=_folder, required=True, metavar="DIR", help="folder to write")
        sub.set_defaults(inputs=tuple(inputs))
        return sub

    outside = command(
        "inputs", _inputs, "look at data, benchmark tasks and teacher's weights, for DVC to see what changed outside"
    )
    outside.add_argument("--output", type=_here, required=True, metavar="DIR", help="folder for a small file of each")
    stage("prepare", "pack image-caption pairs into checked shards (params: data)")
    stage("teacher", "make the teacher ready, training the demo one (params: teacher)", shards="!|folder of `prepare`")
    cache = stage(
        "cache",
        "embed the shards with the teacher (params: cache, augmentation)",
        shards="!|folder of `prepare`",
        teacher="!|folder of `teacher`",
    )
    cache.add_argument("--part", metavar="K/N", help="only the K-th (from 0) of N runs of shards, for `merge`")
    stage(
        "merge",
        "join the parts of a cache that was embedded on several machines",
        shards="!|folder of `prepare`",
        parts="!|folder of folders of `cache --part`",
    )
    distill = stage(
        "distill",
        "train a student from shards and cache (params: distill, student)",
        shards="!|folder of `prepare`",
        cache="!|folder of `cache`",
    )
    distill.add_argument("--method", metavar="NAME", help="same as --set distill.method=NAME")
    distill.add_argument("--seed", metavar="N", help="same as --set distill.seed=N")
    stage(
        "benchmark",
        "evaluate a student or the teacher zero-shot (params: benchmark)",
        model="!|folder of `distill` or `teacher`",
        reference="|the teacher's benchmark folder, for fidelity",
    )
    stage(
        "compare",
        "compare methods and seeds; write the report (params: ablation, compare)",
        benchmarks="!|folder of benchmark folders",
        students="!|folder of student folders",
    )
    promote = command(
        "promote",
        _promote,
        "make a student the champion if it is significantly better (params: promote); exit code 1: it was refused",
    )
    promote.add_argument(
        "--allow-guessing",
        action="append_const",
        dest="overrides",
        const="promote.allow_guessing=true",
        help="same as --set promote.allow_guessing=true: promote a student that is not above guessing",
    )
    promote.add_argument("--student", type=_folder, required=True, metavar="DIR", help="folder of `distill`")
    promote.add_argument(
        "--benchmark",
        type=_folder,
        required=True,
        action="append",
        metavar="DIR",
        help="folder of `benchmark`; again for each further seed",
    )
    promote.add_argument("--output", type=_folder, required=True, metavar="DIR", help="folder for the decision")
    promote.add_argument("--dry-run", action="store_true", help="decide, and change nothing")
    promote.add_argument("--reason", default="", metavar="TEXT", help="kept with the decision; default: CI's run")
    rollback = command("rollback", _rollback, "make the champion before this one the champion again (params: promote)")
    rollback.add_argument("--to", metavar="VERSION", help="that one instead of the one before")
    rollback.add_argument("--reason", default="", metavar="TEXT", help="kept with it; default: CI's run")
    again = command(
        "retrain",
        _retrain,
        "train, gate and promote a student if data, parameters or code have changed since the champion"
        " (params: retrain, promote)",
    )
    again.add_argument("--dry-run", action="store_true", help="say what would be done and why; change nothing")
    again.add_argument("--runner", choices=("dvc", "kfp"), default="dvc", help="who trains (default: dvc)")
    again.add_argument("--no-promote", action="store_true", help="train and gate only, as for a pull request")
    again.add_argument("--output", type=_here, default=Path("work/retrain"), metavar="DIR", help="folder of the report")
    again.add_argument("--reason", default="", metavar="TEXT", help="kept with the decision; default: CI's run")
    kfp = again.add_argument_group("with --runner kfp")
    kfp.add_argument("--host", metavar="URL", help="of Kubeflow Pipelines; default: KF_PIPELINES_ENDPOINT")
    kfp.add_argument("--local", choices=("docker", "process"), help="here instead, in containers or processes")
    kfp.add_argument("--namespace", metavar="NAME", help="yours, in multi-user Kubeflow")
    kfp.add_argument("--token-file", type=Path, metavar="FILE", help="holds a token; default: KFP_TOKEN holds it")
    kfp.add_argument("--image", metavar="NAME", help="of the steps; default: the content-made tag of `make images`")
    kfp.add_argument("--allow-mutable-image", action="store_true", help="take a tag that can move")
    pipeline = commands.add_parser(
        "pipeline",
        help="Kubeflow pipelines: compile, run here, submit to a cluster",
        description="Kubeflow pipelines.",
        allow_abbrev=False,
    )
    actions = pipeline.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, call: Callable[[argparse.Namespace], int], text: str) -> _Parser:
        sub = actions.add_parser(name, parents=[common], help=text, description=text, allow_abbrev=False)
        sub.add_argument("pipeline", choices=("distill", "ablation", "retrain"), help="which pipeline")
        sub.add_argument("--image", metavar="NAME", help="of the steps; default: the content-made tag of `make images`")
        sub.add_argument("--allow-mutable-image", action="store_true", help="take a tag that can move")
        sub.set_defaults(call=call)
        return sub

    made = action("compile", _pipeline_compile, "write the pipeline as YAML for Kubeflow Pipelines")
    made.add_argument("--output", type=_here, metavar="FILE", help="default: standard output")
    here = action("run", _pipeline_run, "run the pipeline on this machine; finished steps are not run again")
    here.add_argument("--local", choices=("docker", "process"), required=True, help="steps in containers or processes")
    here.add_argument("--root", type=_here, default=Path("work/pipeline"), metavar="DIR", help="outputs and cache")
    here.add_argument("--input", action="append", default=[], metavar="NAME=VALUE", help="an input of the pipeline")

    def remote(name: str, call: Callable[[argparse.Namespace], int], text: str) -> _Parser:
        sub = action(name, call, text)
        sub.add_argument("--host", metavar="URL", help="of Kubeflow Pipelines; default: KF_PIPELINES_ENDPOINT")
        sub.add_argument("--namespace", metavar="NAME", help="yours, in multi-user Kubeflow")
        sub.add_argument("--token-file", type=Path, metavar="FILE", help="holds a token; default: KFP_TOKEN holds it")
        return sub

    def started(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--input", action="append", default=[], metavar="NAME=VALUE", help="an input of the pipeline")
        sub.add_argument("--experiment", metavar="NAME", help="of the run; default: tracking.experiment")

    there = remote("submit", _pipeline_submit, "run the pipeline on a cluster; uploads it there if its content is new")
    started(there)
    there.add_argument("--run-name", metavar="NAME", help="default: the pipeline's and the time")
    there.add_argument("--no-cache", action="store_true", help="repeat every step in this run")
    there.add_argument("--wait", action="store_true", help="follow it; fail if it does not succeed")
    there.add_argument("--timeout", type=float, metavar="SECONDS", help="of --wait; default: none")
    again = remote("schedule", _pipeline_schedule, "run the pipeline on a cluster again and again")
    started(again)
    again.add_argument("--cron", required=True, metavar="FIELDS", help="minute hour day month weekday: '0 3 * * *'")
    again.add_argument("--job-name", metavar="NAME", help="is replaced if it is there; default: the pipeline's")
    again.add_argument("--max-concurrency", type=int, default=1, metavar="N", help="runs at the same time")
    again.add_argument("--no-catchup", action="store_true", help="do not start what was missed")
    remote(
        "diff",
        _pipeline_diff,
        "what changed since the newest version on the cluster; exit code 0 nothing, 1 something",
    )
    job = actions.add_parser(
        "trainjob",
        parents=[common],
        help="write `cliprd distill` on many nodes as a job for Kubeflow's Trainer",
        description="Write `cliprd distill` on many nodes as a job for Kubeflow's Trainer (params: kubernetes).",
        allow_abbrev=False,
    )
    for name, text in (("shards", "of `prepare`"), ("cache", "of `cache`"), ("output", "to write")):
        job.add_argument(
            f"--{name}", type=_folder, required=True, metavar="DIR", help=f"folder {text}, that all nodes see"
        )
    job.add_argument("--method", metavar="NAME", help="same as --set distill.method=NAME")
    job.add_argument("--seed", metavar="N", help="same as --set distill.seed=N")
    job.add_argument("--nodes", type=int, required=True, metavar="N", help="how many; each runs distill.processes")
    job.add_argument(
        "--form", choices=("trainjob", "pytorchjob"), default="trainjob", help="of Trainer 2, or of Training Operator 1"
    )
    job.add_argument("--image", metavar="NAME", help="of the nodes; default: the content-made tag of `make images`")
    job.add_argument("--allow-mutable-image", action="store_true", help="take a tag that can move")
    job.set_defaults(call=_pipeline_trainjob)
    tag = actions.add_parser("image", help="print the content-made tag of `make images`", allow_abbrev=False)
    tag.add_argument("target", choices=("cpu", "cuda"), help="target of docker/Dockerfile")
    tag.set_defaults(call=_pipeline_image, debug=False, image=None, allow_mutable_image=False)
    ablation = commands.add_parser(
        "ablation",
        help="MLflow's runs of methods and seeds side by side",
        description="MLflow's runs of methods and seeds side by side (params: tracking).",
        allow_abbrev=False,
    )
    views = ablation.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, call, text in (
        ("show", _ablation_show, "a table of the runs, best first: mean score with interval, last loss terms, status"),
        ("open", _ablation_open, "open MLflow's page of the runs with the columns, order and filter of a comparison"),
    ):
        view = views.add_parser(name, parents=[common], help=text, description=text, allow_abbrev=False)
        view.add_argument("--experiment", metavar="NAME", help="default: tracking.experiment")
        if name == "open":
            view.add_argument("--print", action="store_true", dest="only_print", help="print the address only")
        view.set_defaults(call=call)
    show = command("params", _params, "print the resolved parameter tree")
    show.add_argument("--schema", action="store_true", help="print the JSON schema instead")
    plan = command("plan", _plan, "shapes, parameter counts and cost of a configuration, without training it")
    plan.add_argument("--samples", type=_count, metavar="N", help="pairs, for the cost; default: those in --shards")
    plan.add_argument(
        "--shards", type=_folder, default=Path("work/shards"), metavar="DIR",
        help="folder of `prepare`; where it has not packed data.path yet, that is counted (default: work/shards)",
    )  # fmt: skip
    lineage = command("lineage", _lineage, "where a student comes from, back to the raw shards, with its scores")
    lineage.add_argument(
        "path", type=_folder, metavar="DIR", help="a student, its benchmark, a folder of both, or models:/<name>"
    )
    lineage.add_argument("--json", action="store_true", help="print the file instead")
    command("doctor", _doctor, "versions, devices, and which optional parts are missing and how to get them")
    return root


def _folder(text: str) -> Location:
    from cliprd.errors import InputError
    from cliprd.storage import parse

    try:
        return parse(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _here(text: str) -> Path:
    """A path that cannot lie in S3."""
    place = _folder(text)
    if not isinstance(place, Path):
        raise argparse.ArgumentTypeError(f"{text[:100]} must be on this machine, not in S3")
    return place


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 2**63:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no number of pairs")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit code (see EPILOG)."""
    from cliprd import signals

    with shown_streams(), signals.raised():  # also while a failure is reported
        return _main(arguments)


def _main(arguments: Sequence[str] | None) -> int:
    root = parser()
    words = sys.argv[1:] if arguments is None else list(arguments)
    _refuse_empty(root, words)
    options = root.parse_args(words)
    if options.version:
        from cliprd import __version__

        print(__version__)
        return 0
    if options.command is None:
        root.print_help()
        return 2
    from cliprd import signals
    from cliprd.errors import CliprdError, of_system

    try:
        return int(options.call(options))
    except CliprdError as error:
        if options.debug:
            raise
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt as stop:
        if os.environ.get("RANK", "0") != "0":  # of several under torchrun the first speaks for all
            return signals.exit_code(stop)
        return _fail(signals.line(stop), signals.exit_code(stop))
    except BrokenPipeError:  # the reader of our output went away, as `cliprd params | head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if options.debug:
            raise
        if isinstance(error, OSError) and (known := of_system(error)):
            return _fail(str(known), known.exit_code)
        return _fail(f"{type(error).__name__}: {error} (a defect in cliprd; --debug shows where)", 1)


def _refuse_empty(root: _Parser, words: Sequence[str]) -> None:
    """An unset variable of a shell would else be the present folder, or the default."""
    for before, word in zip(["", *words], words, strict=False):
        name, _, value = word.partition("=") if word.startswith("--") and "=" in word else (before, "", word)
        if not value.strip() and name != "--reason":
            root.error(f"argument {name}: it is empty" if name.startswith("-") else "an argument is empty")


def _fail(message: str, code: int) -> int:
    print(f"cliprd: error: {one_line(message)}", file=sys.stderr)
    return code


def _load(options: argparse.Namespace) -> Params:
    from cliprd import params

    named = {
        f"distill.{key}={value}": f"--{key} {value}"
        for key in ("method", "seed")
        if (value := getattr(options, key, None)) is not None
    }
    return params.load(options.params, [*options.overrides, *named], written=named)


def _run_stage(options: argparse.Namespace) -> int:
    tree = _load(options)
    inputs = {name: path for name in options.inputs if (path := getattr(options, name)) is not None}
    _check_output(options.output, inputs.values())
    extra = {"part": options.part} if getattr(options, "part", None) else {}
    manifest = _stage(options.command)(tree, inputs, options.output, **extra)
    if os.environ.get("RANK", "0") != "0":  # one of several under torchrun: the first speaks for all
        return 0
    facts = ", ".join(f"{key} {value}" for key, value in manifest.facts.items() if isinstance(value, int | float | str))
    print(visible(f"{options.command}: {options.output} is whole{': ' + facts if facts else ''}"))
    return 0


def _check_output(output: Location, inputs: Iterable[Location]) -> None:
    """A stage clears its output folder."""
    from cliprd.errors import ParamsError

    for folder in inputs:
        here = isinstance(folder, Path) and isinstance(output, Path)
        if str(folder) == str(output) or (here and Path(folder).resolve().is_relative_to(Path(output).resolve())):
            raise ParamsError(f"--output {output} is or holds {folder}, which is read.", "Give another --output.")


def _inputs(options: argparse.Namespace) -> int:
    from cliprd.inputs import write

    changed = write(_load(options), options.output)
    print(f"inputs: {', '.join(changed) or 'nothing'} changed")
    return 0


def _promote(options: argparse.Namespace) -> int:
    tree = _load(options)
    from cliprd.stages.promote import promote
    from cliprd.tracking.champion import asker

    _check_output(options.output, [options.student, *options.benchmark])
    done = promote(
        tree,
        options.student,
        options.benchmark,
        options.output,
        asked_by=asker(options.reason),
        dry_run=options.dry_run,
    )
    if options.dry_run:
        word = f"would {'' if done.decision['passed'] else 'not '}be promoted"
    else:
        word = f"version {done.version} is the champion" if done.promoted else "not promoted"
    print(visible(f"promote: {word}: {done.decision['reason']} ({options.output})"))
    return 0 if done.promoted or done.decision["passed"] else 1


def _rollback(options: argparse.Namespace) -> int:
    tree = _load(options)
    from cliprd.tracking.champion import asker, rollback

    version = rollback(tree.promote.champion, tree, asker(options.reason), options.to)
    print(visible(f"rollback: version {version} is the champion"))
    return 0


def _retrain(options: argparse.Namespace) -> int:
    from cliprd import tracking
    from cliprd.retrain import dvc, report
    from cliprd.retrain.run import TEXT, dry_run, retrain
    from cliprd.tracking.champion import asker

    tree = _load(options)
    tracking.check(tree)
    runner = dvc.Repository(tree) if options.runner == "dvc" else _kfp_runner(options, tree)
    asked_by, facts = asker(options.reason), {"git": dvc.revision()}
    if options.dry_run:
        sys.stdout.write(report.render(dry_run(tree, runner, asked_by=asked_by, facts=facts)))
        return 0
    promote = not options.no_promote
    made = retrain(tree, runner, output=options.output, asked_by=asked_by, promote=promote, facts=facts)
    print(visible(f"retrain: {report.ENDINGS[made['ending']]}: {made['why']} ({options.output / TEXT})"))
    return 0


def _kfp_runner(options: argparse.Namespace, tree: Params) -> Runner:
    tree, image = _parameters_and_image(options)
    from pipelines.runner import Pipeline

    if options.local:
        return Pipeline(tree, image, local=options.local)
    _warn_of_image(options, image)
    return Pipeline(tree, image, api=_connect(options))


def _stage(name: str) -> Callable[..., Manifest]:
    import importlib

    run: Callable[..., Manifest] = importlib.import_module(f"cliprd.stages.{name}").run
    return run


def _pipelines() -> None:
    """Make `pipelines` importable, which lives in the repository."""
    import importlib.util

    from cliprd.errors import EnvironmentError_

    repository = Path(__file__).parents[2]
    if not (repository / "pipelines" / "__init__.py").is_file():
        raise EnvironmentError_(
            "`cliprd pipeline` needs a checkout of the repository.", "Clone it and run `make setup`."
        )
    if str(repository) not in sys.path:
        sys.path.insert(0, str(repository))
    if importlib.util.find_spec("kfp") is None:
        raise EnvironmentError_("kfp is not installed.", "pip install 'cliprd[pipelines]'")


def _parameters_and_image(options: argparse.Namespace) -> tuple[Params, str]:
    _pipelines()
    from pipelines.image import choose

    tree = _load(options)
    if tree.tracking != tree.tracking.in_pods():
        from cliprd.tracking.server import shown

        uri = visible(shown(tree.tracking.uri))
        print(f"cliprd: not tracked: pods cannot use tracking.uri = {uri}, only an http(s) address", file=sys.stderr)
    return tree, choose(options.image, tree.kubernetes, allow_mutable=options.allow_mutable_image)


def _pipeline_image(options: argparse.Namespace) -> int:
    _pipelines()
    from pipelines.image import content_tag

    print(content_tag(options.target))
    return 0


def _pipeline_compile(options: argparse.Namespace) -> int:
    tree, image = _parameters_and_image(options)
    from cliprd.files import atomic_write, sweep_beside
    from pipelines.compile import compile_pipeline

    text = compile_pipeline(options.pipeline, tree, image)
    if options.output is None:
        sys.stdout.write(text)
    else:
        sweep_beside(options.output)
        with atomic_write(options.output, "w") as file:
            file.write(text)
    return 0


def _pipeline_trainjob(options: argparse.Namespace) -> int:
    tree, image = _parameters_and_image(options)
    from cliprd.trainjob import manifest

    _warn_of_image(options, image)
    folders = {name: getattr(options, name) for name in ("shards", "cache", "output")}
    sys.stdout.write(manifest.dump(manifest.make(tree, image, nodes=options.nodes, form=options.form, **folders)))
    return 0


def _pipeline_run(options: argparse.Namespace) -> int:
    tree, image = _parameters_and_image(options)
    from pipelines.local import run
    from pipelines.submit import order

    given = order(options.pipeline, tree, image, options.input).arguments
    made = run(options.pipeline, tree, image, runner=options.local, root=options.root, arguments=given)
    print(f"pipeline {options.pipeline}: {made.folder} is whole: steps run {made.steps}, finished before {made.reused}")
    return 0


def _pipeline_submit(options: argparse.Namespace) -> int:
    from cliprd.errors import ParamsError

    tree, image = _parameters_and_image(options)
    if options.timeout is not None and not (options.wait and options.timeout > 0):
        raise ParamsError("--timeout limits --wait: it needs it, and more than 0 seconds.")
    from pipelines.follow import follow
    from pipelines.submit import order, submit

    _warn_of_image(options, image)
    ordered = order(options.pipeline, tree, image, options.input)
    api = _connect(options)
    experiment = options.experiment or tree.tracking.experiment
    run = submit(api, ordered, experiment=experiment, run_name=options.run_name, cache=not options.no_cache)
    if options.wait:
        follow(api, run, ordered, timeout=options.timeout)
    return 0


def _pipeline_schedule(options: argparse.Namespace) -> int:
    from cliprd.errors import ParamsError

    tree, image = _parameters_and_image(options)
    if not 1 <= options.max_concurrency <= 10:
        raise ParamsError(f"--max-concurrency {options.max_concurrency}: KFP takes 1 to 10.")
    from pipelines.schedule import cron, schedule
    from pipelines.submit import order

    when = cron(options.cron)
    _warn_of_image(options, image)
    ordered = order(options.pipeline, tree, image, options.input)
    schedule(
        _connect(options),
        ordered,
        cron_expression=when,
        job_name=options.job_name,
        experiment=options.experiment or tree.tracking.experiment,
        max_concurrency=options.max_concurrency,
        catchup=not options.no_catchup,
    )
    return 0


def _pipeline_diff(options: argparse.Namespace) -> int:
    tree, image = _parameters_and_image(options)
    from pipelines.compile import compile_pipeline
    from pipelines.diff import changes, image_to_compare
    from pipelines.versions import documents, newest, parts

    compiled = compile_pipeline(options.pipeline, tree, image)
    version = newest(_connect(options), documents(compiled)[0]["pipelineInfo"]["name"])
    uploaded = parts(version)
    if not options.image:
        image = image_to_compare(uploaded, image)
        compiled = compile_pipeline(options.pipeline, tree, image)
    found = changes(uploaded, documents(compiled))
    for line in found:
        print(line)
    if not found:
        print(f"{options.pipeline}: as in version {version.display_name}")
    return 1 if found else 0


def _connect(options: argparse.Namespace) -> Api:
    from pipelines.client import connect

    return connect(options.host, namespace=options.namespace, token_file=options.token_file)


def _warn_of_image(options: argparse.Namespace, image: str) -> None:
    from pipelines.submit import pullable

    if warning := pullable(image, given=bool(options.image)):
        print(f"cliprd: {warning}", file=sys.stderr)


def _tracked(options: argparse.Namespace) -> Params:
    import json

    if options.experiment:
        options.overrides = [*options.overrides, f"tracking.experiment={json.dumps(options.experiment)}"]
    return _load(options)


def _ablation_show(options: argparse.Namespace) -> int:
    from cliprd.tracking import ablation

    sys.stdout.write(ablation.text(ablation.tables(_tracked(options))))
    return 0


def _ablation_open(options: argparse.Namespace) -> int:
    import webbrowser

    from cliprd.tracking import ablation, server

    tree = _tracked(options)
    address = ablation.page(tree)
    if not tree.tracking.uri.startswith(("http://", "https://")):
        print(f"Serve it first: mlflow ui --backend-store-uri {server.shown(tree.tracking.uri)}", file=sys.stderr)
    elif not options.only_print:
        webbrowser.open(address)
    print(address)
    return 0


def _params(options: argparse.Namespace) -> int:
    from cliprd import params

    if options.schema:
        sys.stdout.write(params.schema())
        return 0
    sys.stdout.write(params.dump(_load(options)))
    return 0


def _plan(options: argparse.Namespace) -> int:
    from cliprd import tracking
    from cliprd.data.count import Pairs, count
    from cliprd.plan import plan

    tree = _load(options)
    given = Pairs(options.samples, "as given")
    sys.stdout.write(plan(tree, given if options.samples else count(tree.data, options.shards)))
    sys.stdout.write(f"tracking {tracking.check(tree)}\n")
    return 0


def _lineage(options: argparse.Namespace) -> int:
    import json

    from cliprd import lineage

    place = str(options.path)
    tree = _champions_lineage(options, place) if place.startswith("models:/") else lineage.of(options.path)
    if options.json:
        print(json.dumps(tree, indent=2, sort_keys=True, ensure_ascii=False))
    else:
        sys.stdout.write(lineage.describe(tree))
    return 0


def _champions_lineage(options: argparse.Namespace, place: str) -> dict[str, Any]:
    from cliprd.errors import InputError
    from cliprd.tracking import champion

    held = champion.current(place, _load(options))
    if held is None or held.lineage is None:
        what = "no champion" if held is None else f"a champion without lineage, version {held.version}"
        raise InputError(f"{place} has {what}.", "Promote a student that `cliprd benchmark` has scored.")
    return held.lineage


def _doctor(options: argparse.Namespace) -> int:
    from cliprd.doctor import examine

    return examine(sys.stdout, (lambda: _load(options)) if options.params.is_file() or options.overrides else None)


if __name__ == "__main__":
    sys.exit(main())
