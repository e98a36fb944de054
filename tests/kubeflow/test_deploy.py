"""What a namespace gets from deploy/kustomize; every pod of ours is admitted to one that enforces `restricted`.

Rendered by kustomize, and applied to Kubernetes' own kube-apiserver, each where its program is on the PATH.
"""

import copy
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from kubernetes import client

from cliprd import params
from cliprd.errors import MachineError
from cliprd.kubeflow.argo import compile_argo
from cliprd.kubeflow.image import check_image
from cliprd.kubeflow.trainjob.cluster import PLURAL, Cluster
from cliprd.kubeflow.trainjob.spec import API, FORMS, job_objects
from tests.kubeflow import pod_security
from tests.kubeflow.paths import IMAGE, ROOT
from tests.kubeflow.trainjob import clusters

DEPLOY = ROOT / "deploy" / "kustomize"
COMPONENTS = sorted(path.name for path in (DEPLOY / "components").iterdir())
RECORDED = Path(__file__).parent / "workflows" / "kfp-pods.json"
STEPS, JOBS = "cliprd-steps", "cliprd-jobs"
ASKED = (
    "kubernetes.store=s3://pairs/work",
    "kubernetes.volumes=[{claim: pairs, path: /data}]",
    "kubernetes.secrets=[{name: cliprd-s3, keys: {id: AWS_ACCESS_KEY_ID, key: AWS_SECRET_ACCESS_KEY}}]",
    "kubernetes.default={cpu: '2', memory: 4Gi, scratch: 10Gi}",
    "kubernetes.steps.distill={cpu: '8', memory: 32Gi, accelerator: nvidia.com/gpu, accelerators: 4,"
    " shared_memory: 8Gi, node_selector: {gpu: h100}, tolerations: [{key: nvidia.com/gpu, effect: NoSchedule}],"
    " timeout: 3600}",
    "tracking.uri=http://mlflow.cliprd:5000",
)
# As the Training Operator 1.9 adds it to a PyTorchJob's workers: pkg/controller.v1/pytorch/initcontainer.go.
INIT_PYTORCH = {"name": "init-pytorch", "image": "alpine:3.10", "command": ["sh", "-c", "nslookup master"]}


def build(folder: Path) -> list[dict]:
    paths = [os.environ["PATH"], str(Path.home() / "go" / "bin")]
    program = shutil.which("kustomize", path=os.pathsep.join(paths))
    if program is None:
        reason = "no kustomize here: go install sigs.k8s.io/kustomize/kustomize/v5@v5.8.1"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    ran = subprocess.run([program, "build", folder], check=True, capture_output=True, text=True)
    assert not ran.stderr  # it warns of fields that are going away
    return [*yaml.safe_load_all(ran.stdout)]


@pytest.fixture(scope="module")
def example() -> list[dict]:
    return build(DEPLOY / "overlays" / "example")


def overlay(folder: Path, *components: str) -> list[dict]:
    """The base and components, in namespace team."""
    place = os.path.relpath(DEPLOY, folder)
    tree = {
        "namespace": "team",
        "resources": [f"{place}/base"],
        "components": [f"{place}/components/{name}" for name in components],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    return build(folder)


def only(trees: list[dict], kind: str, name: str) -> dict:
    (found,) = [tree for tree in trees if (tree["kind"], tree["metadata"]["name"]) == (kind, name)]
    return found


def tree(*overrides: str) -> params.Params:
    return params.load(ROOT / "params.yaml", [*ASKED, *overrides])


def argo_pods() -> dict[str, dict]:
    """Every pod of Argo's own form of the pipelines, by a controller that is not configured."""
    pods = {}
    for name in ("distill", "ablation", "retrain"):
        spec = yaml.safe_load(compile_argo(name, tree(), IMAGE))["spec"]
        for template in spec["templates"]:
            if "container" in template:
                made = pod_security.argo_pod(spec, template, spec["podSpecPatch"])
                made["spec"]["volumes"].append({"name": "input-artifacts", "emptyDir": {}})
                pods[f"argo {name} {template['name']}"] = made
    return pods


def kfp_pods() -> dict[str, dict]:
    """Kubeflow's drivers and launchers, from real workflows."""
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    templates = {one["name"]: one for one in recorded["templates"]}
    pods = {}
    for name in ("system-dag-driver", "system-container-driver"):
        pods[name] = pod_security.argo_pod(recorded["spec"], templates[name], executor=pod_security.KFP_EXECUTOR)
    for one in recorded["patches"]:
        template, patch = templates[one["template"]], one["pod-spec-patch"]
        made = pod_security.argo_pod(recorded["spec"], template, patch, executor=pod_security.KFP_EXECUTOR)
        pods[f"{one['template']} of {one['workflow']}"] = made
    return pods


def job_pods() -> dict[str, dict]:
    """Pods of training jobs, but for what the Training Operator adds to workers."""
    pods = {}
    for form in FORMS:
        folders = {name: f"s3://pairs/{name}" for name in ("shards", "cache", "output")}
        trees = job_objects(tree(), IMAGE, nodes=2, form=form, **folders)
        for number, template in enumerate(_templates(trees)):
            pods[f"{form} {number}"] = pod_security.pod(template["spec"], template["metadata"]["labels"])
    return pods


def _templates(found) -> list[dict]:
    if isinstance(found, dict):
        if "containers" in found.get("spec", ()):
            return [found]
        return [one for value in found.values() for one in _templates(value)]
    return [one for value in found for one in _templates(value)] if isinstance(found, list) else []


def bad_pods() -> dict[str, dict]:
    """A pod of ours with one thing changed, which is to be refused."""
    changes = {
        "privileged": lambda spec: spec["containers"][0]["securityContext"].update(
            privileged=True, allowPrivilegeEscalation=True
        ),
        "root": lambda spec: spec["containers"][0]["securityContext"].update(runAsUser=0),
        "capability": lambda spec: spec["containers"][0]["securityContext"]["capabilities"].update(add=["SYS_PTRACE"]),
        "escalation": lambda spec: spec["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"),
        "seccomp": lambda spec: spec["securityContext"].pop("seccompProfile"),
        "user": lambda spec: spec["securityContext"].pop("runAsNonRoot"),
        "host": lambda spec: spec.update(hostNetwork=True),
        "hostPath": lambda spec: spec["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
        "init": lambda spec: spec.update(initContainers=[INIT_PYTORCH]),
    }
    pods = {}
    for name, change in changes.items():
        one = copy.deepcopy(job_pods()["pytorchjob 1"])
        change(one["spec"])
        pods[name] = one
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    unconfigured = pod_security.argo_pod(recorded["spec"], recorded["templates"][0])
    return {**pods, "a controller without a security context for its executor": unconfigured}


def our_pods() -> dict[str, dict]:
    return {**argo_pods(), **kfp_pods(), **job_pods()}


def test_every_pod_of_a_pipeline_is_as_restricted_wants_it():
    pods = our_pods()
    assert len(pods) > 20
    assert {name: found for name, one in pods.items() if (found := pod_security.violations(one["spec"]))} == {}
    for name, one in bad_pods().items():
        assert pod_security.violations(one["spec"]), name


def test_it_holds_no_secret_and_its_images_cannot_change(example):
    assert "Secret" not in {one["kind"] for one in example}
    found = 0
    for spec in pod_security.specs(example):
        assert spec["automountServiceAccountToken"] is False
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            found += 1
            assert check_image(container["image"]) == container["image"]
            for variable in container.get("env", []):
                if re.search("PASSWORD$|KEY|TOKEN|SECRET", variable["name"]):
                    assert "secretKeyRef" in variable["valueFrom"]
    assert found == 4
    for one in example:
        if one["kind"] == "ConfigMap":
            assert not [name for name in one["data"] if re.search("PASSWORD|KEY|TOKEN|SECRET", name)]


def test_every_container_is_as_restricted_wants_it_and_asks_for_little(example):
    for spec in pod_security.specs(example):
        assert pod_security.violations(spec) == []
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}
    for one in example:
        if one["kind"] in ("Deployment", "StatefulSet"):
            (container,) = one["spec"]["template"]["spec"]["containers"]
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)
    assert {one["metadata"].get("namespace") for one in example if one["kind"] != "Namespace"} == {"cliprd"}


def test_the_role_is_what_the_code_does_and_the_document_shows():
    role = yaml.safe_load((DEPLOY / "base" / "role.yaml").read_text(encoding="utf-8"))
    used: dict[str, set[str]] = {}
    for kind, plural in PLURAL.items():
        used.setdefault(API[kind].partition("/")[0], set()).add(plural)
    rules = {rule["apiGroups"][0]: (set(rule["resources"]), rule["verbs"]) for rule in role["rules"]}
    calls = {group: (plurals, ["create", "get", "delete"]) for group, plurals in used.items()}
    assert rules == {**calls, "": ({"pods"}, ["list"])}
    text = (ROOT / "docs" / "kubeflow.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```yaml\n(rules:\n.*?)```", text, re.DOTALL)
    assert yaml.safe_load(shown)["rules"] == role["rules"]


def test_the_account_of_multi_user_kubeflow(tmp_path):
    for components, account in (((), "pipeline-runner"), (("multi-user", "argo"), "default-editor")):
        made = overlay(tmp_path, *components)
        subject = {"kind": "ServiceAccount", "name": account, "namespace": "team"}
        bindings = [one for one in made if one["kind"] == "RoleBinding"]
        assert [one["subjects"] for one in bindings] == [[subject]] * (2 if "argo" in components else 1)
        assert only(made, "ServiceAccount", account)


def test_all_components_fit_together(tmp_path):
    made = overlay(tmp_path, *COMPONENTS)
    assert len({(one["kind"], one["metadata"]["name"]) for one in made}) == len(made)
    workloads = [one for one in made if one["kind"] in ("Deployment", "StatefulSet", "DaemonSet")]
    assert {one["metadata"]["name"] for one in workloads} == {"mlflow", "postgres", "prepull"}


def test_external_secrets_are_those_that_the_pods_read(tmp_path):
    made = overlay(tmp_path, "external-secrets", "mlflow")
    given = {
        (one["spec"]["target"]["name"], entry["secretKey"])
        for one in made
        if one["kind"] == "ExternalSecret"
        for entry in one["spec"]["data"]
    }
    read = set()
    for spec in pod_security.specs([one for one in made if one["kind"] != "ExternalSecret"]):
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            references = [one["valueFrom"]["secretKeyRef"] for one in container.get("env", []) if "valueFrom" in one]
            read |= {(one["name"], one["key"]) for one in references}
    assert given == read


def test_network_policies_select_the_pods_that_they_are_for(example):
    steps, jobs = (only(example, "NetworkPolicy", name)["spec"] for name in (STEPS, JOBS))
    for one in [*argo_pods().values(), *kfp_pods().values()]:
        assert selects(steps["podSelector"], one)
        assert not selects(jobs["podSelector"], one)
    for one in job_pods().values():
        assert selects(jobs["podSelector"], one)
        assert not selects(steps["podSelector"], one)
    assert steps["ingress"] == []
    assert jobs["ingress"] == [{"from": [{"podSelector": jobs["podSelector"]}]}]
    for policy in (steps, jobs):
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        assert 80 not in {port["port"] for rule in policy["egress"] for port in rule.get("ports", [])}
    for spec in pod_security.specs(example):
        assert "workflows.argoproj.io/workflow" not in str(spec)


def selects(selector: dict, one: dict) -> bool:
    labels = one["metadata"]["labels"]
    assert set(selector) <= {"matchLabels", "matchExpressions"}
    present = [
        entry["key"] in labels for entry in selector.get("matchExpressions", []) if entry["operator"] == "Exists"
    ]
    return all(present) and selector.get("matchLabels", {}).items() <= labels.items()


def test_mlflow_and_its_database_run_as_in_the_local_stack(example):
    services = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))["services"]
    (settings,) = [one["data"] for one in example if one["kind"] == "ConfigMap"]
    server = only(example, "Deployment", "mlflow")["spec"]["template"]["spec"]
    assert " ".join(server["containers"][0]["command"]) in services["mlflow"]["command"][-1]
    migration = " ".join(server["initContainers"][0]["command"])
    assert (
        migration.replace("$(MLFLOW_BACKEND_STORE_URI)", '"$$MLFLOW_BACKEND_STORE_URI"')
        in (services["prepare"]["command"][-1])
    )
    own = {name for name in services["mlflow"]["environment"] if name not in ("BUCKET", "AWS_ACCESS_KEY_ID")}
    assert set(settings) == own
    assert settings["MLFLOW_BACKEND_STORE_URI"] == services["mlflow"]["environment"]["MLFLOW_BACKEND_STORE_URI"]
    database = only(example, "StatefulSet", "postgres")["spec"]["template"]["spec"]
    (container,) = database["containers"]
    assert {one["name"] for one in container["env"]} == set(services["postgres"]["environment"])
    users = [f"{spec['securityContext'][key]}" for spec in (server, database) for key in ("runAsUser", "runAsGroup")]
    assert users == [*services["mlflow"]["user"].split(":"), *services["postgres"]["user"].split(":")]


def test_ci_installs_the_kustomize_that_the_tests_name():
    named = re.search(r"kustomize/v5@v[\d.]+", Path(__file__).read_text(encoding="utf-8"))
    assert named[0] in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    with clusters.real(tmp_path_factory.mktemp("cluster")) as found:
        yield found


@pytest.fixture(scope="module")
def namespace(host, example):
    """A cluster where the example is applied; its quota counts, as Kubernetes' controller would have it."""
    api = clusters.connect(host)
    for one in sorted(example, key=lambda one: one["kind"] != "Namespace"):
        clusters.create(api, one)
    core, limits = client.CoreV1Api(api), only(example, "ResourceQuota", "cliprd")["spec"]["hard"]
    limits = {**limits, "requests.cpu": "65"}  # a recorded pod, which no node could take, asks for 64
    status = {"status": {"hard": limits, "used": dict.fromkeys(limits, "0")}}
    core.patch_namespaced_resource_quota_status("cliprd", "cliprd", status)
    for _ in range(100):  # until admission has seen it
        try:
            clusters.create(api, job_pods()["trainjob 0"], "cliprd", dryRun="All")
            break
        except client.ApiException as error:
            assert "status unknown for quota" in error.body
            time.sleep(0.1)
    return api


@pytest.fixture(scope="module")
def argo(host):
    """The server, with Argo's CRDs."""
    folder = os.environ.get("CLIPRD_ARGO_CRDS")
    if not folder:
        pytest.skip("CLIPRD_ARGO_CRDS names no folder with Argo's CRDs (manifests/base/crds/full)")
    api = clusters.connect(host)
    for name in ("workflows", "cronworkflows"):
        text = (Path(folder) / f"argoproj.io_{name}.yaml").read_text(encoding="utf-8")
        clusters.create(api, yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    look = client.CustomObjectsApi(api).list_namespaced_custom_object
    for name in ("workflows", "cronworkflows"):
        clusters.retried(lambda name=name: look("argoproj.io", "v1alpha1", "default", name))
    return api


real = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning"),
]


class TestAtARealServer:
    pytestmark = real

    def test_every_pod_of_ours_is_admitted_and_others_are_not(self, namespace, example):
        own = [one["spec"] for one in example if one["kind"] in ("Deployment", "StatefulSet", "DaemonSet")]
        assert len(own) == 3
        for workload in own:
            spec = copy.deepcopy(workload["template"]["spec"])
            claims = [{"name": claim["metadata"]["name"]} for claim in workload.get("volumeClaimTemplates", [])]
            spec.setdefault("volumes", []).extend({**claim, "emptyDir": {}} for claim in claims)
            clusters.create(namespace, pod_security.pod(spec), "cliprd", dryRun="All")
        for one in our_pods().values():
            clusters.create(namespace, one, "cliprd", dryRun="All")
        for name, one in bad_pods().items():
            with pytest.raises(client.ApiException, match='violates PodSecurity \\\\"restricted') as error:
                clusters.create(namespace, one, "cliprd", dryRun="All")
            assert error.value.status == 403, name

    def test_a_worker_of_the_training_operator_with_the_documented_init_container(self, namespace):
        text = (ROOT / "docs" / "kubeflow.md").read_text(encoding="utf-8")
        (shown,) = re.findall(r"```yaml\n(- name: init-pytorch\n.*?)```", text, re.DOTALL)
        one = job_pods()["pytorchjob 1"]
        one["spec"]["initContainers"] = yaml.safe_load(re.sub(r"{{\.\w+}}", "x", shown))
        assert pod_security.violations(one["spec"]) == []
        clusters.create(namespace, one, "cliprd", dryRun="All")

    def test_a_quota_refuses_what_is_too_much(self, namespace):
        one = job_pods()["trainjob 0"]
        one["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "9"}}
        with pytest.raises(client.ApiException, match="exceeded quota: cliprd"):
            clusters.create(namespace, one, "cliprd", dryRun="All")

    def test_the_role_suffices_for_a_job_and_for_nothing_else(self, namespace, host):
        runner = clusters.connect(host, clusters.RUNNER)
        for form in FORMS:
            folders = {name: f"s3://pairs/{name}" for name in ("shards", "cache", "output")}
            trees = job_objects(tree(), IMAGE, nodes=2, form=form, **folders)
            cluster, elsewhere = Cluster(runner, "cliprd"), Cluster(runner, "default")
            assert all(cluster.create(one) for one in trees)
            assert cluster.get(trees[-1])["metadata"]["namespace"] == "cliprd"
            assert cluster.pods(trees[-1]) == []
            for one in reversed(trees):
                cluster.delete(one)
            with pytest.raises(MachineError, match="forbids this in namespace default"):
                elsewhere.create(trees[0])
        core = client.CoreV1Api(runner)
        for call in (core.list_namespaced_secret, core.list_namespaced_config_map):
            with pytest.raises(client.ApiException, match="Forbidden"):
                call("cliprd")
        with pytest.raises(client.ApiException, match="Forbidden"):
            core.create_namespaced_pod("cliprd", job_pods()["trainjob 0"])

    @pytest.mark.parametrize("cron", [None, "0 3 * * *"])
    @pytest.mark.parametrize("name", ["distill", "ablation", "retrain"])
    def test_argo_takes_every_field_of_the_workflows(self, argo, name, cron):
        one = yaml.safe_load(compile_argo(name, tree("kubernetes.queue=team-a"), IMAGE, cron=cron))
        made = clusters.create(argo, copy.deepcopy(one), "default")
        assert made["kind"] == ("CronWorkflow" if cron else "Workflow")
        assert made["spec"] == one["spec"]
        one["spec"]["unknown"] = {}
        with pytest.raises(client.ApiException, match="unknown field"):
            clusters.create(argo, one, "default", dryRun="All")
