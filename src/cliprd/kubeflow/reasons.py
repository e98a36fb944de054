"""Why a step waits or failed, from what Kubernetes, Argo, KFP's launcher and the step itself left, and what to do."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cliprd.kubeflow.outline import Outline
from cliprd.kubeflow.run_steps import DEADLINE, RunStep
from cliprd.params import Resources

LONGEST = 500  # characters of a cause
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_OURS = "cliprd: error: "
_RAISED = re.compile(r"[\w.]*(Error|Exception|Killed|Interrupt)\b")
_FATAL = re.compile(r"F\d{4} [\d:.]+\s+\d+ [\w.-]+:\d+\] (.*)")  # the last line of KFP's driver and launcher
_ARGOS_LAST = re.compile(r"Error: exit status \d+")  # after the log of every pod that failed
_STEPS_OWN = re.compile(r"exit status \d+$")  # the launcher's words for a step that ended with an error
_CONTAINER = re.compile(r"([\w.-]+): (?=.*\(exit code \d+\))")
_BARE = re.compile(r"^(?:main: )?Error \(exit code (\d+)\)(?:: )?")
_NO_REASON = re.compile(r"(?:|Error \(exit code \d+\)|[Uu]nknown.*)")
# What ends a container from outside by the signal that lack of memory sends too.
_TAKEN = re.compile(
    r"pod deleted|[Ee]vict|low on resource|node had condition|[Pp]reempt|[Nn]ode (?:is )?shut|NodeLost|NodeShutdown"
    r"|TerminatedByKubelet|Pod was rejected|ephemeral.storage|EmptyDir|shutdown with strategy|" + DEADLINE
)
_KILLED = re.compile(r"OOMKilled|exit code 137|signal: killed|ended by SIGKILL|exit status 137|^Killed\.?$")
_STARTING = re.compile(r"(?:|ContainerCreating.*|PodInitializing.*)")
# Cause → what to do, and what else if the pod is the step's own and not KFP's driver; {memory} and so on are the
# parameters that set these for the step.
_OF_STORES = (
    (r"AuthorizationHeaderMalformed|PermanentRedirect|MissingRegion|InvalidRegion",
     "correct region and endpoint of KFP's artifact store: ConfigMap kfp-launcher in namespace {namespace}", ""),
    (r"(upload|download|artifact|bucket|s3|minio).*(AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|Forbidden"
     r"|[Cc]redential)",
     "correct the artifact store's credentials: ConfigMap kfp-launcher in namespace {namespace}, and its secret", ""),
    (r"(upload|download|artifact).*NoSuchBucket",
     "make the bucket, or correct the root in ConfigMap kfp-launcher in namespace {namespace}", ""),
    (r"orkflow[Tt]ask[Rr]esults?\b.*forbidden",
     "let the pods' service account create and patch workflowtaskresults in namespace {namespace}", ""),
)  # fmt: skip
_OF_PODS = (
    (r"ImagePull|ErrImage|InvalidImageName|ImageInspectError|RegistryUnavailable",
     "image {image} cannot be pulled: was it pushed, is the name right, may the namespace pull it?", ""),
    (r'secrets? "?[^" ]+"? not found', "make the secret in namespace {namespace}",
     ", or correct kubernetes.secrets in params.yaml"),
    (r"couldn't find key", "add the key to the secret", ", or correct kubernetes.secrets in params.yaml"),
    (r"configmap .*not found", "make the ConfigMap in namespace {namespace}", ""),
    (r"persistentvolumeclaim|PersistentVolumeClaim", "make the claim in namespace {namespace}",
     ", or correct kubernetes.volumes in params.yaml"),
    (r"exceeded quota|must specify (limits|requests)", "free or raise the quota of namespace {namespace}",
     ", or change what the step asks for ({cpu}, {memory})"),
    (r"(maximum|minimum) \w+ usage per", "change the LimitRange of namespace {namespace}",
     ", or what the step asks for ({cpu}, {memory})"),
    (r"violates PodSecurity", "let namespace {namespace} run such pods: see its pod-security.kubernetes.io labels", ""),
    (r"admission webhook|denied the request", "ask who runs the cluster: a rule of theirs refuses the pod", ""),
    (r"service ?account .*not found", "make the service account in namespace {namespace}", ""),
    (r"runAsNonRoot|run as root", "use an image whose user is a number other than 0", ""),
    (r"taint|node affinity|node selector|nodeSelector|didn't match", "has the cluster a node with room that takes it",
     " ({node_selector}, {tolerations})?"),
    (r"Insufficient|Unschedulable|SchedulingGated|have enough resource|OutOf(cpu|memory|ephemeral)",
     "has the cluster a node with room",
     " for the step's resources ({cpu}, {memory}, {accelerators})?"),
    (r"EmptyDir.*shm", "", "raise {shared_memory}"),
    (r"ephemeral.storage|EmptyDir", "", "raise {scratch}"),
    (r"low on resource: memory", "", "raise {memory}: a pod that uses more than it asks for is evicted first"),
    (r"pod deleted|[Ee]vict|low on resource|node had condition|[Pp]reempt|[Nn]ode (is )?shut|NodeLost|NodeShutdown",
     "its pod or node was taken away: the next attempt, or run, reuses what is complete", ""),
    (DEADLINE, "", "give it longer: {timeout}"),
    *_OF_STORES,
)  # fmt: skip


@dataclass(frozen=True)
class Reason:
    """Why, and what to do.

    Attributes:
        cause: one line; empty: not known.
        remedy: one sentence or question; empty: none is known, or the cause has it.
    """

    cause: str
    remedy: str = ""

    def __str__(self) -> str:
        if not self.remedy:
            return self.cause
        return f"{self.cause.rstrip('.;')}; {self.remedy}" if self.cause else self.remedy


def failure_reason(step: RunStep, message: str, log: str, outline: Outline, namespace: str) -> Reason:
    """Why a pod of a step failed.

    Args:
        step: whose.
        message: Argo's about this pod, or else about what it is in.
        log: of the pod's main container; empty: not known.
        outline: the pipeline.
        namespace: of the run.
    """
    container = _CONTAINER.match(message)
    if not _TAKEN.search(message) and (not container or container[1] == "main"):  # the log is of `main`
        fatal, error = _fatal(log), _own_error(log)
        if killed := next((text for text in (message, fatal, error, log_end(log)) if _KILLED.search(text)), ""):
            return _out_of_memory(step, killed, outline)
        if fatal and not _STEPS_OWN.search(fatal):
            return Reason(_short(fatal), _remedy(fatal, _OF_STORES, step, outline, namespace))
        if error or _BARE.match(message):
            own = error or _BARE.sub("", message)  # it has its own remedy
            return Reason(_short(own or message.removeprefix("main: ")))
    return Reason(_short(message.removeprefix("main: ")), _remedy(message, _OF_PODS, step, outline, namespace))


def waiting_reason(step: RunStep, outline: Outline, namespace: str) -> Reason:
    """Why a pod of a step has not started; no cause: what there is to look at."""
    if _STARTING.fullmatch(step.message):
        node = step.node
        if node and node.leaf and node.phase == "Running":
            return Reason("", "its pod runs: look at the log.")
        if node and (node.phase == "Succeeded" or not node.leaf):
            return Reason("", "is Argo's workflow-controller running, or is its limit of pods at once reached?")
        return Reason(
            step.message,
            f"can the cluster pull image {_image(step, outline)}, and has it a node with the step's resources?",
        )
    return Reason(_short(step.message), _remedy(step.message, _OF_PODS, step, outline, namespace))


def trouble(message: str) -> str:
    """The kind of what keeps a pod from starting; empty: nothing does, it just takes time."""
    return "" if _STARTING.fullmatch(message) else message.partition(":")[0]


def is_known(reason: Reason) -> bool:
    """Whether a cause says more than that there was an error."""
    return not _NO_REASON.fullmatch(reason.cause)


def log_end(log: str) -> str:
    """The last line that is neither Argo's nor the launcher's."""
    lines = [_ANSI.sub("", line).strip() for line in log.splitlines()]
    said = [line for line in lines if line and not re.match(r"time=|[IWEF]\d{4} |Error: exit status|goroutine", line)]
    return said[-1] if said else ""


def _lines(log: str) -> list[str]:
    return [line for line in (_ANSI.sub("", line).rstrip() for line in log.splitlines()) if line]


def _fatal(log: str) -> str:
    """What KFP's launcher or driver ended with: its last fatal line and the indented ones below."""
    lines = _lines(log)
    for number, line in reversed(list(enumerate(lines))):
        if match := _FATAL.match(line.strip()):
            below = itertools.takewhile(lambda more: more[0].isspace(), lines[number + 1 :])
            return " ".join([match[1], *(more.strip() for more in below)])
    return ""


def _own_error(log: str) -> str:
    """What the step ended with: cliprd's own line, or a Python exception."""
    lines = [line.strip() for line in _lines(log)]
    ours = [line.partition(_OURS)[2] for line in lines if _OURS in line]
    raised = [line for line in lines if _RAISED.match(line) and not _ARGOS_LAST.match(line)]
    return next((errors[-1] for errors in (ours, raised) if errors), "")


def _out_of_memory(step: RunStep, sign: str, outline: Outline) -> Reason:
    code = re.search(r"exit code \d+", sign)
    cause = f"OOMKilled ({code[0]})" if "OOMKilled" in sign and code else "OOMKilled"
    if "OOMKilled" not in sign:
        cause = f"killed ({code[0] if code else _short(sign)}), which is OOMKilled unless somebody ended it"
    if step.driver:
        return Reason(cause, "KFP's driver needs more memory than KFP's installation gives it.")
    parameter, limit = outline.resource(step.task, "memory")
    if not limit:
        return Reason(cause, f"it has no memory limit in params.yaml: set {parameter} to what it needs.")
    return Reason(f"{cause}: its memory limit is {limit}", f"raise {parameter} in params.yaml.")


def _remedy(cause: str, table: Sequence[tuple[str, str, str]], step: RunStep, outline: Outline, namespace: str) -> str:
    general, own = next((texts for pattern, *texts in table if re.search(pattern, cause)), ("", ""))
    text = general if step.driver else general + own
    parameters = {name: outline.resource(step.task, name)[0] for name in Resources.model_fields}
    text = text.format(image=_image(step, outline), namespace=namespace, **parameters)
    return f"{text}{'' if text.endswith('?') else '.'}" if text else ""


def _image(step: RunStep, outline: Outline) -> str:
    """The image that a pod waits for: the one that its message names, if it is not the step's."""
    named = re.search(r'image "([^"]+)"', step.message)
    if named and not outline.image.startswith(named[1]):
        return named[1]
    return "of KFP's driver" if step.driver else outline.image


def _short(text: str) -> str:
    """The text without its middle where it is long: what is wrong stands at the end of Go's errors."""
    return text if len(text) <= LONGEST else f"{text[:150]} … {text[len(text) - LONGEST + 153 :]}"
