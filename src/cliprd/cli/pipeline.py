"""`cliprd pipeline`: compile, run here, submit to a cluster, compare."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cliprd.cli import cluster, runs, schedule
from cliprd.cli.cluster import PIPELINES, connect, parameters_and_image, warn_of_images
from cliprd.cli.common import Call, Commands, Parser, folder, local_path


def add(commands: Commands) -> None:
    """`pipeline` with its actions."""
    pipeline = commands.plain(
        "pipeline", "Kubeflow pipelines: compile, run here, submit to a cluster", "Kubeflow pipelines."
    )
    actions = Commands(pipeline, "action", "ACTION", required=True)
    written = _action(
        actions, "compile", _compile, "write the pipeline as YAML for Kubeflow Pipelines, or for Argo alone"
    )
    written.add_argument("--format", choices=("kfp", "argo"), default="kfp", help="for which of them; default: kfp")
    written.add_argument("--cron", metavar="FIELDS", help="with --format argo: a CronWorkflow, as '0 3 * * *'")
    written.add_argument("--output", type=local_path, metavar="FILE", help="file to write; default: standard output")
    here = _action(actions, "run", _run, "run the pipeline on this machine; finished steps are not run again")
    here.add_argument("--local", choices=("docker", "process"), required=True, help="steps in containers or processes")
    here.add_argument("--root", type=local_path, default=Path("work/pipeline"), metavar="DIR", help="outputs and cache")
    here.add_argument("--input", action="append", default=[], metavar="NAME=VALUE", help="an input of the pipeline")
    there = _remote(actions, "submit", _submit, "run the pipeline on a cluster; uploads it there if its content is new")
    cluster.add_run_options(there)
    there.add_argument("--run-name", metavar="NAME", help="name of the run; default: the pipeline's and the time")
    there.add_argument("--no-cache", action="store_true", help="repeat every step in this run")
    there.add_argument("--wait", action="store_true", help="follow the run; fail if it does not succeed")
    there.add_argument("--timeout", type=float, metavar="SECONDS", help="limit of --wait; default: none")
    schedule.add(actions)
    runs.add(actions)
    _remote(
        actions,
        "diff",
        _diff,
        "what changed since the newest version on the cluster; exit code 0 nothing, 1 something",
    )
    _add_trainjob(actions)
    tag = actions.plain("image", "print the content-made tag of `make images`")
    tag.add_argument("target", choices=("cpu", "cuda", "slim"), help="target of docker/Dockerfile")
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
    cluster.add_image_options(sub)
    return sub


def _remote(actions: Commands, name: str, call: Call, text: str) -> Parser:
    sub = _action(actions, name, call, text)
    cluster.add_server_options(sub)
    return sub


def _image(options: argparse.Namespace) -> int:
    from cliprd.kubeflow.image import content_tag

    print(content_tag(options.target))
    return 0


def _compile(options: argparse.Namespace) -> int:
    from cliprd.errors import ParamsError

    tree, image = parameters_and_image(options)
    from cliprd.files import atomic_write, sweep_beside

    if options.format == "argo":
        from cliprd.kubeflow.argo import compile_argo

        text = compile_argo(options.pipeline, tree, image, cron=options.cron)
    elif options.cron is not None:
        raise ParamsError("--cron needs --format argo.", "On Kubeflow Pipelines, use `cliprd pipeline schedule`.")
    else:
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

    warn_of_images(options, image)
    if options.form == "trainjob" and tree.kubernetes.ttl_seconds:
        print(
            "cliprd: kubernetes.ttl_seconds has no effect on a TrainJob: delete it when it has ended", file=sys.stderr
        )
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

    warn_of_images(options, image, tree.kubernetes.slim_image)
    submission = compile_submission(options.pipeline, tree, image, options.input)
    api = connect(options)
    experiment = options.experiment or tree.tracking.experiment
    run = submit(api, submission, experiment=experiment, run_name=options.run_name, cache=not options.no_cache)
    cluster.warn_of_retries(tree)
    if options.wait:
        follow(api, run, submission, timeout=options.timeout)
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
