"""The MLflow run of whatever started this process, from environment variables: trainings become its children.

Kubeflow Pipelines 2.17 with its MLflow plugin (`injectUserEnvVars: true` in the plugin's settings) creates a run a
pipeline run and, nested in it, a run a step; each step's container gets, as read in KFP 2.17.0
(`backend/src/v2/common/plugins/mlflow/handler.go`: `OnTaskStart`, `RetrieveUserContainerEnvVars`):

    MLFLOW_RUN_ID          the step's run, not the pipeline's: another one in every step, the same in a repeated pod
    MLFLOW_TRACKING_URI    http(s), never with credentials (`ValidateHTTPSEndpoint`)
    MLFLOW_EXPERIMENT_ID   of all these runs
    MLFLOW_WORKSPACE       where the plugin uses workspaces
    MLFLOW_TRACKING_AUTH   `kubernetes` or `kubernetes-namespaced`; or, from secret `kfp-mlflow-credentials`,
                           MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and _PASSWORD

MLflow's client reads the last three itself, and a run knows its experiment, so only the first two are read here. When a
step or the pipeline ends, KFP sets the status of its own runs, and of runs below them that are still open
(`backend/src/apiserver/plugins/mlflow/run_start.go`). `mlflow run` sets the same first three variables.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from cliprd.names import visible
from cliprd.params import Params
from cliprd.tracking import server

RUN_ID, URI = "MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI"
PASSED_ON = (RUN_ID, URI, "MLFLOW_WORKSPACE")  # to pods that a step creates: names and addresses, no credentials
MEMBER = "cliprd.ablation.member"  # tag: key of the ablation that a run belongs to, where its parent is such a run


def run_id() -> str:
    """Of the run that this process works in; empty: of none."""
    return os.environ.get(RUN_ID, "").strip()


def variables() -> dict[str, str]:
    """What a pod has to have to work in the same run."""
    return {name: os.environ[name] for name in PASSED_ON if os.environ.get(name)} if run_id() else {}


def placed(params: Params) -> Params:
    """With the server of that run where `tracking.uri` names none."""
    uri = os.environ.get(URI, "").strip()
    if params.tracking.uri or not uri or not run_id():
        return params
    return params.model_copy(update={"tracking": params.tracking.model_copy(update={"uri": uri})})


def find(client: Any, wanted: str, what: str) -> Any:
    """The run `wanted`; None, after a line about `what`, where the server has none, or a deleted one.

    Raises:
        Exception: whatever the server or the network raises otherwise.
    """
    from mlflow.exceptions import MlflowException

    state = "no such run"
    try:
        run = client.get_run(wanted)
        if run.info.lifecycle_stage != "deleted":
            return run
        state = "it was deleted"
    except MlflowException as error:
        if error.get_http_status_code() not in (400, 404):
            raise
    uri, other = client.tracking_uri, os.environ.get(URI, "").strip()
    remedy = f" To track at {URI} = {server.shown(other)}, set tracking.uri empty." if other not in ("", uri) else ""
    line = f"{what} is not under run {wanted[:64]} ({RUN_ID}): {state} at {server.shown(uri)}. It is tracked without."
    print(visible(f"cliprd: warning: {line}{remedy}"), file=sys.stderr)
    return None
