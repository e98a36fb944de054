"""`cliprd pipeline`: compile, run here, submit to a cluster, schedule, compare."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cliprd.cli.common import Call, Commands, Parser, folder, load, local_path
from cliprd.names import visible

if TYPE_CHECKING:
    from cliprd.kubeflow.client import Api
    from cliprd.params import Params

PIPELINES = ("distill", "ablation", "retrain")


def add(commands: Commands) -> None:
    """`pipeline` with its actions."""
    pipeline = commands.plain(
        "pipeline", "Kubeflow pipelines: compile, run here, submit to a cluster", "Kubeflow pipelines."
    )
    actions = Commands(pipeline, "action", "ACTION", required=True)
    written = _action(actions, "compile", _compile, "write the pipeline as YAML for Kubeflow Pipelines")
    written.add_argument("--output", type=local_path, metavar="FILE", help="file to write; default: standard output")
    here = _action(actions, "run", _run, "run the pipeline on this machine; finished steps are not run again")
    here.add_argument("--local", choices=("docker", "process"), required=True, help="steps in containers or processes")
    here.add_argument("--root", type=local_path, default=Path("work/pipeline"), metavar="DIR", help="outputs and cache")
    here.add_argument("--input", action="append", default=[], metavar="NAME=VALUE", help="an input of the pipeline")
    there = _remote(actions, "submit", _submit, "run the pipeline on a cluster; uploads it there if its content is new")
    _add_run_options(there)
    there.add_argument("--run-name", metavar="NAME", help="name of the run; default: the pipeline's and the time")
    there.add_argument("--no-cache", action="store_true", help="repeat every step in this run")
    there.add_argument("--wait", action="store_true", help="follow the run; fail if it does not succeed")
    there.add_argument("--timeout", type=float, metavar="SECONDS", help="limit of --wait; default: none")
    again = _remote(actions, "schedule", _schedule, "run the pipeline on a cluster periodically")
    _add_run_options(again)
    again.add_argument("--cron", required=True, metavar="FIELDS", help="minute hour day month weekday: '0 3 * * *'")
    again.add_argument("--job-name", metavar="NAME", help="job of this name is replaced; default: the pipeline's name")
    again.add_argument("--max-concurrency", type=int, default=1, metavar="N", help="runs at the same time")
    again.add_argument("--no-catchup", action="store_true", help="do not start what was missed")
    _remote(
        actions,
        "diff",
        _diff,
        "what changed since the newest version on the cluster; exit code 0 nothing, 1 something",
    )
    _add_trainjob(actions)
    tag = actions.plain("image", "print the content-made tag of `make images`")
    tag.add_argument("target", choices=("cpu", "cuda"), help="target of docker/Dockerfile")
    tag.set_defaults(call=_image, debug=False, image=None, allow_mutable_image=False)


def _add_trainjob(actions: Commands) -> None:
    job = actions.add(
        "trainjob",
        _trainjob,
        "write `cliprd distill` on many nodes as a job for Kubeflow's Trainer",
        "Write `cliprd distill` on many nodes as a job for Kubeflow's Trainer (params: kubernetes).",
    )
    for name, text in (("shards", "of `prepare`"), ("cache", "of `cache`"), ("output", "to write")):
        job.add_argument(
            f"--{name}", type=folder, required=True, metavar="DIR", help=f"folder {text}, that all nodes see"
        )
    job.add_argument("--method", metavar="NAME", help="same as --set distill.method=NAME")
    job.add_argument("--seed", metavar="N", help="same as --set distill.seed=N")
    job.add_argument(
        "--nodes", type=int, required=True, metavar="N", help="number of nodes; each runs distill.processes"
    )
    job.add_argument(
        "--form",
        choices=("trainjob", "pytorchjob"),
        default="trainjob",
        help="job of Trainer 2, or of Training Operator 1",
    )
    job.add_argument(
        "--image", metavar="NAME", help="image of the nodes; default: the content-made tag of `make images`"
    )
    job.add_argument("--allow-mutable-image", action="store_true", help="accept a tag that can move")


def _action(actions: Commands, name: str, call: Call, text: str) -> Parser:
    sub = actions.add(name, call, text)
    sub.add_argument("pipeline", choices=PIPELINES, help="which pipeline")
    sub.add_argument(
        "--image", metavar="NAME", help="image that every step runs in; default: the content-made tag of `make images`"
    )
    sub.add_argument("--allow-mutable-image", action="store_true", help="accept a tag that can move")
    return sub


def _remote(actions: Commands, name: str, call: Call, text: str) -> Parser:
    sub = _action(actions, name, call, text)
    sub.add_argument("--host", metavar="URL", help="address of Kubeflow Pipelines; default: KF_PIPELINES_ENDPOINT")
    sub.add_argument("--namespace", metavar="NAME", help="your profile, in multi-user Kubeflow")
    sub.add_argument(
        "--token-file", type=Path, metavar="FILE", help="file with a token; default: the token in KFP_TOKEN"
    )
    return sub


def _add_run_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--input", action="append", default=[], metavar="NAME=VALUE", help="an input of the pipeline")
    sub.add_argument("--experiment", metavar="NAME", help="experiment of the run; default: tracking.experiment")


def parameters_and_image(options: argparse.Namespace) -> tuple[Params, str]:
    """The parameter tree, and the image of the steps."""
    from cliprd.extras import need
    from cliprd.kubeflow.image import choose_image

    need("kubeflow", "A pipeline")
    tree = load(options)
    if tree.tracking != tree.tracking.in_pods():
        from cliprd.tracking.server import shown

        uri = visible(shown(tree.tracking.uri))
        print(f"cliprd: not tracked: pods cannot use tracking.uri = {uri}, only an http(s) address", file=sys.stderr)
    in_processes = getattr(options, "local", None) == "process"
    mutable = options.allow_mutable_image
    return tree, choose_image(options.image, tree.kubernetes, allow_mutable=mutable, in_processes=in_processes)


def _image(options: argparse.Namespace) -> int:
    from cliprd.kubeflow.image import content_tag

    print(content_tag(options.target))
    return 0


def _compile(options: argparse.Namespace) -> int:
    tree, image = parameters_and_image(options)
    from cliprd.files import atomic_write, sweep_beside
    from cliprd.kubeflow.compile import compile_pipeline

    text = compile_pipeline(options.pipeline, tree, image)
    if options.output is None:
        sys.stdout.write(text)
    else:
        sweep_beside(options.output)
        with atomic_write(options.output, "w") as file:
            file.write(text)
    return 0


def _trainjob(options: argparse.Namespace) -> int:
    tree, image = parameters_and_image(options)
    from cliprd.kubeflow.trainjob import spec

    warn_of_image(options, image)
    folders = {name: getattr(options, name) for name in ("shards", "cache", "output")}
    sys.stdout.write(spec.dump(spec.job_objects(tree, image, nodes=options.nodes, form=options.form, **folders)))
    return 0


def _run(options: argparse.Namespace) -> int:
    tree, image = parameters_and_image(options)
    from cliprd.kubeflow.local import run_locally
    from cliprd.kubeflow.submit import compile_submission

    arguments = compile_submission(options.pipeline, tree, image, options.input).arguments
    run = run_locally(options.pipeline, tree, image, runner=options.local, root=options.root, arguments=arguments)
    print(f"pipeline {options.pipeline}: {run.folder} is complete: steps run {run.steps}, finished before {run.reused}")
    return 0


def _submit(options: argparse.Namespace) -> int:
    from cliprd.errors import ParamsError

    tree, image = parameters_and_image(options)
    if options.timeout is not None and not (options.wait and options.timeout > 0):
        raise ParamsError("--timeout limits --wait: it needs it, and more than 0 seconds.")
    from cliprd.kubeflow.follow import follow
    from cliprd.kubeflow.submit import compile_submission, submit

    warn_of_image(options, image)
    submission = compile_submission(options.pipeline, tree, image, options.input)
    api = connect(options)
    experiment = options.experiment or tree.tracking.experiment
    run = submit(api, submission, experiment=experiment, run_name=options.run_name, cache=not options.no_cache)
    if options.wait:
        follow(api, run, submission, timeout=options.timeout)
    return 0


def _schedule(options: argparse.Namespace) -> int:
    from cliprd.errors import ParamsError

    tree, image = parameters_and_image(options)
    if not 1 <= options.max_concurrency <= 10:
        raise ParamsError(f"--max-concurrency {options.max_concurrency}: KFP takes 1 to 10.")
    from cliprd.kubeflow.schedule import cron, schedule
    from cliprd.kubeflow.submit import compile_submission

    when = cron(options.cron)
    warn_of_image(options, image)
    submission = compile_submission(options.pipeline, tree, image, options.input)
    schedule(
        connect(options),
        submission,
        cron_expression=when,
        job_name=options.job_name,
        experiment=options.experiment or tree.tracking.experiment,
        max_concurrency=options.max_concurrency,
        catchup=not options.no_catchup,
    )
    return 0


def _diff(options: argparse.Namespace) -> int:
    tree, image = parameters_and_image(options)
    from cliprd.kubeflow.compile import compile_pipeline
    from cliprd.kubeflow.diff import changes, image_to_compare
    from cliprd.kubeflow.versions import documents, newest, version_documents

    compiled = compile_pipeline(options.pipeline, tree, image)
    version = newest(connect(options), documents(compiled)[0]["pipelineInfo"]["name"])
    uploaded = version_documents(version)
    if not options.image:
        image = image_to_compare(uploaded, image)
        compiled = compile_pipeline(options.pipeline, tree, image)
    lines = changes(uploaded, documents(compiled))
    print("\n".join(lines) if lines else f"{options.pipeline}: as in version {version.display_name}")
    return 1 if lines else 0


def connect(options: argparse.Namespace) -> Api:
    """The server that the options name."""
    from cliprd.kubeflow.client import connect

    return connect(options.host, namespace=options.namespace, token_file=options.token_file)


def warn_of_image(options: argparse.Namespace, image: str) -> None:
    """A line where a cluster may not have the image; an error where it cannot."""
    from cliprd.kubeflow.submit import check_pullable

    if warning := check_pullable(image, chosen=bool(options.image)):
        print(f"cliprd: {warning}", file=sys.stderr)
