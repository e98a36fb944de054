"""`cliprd pipeline submit`: what reaches the server, and one clear line for everything that can go wrong."""

import json
import socket
import subprocess
import sys

import pytest

from cliprd import params
from cliprd.kubeflow import client, submit
from cliprd.kubeflow.compile import compile_pipeline
from tests.kubeflow import kfp_server
from tests.kubeflow.paths import IMAGE, QUIET, ROOT
from tests.ports import free_port

DIGEST = "registry.example/cliprd@sha256:" + "1" * 64


def test_a_pipeline_is_made_uploaded_once_and_run(server, cliprd):
    code, out, err = cliprd(
        "submit", "distill", "--host", server.host, "--input", "method=vrd-exp", "--input", "seed=3"
    )
    assert (code, err) == (0, "")
    assert [pipeline["display_name"] for pipeline in server.pipelines] == ["cliprd-distill"]
    (version,) = server.versions
    (run,) = server.runs
    assert run["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]
    assert run["runtime_config"]["parameters"] == {"method": "vrd-exp", "seed": 3}
    assert [experiment["display_name"] for experiment in server.experiments] == ["cliprd-demo"]
    assert f"{server.host}/#/runs/details/{run['run_id']}" in out
    assert f"version {version['name']} uploaded" in out

    code, out, _ = cliprd("submit", "distill", "--host", server.host, "--run-name", "second", "--experiment", "mine")
    assert code == 0
    assert "is there already" in out
    assert len(server.pipelines) == len(server.versions) == 1
    assert server.runs[1]["display_name"] == "second"
    assert server.runs[1]["experiment_id"] == server.experiments[1]["experiment_id"]

    cliprd("submit", "distill", "--host", server.host, "--set", "distill.epochs=7")
    assert len({version["name"] for version in server.versions}) == 2


def test_what_is_uploaded_is_what_compile_writes(server, cliprd):
    override = "kubernetes.secrets=[{name: s3, keys: {secret: AWS_SECRET_ACCESS_KEY}}]"
    assert cliprd("submit", "ablation", "--host", server.host, "--set", override)[0] == 0
    import yaml

    text = compile_pipeline("ablation", params.load(ROOT / "params.yaml", [*QUIET[1::2], override]), IMAGE)
    spec, platform = yaml.safe_load_all(text)
    assert server.versions[0]["pipeline_spec"] == {"pipeline_spec": spec, "platform_spec": platform}


def test_things_beyond_the_first_page_are_found(server, cliprd, monkeypatch):
    monkeypatch.setattr(client, "PAGE", 2)
    server.experiments += [
        {"display_name": "cliprd-demo", "experiment_id": str(number), "namespace": "x"} for number in range(5)
    ]
    assert cliprd("submit", "distill", "--host", server.host)[0] == 0
    assert len(server.experiments) == 5


@pytest.mark.parametrize("name", ["distill", "ablation"])
def test_no_cache_reaches_every_step(server, cliprd, name):
    assert cliprd("submit", name, "--host", server.host, "--no-cache")[0] == 0
    (run,) = server.runs
    assert "pipeline_version_reference" not in run
    text = json.dumps(run["pipeline_spec"])
    assert '{"enableCache": true}' not in text
    assert '{"enableCache": false}' in text
    assert "without cache" in run["description"]
    assert '{"enableCache": true}' in json.dumps(server.versions[0]["pipeline_spec"])


def test_quiet_and_whole_as_a_program(server, tmp_path):
    """kfp prints, warns and logs; none of it reaches the user."""
    command = [sys.executable, "-m", "cliprd.cli", "pipeline", "submit", "distill", "--image", IMAGE]
    result = subprocess.run(
        [*command, "--host", server.host, *QUIET],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"HOME": str(tmp_path)},
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert len(result.stdout.splitlines()) == 2
    assert not list(tmp_path.iterdir())


# Inputs: nothing is sent before they are right.


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("methd=vrd", "Did you mean 'method'?"),
        ("zzz=1", "It has augmentation, benchmark"),
        ("method=clp", "'clp' is no method"),
        ("seed=x", "expected a whole number"),
        ("seed=1.5", "expected a whole number"),
        ("seed=true", "expected a whole number"),
        ("seed=-1", "greater than or equal to 0"),
        ("method=3", "expected text"),
        ("distill=3", "expected a mapping"),
        ("distill={epoch: 3}", "did you mean 'distill.epochs'?"),
        ("distill={epochs: 0}", "'distill.epochs' = 0"),
        ("data={kind: webdatset}", "'data.kind'"),
        ("teacher={name: openclip}", "teacher.name: No teacher is called"),
        ("distill={clip_grad_norm: null}", "carries no null"),
        ("method", "expected NAME=VALUE"),
        ("method={", "not valid YAML"),
    ],
)
def test_wrong_inputs_fail_at_once(server, fails, given, said):
    assert said in fails(2, "submit", "distill", "--host", server.host, "--input", given)
    assert server.requests == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("[]", "is empty"),
        ("[{method: clip_kd}]", "is no run"),
        ("[clip_kd]", "is no run"),
        ("[{method: clip, seed: 0}]", "is no method"),
        ("[{method: clip_kd, seed: -1}]", "greater than or equal to 0"),
        ("[{method: clip_kd, seed: 0}, {method: clip_kd, seed: 0}]", "twice"),
    ],
)
def test_wrong_runs_fail_at_once(server, fails, given, said):
    assert said in fails(2, "submit", "ablation", "--host", server.host, "--input", f"runs={given}")
    assert server.requests == []


def test_nulls_that_are_defaults_are_left_out(server, cliprd):
    assert (
        cliprd("submit", "distill", "--host", server.host, "--input", "distill={chunk_size: null, epochs: 2}")[0] == 0
    )
    (sent,) = server.runs[0]["runtime_config"]["parameters"].values()
    assert "chunk_size" not in sent
    assert (sent["epochs"], sent["lr"], sent["batch_size"]) == (2, 0.002, 128)  # the rest is the pipeline's own


# The image.


def test_the_local_image_is_refused_with_a_hint(server, fails, cliprd):
    line = fails(2, "submit", "distill", "--host", server.host, image=None)
    assert "--image registry/name@sha256:" in line
    assert server.requests == []
    code, _, err = cliprd("submit", "distill", "--host", server.host, image="cliprd:cpu-" + "0" * 12)
    assert code == 0
    assert "names no registry" in err


def test_a_slim_image_that_no_registry_has_is_told(server, cliprd):
    slim = "cliprd:slim-" + "0" * 12
    code, _, err = cliprd("submit", "distill", "--host", server.host, "--set", f"kubernetes.slim_image={slim}")
    assert code == 0
    assert f"{slim} names no registry" in err


def test_a_tag_that_moves_is_refused(server, fails):
    assert "can come to mean another image" in fails(
        2, "submit", "distill", "--host", server.host, image="registry.example/cliprd:latest"
    )


# Who one is.


def test_the_token_comes_from_the_environment_or_a_file(server, cliprd, monkeypatch, tmp_path):
    server.token = "s3cr3t"
    monkeypatch.setenv("KFP_TOKEN", "s3cr3t")
    assert cliprd("submit", "distill", "--host", server.host)[0] == 0
    monkeypatch.setenv("KFP_TOKEN", "other")
    (tmp_path / "token").write_text("s3cr3t\n")
    assert cliprd("submit", "distill", "--host", server.host, "--token-file", str(tmp_path / "token"))[0] == 0
    assert set(server.tokens) == {"Bearer s3cr3t"}


def test_the_projected_token_of_a_notebook_is_used(server, cliprd, monkeypatch, tmp_path):
    server.token = "s3cr3t"
    (tmp_path / "token").write_text("s3cr3t")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    assert cliprd("submit", "distill", "--host", server.host)[0] == 0


def test_kfps_context_file_is_used_and_a_damaged_one_said(server, cliprd, fails, tmp_path):
    server.multi_user = True
    (tmp_path / "context.json").write_text('{"namespace": "team-b"}')
    assert cliprd("submit", "distill", "--host", server.host)[0] == 0
    assert server.pipelines[0]["namespace"] == server.experiments[0]["namespace"] == "team-b"
    (tmp_path / "context.json").write_text("{")
    assert "context file, is damaged" in fails(3, "submit", "distill", "--host", server.host)


@pytest.mark.parametrize("text", ["", "two words", "two\nlines"])
def test_what_is_no_token_is_refused_before_it_is_sent(server, fails, monkeypatch, tmp_path, text):
    (tmp_path / "token").write_text(text)
    assert "no token" in fails(2, "submit", "distill", "--host", server.host, "--token-file", str(tmp_path / "token"))
    assert "cannot be read" in fails(2, "submit", "distill", "--host", server.host, "--token-file", str(tmp_path))
    if text:
        monkeypatch.setenv("KFP_TOKEN", text)
        assert "no token" in fails(2, "submit", "distill", "--host", server.host)
    assert server.requests == []


def test_a_namespace_is_asked_for_and_used(server, cliprd, fails):
    server.multi_user = True
    assert "--namespace" in fails(2, "submit", "distill", "--host", server.host)
    assert cliprd("submit", "distill", "--host", server.host, "--namespace", "team-a")[0] == 0
    assert server.pipelines[0]["namespace"] == server.experiments[0]["namespace"] == "team-a"


# What can go wrong on the way.


@pytest.mark.parametrize(
    ("trouble", "code", "said"),
    [
        ("401", 3, "does not accept the token"),
        ("403", 3, "forbids this (403: told 403). Check --namespace"),
        ("login", 3, "answers with a web page: a sign-in"),
        ("redirect", 3, "sends on to https://dex.example/auth (302)"),
        ("garbage", 3, "not as a Kubeflow Pipelines API"),
        ("page404", 3, "has no Kubeflow Pipelines API"),
        ("400", 3, "told 400"),
        ("429", 75, "cannot answer now"),
        ("500", 75, "cannot answer now"),
        ("503", 75, "cannot answer now"),
        ("reset", 75, "broke the connection"),
    ],
)
@pytest.mark.parametrize("where", ["healthz", "experiments", "upload_version"])
def test_what_a_server_or_its_proxy_may_say(server, fails, monkeypatch, trouble, code, said, where):
    monkeypatch.setenv("KFP_TOKEN", "s3cr3t")
    server.trouble, server.trouble_at = trouble, where
    line = fails(code, "submit", "distill", "--host", server.host)
    if where != "upload_version" or trouble not in ("500", "503", "429"):
        assert said in line
    assert "state=secret" not in line
    assert server.runs == server.versions == []


def test_a_run_that_the_server_refuses_leaves_no_version_behind(server, cliprd, fails, monkeypatch):
    server.trouble, server.trouble_at = "403", "v2beta1/runs"
    line = fails(3, "submit", "distill", "--host", server.host)
    assert "forbids this (403" in line
    assert "stays" not in line
    assert server.pipelines == server.versions == []
    server.trouble = ""
    cliprd("submit", "distill", "--host", server.host)
    before = list(server.versions)
    server.trouble = "400"
    fails(3, "submit", "distill", "--host", server.host)  # the version was there: it is not this call's to remove
    fails(3, "submit", "distill", "--host", server.host, "--set", "distill.epochs=7")  # the pipeline was there
    assert (server.versions, len(server.pipelines)) == (before, 1)


def test_what_cannot_be_removed_is_named_with_its_page(server, fails):
    server.troubles_at = [("400", "POST", "v2beta1/runs"), ("403", "DELETE", "/versions/")]
    line = fails(3, "submit", "distill", "--host", server.host)
    (version,) = server.versions
    assert "told 400" in line
    assert f"On the server stays version {version['name']} of pipeline cliprd-distill (it cannot be removed: " in line
    page = f"{server.host}/#/pipelines/details/{version['pipeline_id']}/version/{version['pipeline_version_id']}"
    assert line.endswith(page)


@pytest.mark.parametrize("trouble", ["503", "reset"])
def test_after_an_answer_that_leaves_it_open_the_version_stays_and_is_named(server, fails, trouble):
    server.troubles_at = [(trouble, "POST", "v2beta1/runs")]
    line = fails(75, "submit", "distill", "--host", server.host)
    (version,) = server.versions
    assert f"stays version {version['name']} of pipeline cliprd-distill (for the next attempt)" in line


def test_an_interrupted_submit_names_what_stays(server, cliprd, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(submit, "_create_run", interrupted)
    code, _, err = cliprd("submit", "distill", "--host", server.host)
    assert code == 130
    assert f"On the server stays version {server.versions[0]['name']} of pipeline cliprd-distill" in err


def test_an_experiment_that_is_refused_is_so_before_anything_is_uploaded(server, fails):
    server.troubles_at = [("403", "POST", "/experiments")]
    fails(3, "submit", "distill", "--host", server.host, "--experiment", "not mine")
    fails(3, "schedule", "distill", "--host", server.host, "--cron", "0 3 * * *", "--experiment", "not mine")
    assert not [path for _, path, _ in server.requests if "/pipelines" in path]


def test_what_retries_depend_on_is_said(server, cliprd):
    for action, more in (("submit", []), ("schedule", ["--cron", "0 3 * * *"])):
        code, _, err = cliprd(action, "distill", "--host", server.host, "--set", "kubernetes.retries=2", *more)
        assert code == 0
        (line,) = err.splitlines()
        assert line.startswith("cliprd: kubernetes.retries = 2: the cluster's retryPolicy decides")


def test_reads_are_tried_again_and_writes_are_not(server, cliprd, fails):
    server.trouble, server.trouble_at, server.troubles = "503", "healthz", 2
    assert cliprd("submit", "distill", "--host", server.host)[0] == 0
    server.requests.clear()
    server.trouble, server.trouble_at, server.troubles = "503", "/runs", 1
    server.troubles = 10
    fails(75, "submit", "distill", "--host", server.host)
    assert [method for method, path, _ in server.requests if path.endswith("/runs")].count("POST") == 1


def test_a_run_whose_answer_got_lost_is_not_started_twice(server, cliprd):
    server.trouble, server.trouble_at = "done, reset", "/runs"
    code, out, _ = cliprd("submit", "distill", "--host", server.host, "--run-name", "mine")
    assert code == 0
    assert "The run was started nevertheless" in out
    assert "details/lost" in out
    assert len(server.runs) == 1


def test_a_slow_server_is_not_waited_for_for_ever(server, fails, monkeypatch):
    monkeypatch.setattr(client, "READ_SECONDS", 0.1)
    server.trouble = "slow"
    assert "took longer than" in fails(75, "submit", "distill", "--host", server.host)


def test_a_host_that_drops_packets_is_given_up(fails, monkeypatch):
    monkeypatch.setattr(client, "CONNECT_SECONDS", 0.3)
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for each in waiting:  # the backlog is full then, and the kernel drops what comes
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        line = fails(75, "submit", "distill", "--host", f"http://127.0.0.1:{full.getsockname()[1]}")
        for each in waiting:
            each.close()
    assert "does not answer within" in line


def test_nobody_there(fails):
    port = free_port()
    assert "Connection refused" in fails(75, "submit", "distill", "--host", f"http://127.0.0.1:{port}")


@pytest.mark.parametrize(("errno", "code"), [(socket.EAI_NONAME, 3), (socket.EAI_AGAIN, 75)])
def test_a_name_that_is_none(fails, monkeypatch, errno, code):
    def unknown(*_: object) -> None:
        raise socket.gaierror(errno, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    line = fails(code, "submit", "distill", "--host", "https://kubeflow.invalid/pipeline")
    assert "kubeflow.invalid" in line
    assert "Check --host" in line


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("ftp://x", "is no address"),
        ("http://", "is no address"),
        ("http://a b", "is no address"),
        ("http://x:port", "is no address"),
        ("https://user:s3cr3t@kubeflow.example", "carries a user or password"),
    ],
)
def test_hosts_that_are_none(fails, host, said):
    assert said in fails(2, "submit", "distill", "--host", host)


def test_an_empty_or_missing_host(fails, capsys):
    assert "No host" in fails(2, "submit", "distill")
    with pytest.raises(SystemExit) as stopped:
        fails(2, "submit", "distill", "--host", "")
    assert stopped.value.code == 2
    assert "--host: it is empty" in capsys.readouterr().err


def test_the_ui_address_and_kfps_variable_will_do(server, cliprd, monkeypatch):
    assert cliprd("submit", "distill", "--host", f"{server.host}/#/pipelines")[0] == 0
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.host)
    assert cliprd("submit", "distill")[0] == 0


@pytest.fixture
def certificate(tmp_path):
    file = tmp_path / "server.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(file), "-out", str(tmp_path / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    file.write_text(file.read_text() + (tmp_path / "cert.pem").read_text())
    return file


def test_tls(alone, cliprd, fails, server, certificate, tmp_path, monkeypatch):
    plain = server.host.replace("http:", "https:")
    assert "It may speak plain http" in fails(3, "submit", "distill", "--host", plain)
    with kfp_server.running(certificate) as secure:
        host = secure.host.replace("http:", "https:")
        line = fails(3, "submit", "distill", "--host", host)
        assert "CERTIFICATE_VERIFY_FAILED" in line
        assert "SSL_CERT_FILE" in line
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        assert cliprd("submit", "distill", "--host", host)[0] == 0
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
        assert "There is no CA bundle" in fails(3, "submit", "distill", "--host", host)
