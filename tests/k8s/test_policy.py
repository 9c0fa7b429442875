"""Rules that schemas cannot hold: the objects fit each other, pods are restricted, a shutdown has its time."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings

K8S = Path(__file__).parents[2] / "k8s"
UNITS = {"": 1, "m": 0.001, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
# The volumes that the restricted Pod Security Standard allows, of those that we use.
VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}
AUTOSCALERS = ("HorizontalPodAutoscaler", "ScaledObject")


def amount(quantity: str) -> float:
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", quantity).groups()
    return float(number) * UNITS[unit]


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return selector["matchLabels"].items() <= labels.items()


def settings(rendered: Any) -> Settings:
    (found,) = (one for one in rendered.of("ConfigMap") if one["metadata"]["name"].startswith("bentune-settings"))
    return Settings.from_env(found["data"])


# --- the objects fit each other


def test_selectors_match_the_pods(rendered: Any) -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in rendered.pods.items()}
    for workload in rendered.of("Deployment"):
        name = f"Deployment/{workload['metadata']['name']}"
        assert [other for other in labels if matches(workload["spec"]["selector"], labels[other])] == [name]
        (spread,) = workload["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert matches(spread["labelSelector"], labels[name])
        assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
    serving = {name for name in labels if name.startswith("Deployment/")}
    for one in (*rendered.of("PodDisruptionBudget"), *rendered.of("NetworkPolicy")):
        selector = one["spec"].get("selector") or one["spec"]["podSelector"]
        assert {name for name in labels if matches(selector, labels[name])} == serving
    for monitor in rendered.of("ServiceMonitor"):
        assert matches(monitor["spec"]["selector"], rendered.one("Service")["metadata"]["labels"])


def test_a_service_selects_pods_that_have_its_ports(rendered: Any) -> None:
    for service in rendered.of("Service"):
        selector = service["spec"]["selector"]
        # The Job's controller adds this label to its pods.
        job = selector.pop("batch.kubernetes.io/job-name", None)
        assert job in {None, *(one["metadata"]["name"] for one in rendered.of("Job"))}
        pods = [pod for pod in rendered.pods.values() if selector.items() <= pod["metadata"]["labels"].items()]
        assert len(pods) == len(rendered.pods)
        for port in service["spec"]["ports"]:
            for pod in pods:
                names = [own["name"] for one in pod["spec"]["containers"] for own in one.get("ports", [])]
                assert port["targetPort"] in names


def test_what_names_a_port_of_the_service_names_one_that_it_has(serving: Any) -> None:
    (port,) = serving.one("Service")["spec"]["ports"]
    for monitor in serving.of("ServiceMonitor"):
        assert [one["port"] for one in monitor["spec"]["endpoints"]] == [port["name"]]
    for route in serving.of("HTTPRoute"):
        for rule in route["spec"]["rules"]:
            assert [(one["name"], one["port"]) for one in rule["backendRefs"]] == [("bentune", port["port"])]
    for policy in serving.of("NetworkPolicy"):
        (ingress,) = policy["spec"]["ingress"]
        assert [one["port"] for one in ingress["ports"]] == [port["targetPort"]]


def test_the_probes_ask_a_port_by_a_name_that_is_there(serving: Any) -> None:
    for pod in serving.pods.values():
        (container,) = pod["spec"]["containers"]
        names = {port["name"] for port in container["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"]["port"] in names
        startup, liveness = container["startupProbe"], container["livenessProbe"]
        assert startup["periodSeconds"] * startup["failureThreshold"] >= 300
        assert liveness["periodSeconds"] * liveness["failureThreshold"] >= 60
        # A model that fails its golden rows is not restarted for it.
        assert [container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe")] == ["/livez"] * 2
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_a_prometheus_without_the_operator_is_told_the_port(serving: Any) -> None:
    for pod in serving.pods.values():
        (container,) = pod["spec"]["containers"]
        annotations = pod["metadata"]["annotations"]
        assert annotations["prometheus.io/scrape"] == "true"
        assert annotations["prometheus.io/port"] == str(container["ports"][0]["containerPort"])


def test_an_autoscaler_owns_the_number_of_pods(serving: Any) -> None:
    scalers = [one for kind in AUTOSCALERS for one in serving.of(kind)]
    for scaler in scalers:
        reference = scaler["spec"]["scaleTargetRef"]
        target = serving.one("Deployment", reference["name"])
        assert "replicas" not in target["spec"]
        assert target["spec"]["template"]["metadata"]["labels"]["track"] == "stable"
        # A Rollout makes the Deployment's pods in its place.
        assert reference.get("kind", "Deployment") == ("Rollout" if serving.of("Rollout") else "Deployment")
        for rollout in serving.of("Rollout"):
            assert rollout["metadata"]["name"] == rollout["spec"]["workloadRef"]["name"] == reference["name"]
            assert "replicas" not in rollout["spec"]
    has = {*serving.case.components, *listed(serving.case.directory)}
    assert len(scalers) == len(has & {"autoscale-hpa", "autoscale-keda"})


def matched(rule: dict[str, Any]) -> str:
    """Return the pattern by which the adapter's rule takes the names of series."""
    (pattern,) = re.findall(r'__name__=~"([^"]*)"', rule["seriesQuery"])
    return f"^({pattern})$"


def listed(directory: str) -> set[str]:
    return {
        Path(one).name
        for one in yaml.safe_load((K8S / directory / "kustomization.yaml").read_text()).get("components", [])
    }


def test_both_autoscalers_scale_alike(render: Callable[..., Any]) -> None:
    hpa = render("overlays/dev", "autoscale-hpa").one("HorizontalPodAutoscaler")["spec"]
    keda = render("overlays/dev", "autoscale-keda").one("ScaledObject")["spec"]
    assert (hpa["minReplicas"], hpa["maxReplicas"]) == (keda["minReplicaCount"], keda["maxReplicaCount"]) == (2, 6)
    cpu, queue = hpa["metrics"]
    keda_cpu, keda_queue = keda["triggers"]
    assert str(cpu["resource"]["target"]["averageUtilization"]) == keda_cpu["metadata"]["value"]
    assert queue["pods"]["target"]["averageValue"] == keda_queue["metadata"]["threshold"]
    down = keda["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert hpa["behavior"]["scaleDown"] == down
    assert f"({queue['pods']['metric']['name'].removesuffix('_avg')}[1m])" in keda_queue["metadata"]["query"]
    # An empty answer is an error, and an error keeps enough pods.
    assert keda_queue["metadata"]["ignoreNullValues"] == "false"
    assert keda["minReplicaCount"] < keda["fallback"]["replicas"] <= keda["maxReplicaCount"]


def test_the_adapter_makes_the_metric_that_the_autoscaler_asks_for(render: Callable[..., Any]) -> None:
    from rollout.capacity.fleet import BUSY, QUEUE

    (rule,) = yaml.safe_load((K8S / "components/autoscale-hpa/prometheus-adapter.yaml").read_text())["rules"]
    hpa = render("overlays/production").one("HorizontalPodAutoscaler")
    asked = [metric["pods"]["metric"]["name"] for metric in hpa["spec"]["metrics"] if metric["type"] == "Pods"]
    # `bentune capacity` writes patches that ask for these.
    made = {name for name in (BUSY, QUEUE) if re.search(matched(rule), name.removesuffix("_avg"))}
    assert made == {BUSY, QUEUE} >= set(asked)
    assert len(asked) == 1
    assert (rule["name"]["matches"], rule["name"]["as"]) == ("^(.*)$", "${1}_avg")
    assert set(rule["resources"]["overrides"]) == {"namespace", "pod"}


def test_a_drain_always_goes_on_and_never_takes_the_last_pod_of_several(serving: Any) -> None:
    for budget in serving.of("PodDisruptionBudget"):
        assert "minAvailable" not in budget["spec"]
        assert budget["spec"]["maxUnavailable"] == 1
        for scaler in serving.of("HorizontalPodAutoscaler"):
            assert scaler["spec"]["minReplicas"] > budget["spec"]["maxUnavailable"]
        for scaler in serving.of("ScaledObject"):
            assert scaler["spec"]["minReplicaCount"] > budget["spec"]["maxUnavailable"]


def test_a_canary_differs_in_its_image_and_track_alone(render: Callable[..., Any]) -> None:
    rendered = render("overlays/dev", "canary")
    stable, canary = rendered.one("Deployment", "bentune"), rendered.one("Deployment", "bentune-canary")
    assert canary["spec"].pop("replicas") == 1
    assert canary["spec"]["selector"]["matchLabels"].pop("track") == "canary"
    assert canary["spec"]["template"]["metadata"]["labels"].pop("track") == "canary"
    assert canary["spec"]["template"]["spec"]["containers"][0].pop("image") == "bentune/model:next"
    stable["spec"]["selector"]["matchLabels"].pop("track")
    stable["spec"]["template"]["metadata"]["labels"].pop("track")
    assert stable["spec"]["template"]["spec"]["containers"][0].pop("image") == "bentune/model:dev"
    assert canary["spec"] == stable["spec"]
    assert len(rendered.of("Service")) == len(rendered.of("ServiceAccount")) == len(rendered.of("ConfigMap")) == 1


def test_an_overlay_may_rename_everything(render: Callable[..., Any]) -> None:
    rendered = render("overlays/dev", "autoscale-keda", "canary", "gateway", "monitoring", more={"nameSuffix": "-news"})
    assert rendered.one("ScaledObject")["spec"]["scaleTargetRef"]["name"] == "bentune-news"
    (rule,) = rendered.one("HTTPRoute")["spec"]["rules"]
    assert rule["backendRefs"][0]["name"] == rendered.one("Service")["metadata"]["name"] == "bentune-news"
    assert {pod["spec"]["serviceAccountName"] for pod in rendered.pods.values()} == {"bentune-news"}
    hpa = render("overlays/production", more={"nameSuffix": "-news"}).one("HorizontalPodAutoscaler")
    assert hpa["spec"]["scaleTargetRef"]["name"] == "bentune-news"


# --- pods are restricted


def test_pods_meet_the_restricted_standard(rendered: Any) -> None:
    assert rendered.pods
    for pod in rendered.pods.values():
        spec = pod["spec"]
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True
        assert (context["runAsUser"], context["runAsGroup"]) == (1034, 1034)
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        for volume in spec["volumes"]:
            assert set(volume) - {"name"} <= VOLUMES
        for directory in (volume["emptyDir"] for volume in spec["volumes"] if "emptyDir" in volume):
            assert directory["sizeLimit"]
    for container in rendered.containers:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not {"privileged", "runAsUser", "runAsNonRoot", "seccompProfile"} & set(context)


def test_only_the_release_has_a_token_and_it_may_change_one_deployment(rendered: Any) -> None:
    for account in rendered.of("ServiceAccount"):
        assert account["automountServiceAccountToken"] is False
    for name, pod in rendered.pods.items():
        assert pod["spec"]["automountServiceAccountToken"] is (name == "CronJob/bentune-retrain")
        accounts = {account["metadata"]["name"] for account in rendered.of("ServiceAccount")}
        assert {pod["spec"].get("serviceAccountName")} - {None} <= accounts
    for role in rendered.of("Role"):
        deployment, *lists = role["rules"]
        assert deployment == {
            "apiGroups": ["apps"],
            "resources": ["deployments"],
            "resourceNames": ["bentune"],
            "verbs": ["get", "patch"],
        }
        assert [(rule["apiGroups"], rule["resources"], rule["verbs"]) for rule in lists] == [
            (["apps"], ["replicasets"], ["list"]),
            ([""], ["pods"], ["list"]),
        ]
        binding, cron_job = rendered.one("RoleBinding"), rendered.pods["CronJob/bentune-retrain"]
        assert binding["roleRef"]["name"] == role["metadata"]["name"]
        assert [one["name"] for one in binding["subjects"]] == [cron_job["spec"]["serviceAccountName"]]
    assert not rendered.of("ClusterRole") + rendered.of("ClusterRoleBinding")


def test_no_service_sets_variables_in_pods(rendered: Any) -> None:
    assert all(pod["spec"]["enableServiceLinks"] is False for pod in rendered.pods.values())


def test_limits_hold_the_requests_and_cpu_is_the_same_where_the_model_runs(rendered: Any) -> None:
    for container in rendered.containers:
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert {"cpu", "memory"} <= set(requests) <= set(limits)
        assert all(amount(requests[name]) <= amount(limits[name]) for name in requests)
        # This holds for all containers, or the pod is not Guaranteed.
        assert all(requests[name] == limits[name] for name in ("cpu", "memory"))
        # hardware.py rounds a part of a core down.
        assert amount(limits["cpu"]).is_integer()


def test_images_have_a_tag_that_does_not_move_and_are_not_pulled_again(rendered: Any) -> None:
    for container in rendered.containers:
        name, _, tag = container["image"].partition(":")
        assert name.startswith("bentune/")
        assert tag not in {"", "latest"}
        assert container["imagePullPolicy"] == "IfNotPresent"


def test_a_gpu_is_asked_for_where_the_component_is(rendered: Any) -> None:
    wanted = "gpu" in rendered.case.components
    for pod in rendered.pods.values():
        limits = pod["spec"]["containers"][0]["resources"]["limits"]
        assert ("nvidia.com/gpu" in limits) is wanted
        assert bool(pod["spec"].get("tolerations")) is wanted


# --- configuration


def test_settings_are_the_services_own_and_a_change_rolls_the_pods(serving: Any) -> None:
    configs = {one["metadata"]["name"]: one for one in serving.of("ConfigMap")}
    (name,) = (name for name in configs if name.startswith("bentune-settings-"))
    assert re.fullmatch(r"bentune-settings-[0-9a-z]{10}", name)
    for pod in serving.pods.values():
        assert pod["spec"]["containers"][0]["envFrom"] == [{"configMapRef": {"name": name}}]
    known = {f"BENTUNE_{field.upper()}" for field in Settings.model_fields}
    assert set(configs[name]["data"]) <= known
    settings(serving)
    for other in configs.keys() - {name}:
        assert configs[other]["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_an_overlay_merges_settings_and_the_hash_follows(render: Callable[..., Any]) -> None:
    merge = {"name": "bentune-settings", "behavior": "merge", "literals": ["BENTUNE_MAX_INPUTS=7"]}
    plain, changed = (render("overlays/dev", "canary", more=more) for more in ({}, {"configMapGenerator": [merge]}))
    assert (settings(plain).max_inputs, settings(changed).max_inputs) == (256, 7)
    assert settings(changed).drain_timeout_ms == settings(plain).drain_timeout_ms
    assert plain.one("ConfigMap")["metadata"]["name"] != changed.one("ConfigMap")["metadata"]["name"]
    used = {pod["spec"]["containers"][0]["envFrom"][0]["configMapRef"]["name"] for pod in changed.pods.values()}
    assert used == {changed.one("ConfigMap")["metadata"]["name"]}


def test_the_recipe_is_mounted_by_its_hash(training: Any) -> None:
    name = training.one("ConfigMap")["metadata"]["name"]
    assert re.fullmatch(r"bentune-recipe-[0-9a-z]{10}", name)
    for pod in training.pods.values():
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        assert volumes["recipe"]["configMap"]["name"] == name
        claim = training.one("PersistentVolumeClaim")["metadata"]["name"]
        assert volumes["runs"]["persistentVolumeClaim"]["claimName"] == claim


def test_a_read_only_root_leaves_bentoml_a_place(rendered: Any) -> None:
    for pod in rendered.pods.values():
        container = pod["spec"]["containers"][0]
        env = {one["name"]: one.get("value") for one in container["env"]}
        writable = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
        assert "/tmp" in writable
        # Without this variable it is the image's, whose folders lead to /tmp.
        assert any(Path(env.get("BENTOML_HOME", "/tmp")).is_relative_to(path) for path in writable)
        assert env["BENTOML_DO_NOT_TRACK"] == "true"


def test_the_pods_fit_the_image(render: Callable[..., Any]) -> None:
    """The pods fit the image of `bentune image`.

    They agree with its entrypoint, its user, and the one folder that it writes to.
    """
    image = (K8S.parent / "rollout/image/serving.Dockerfile").read_text()
    (entrypoint,) = re.findall(r"^ENTRYPOINT (\[.*\])$", image, re.MULTILINE)
    words = json.loads(entrypoint)
    (pod,) = render("overlays/dev").pods.values()
    (container,) = pod["spec"]["containers"]
    assert words[:2] == ["bentoml", "serve"]
    assert words[-2:] == container["args"]
    assert words[words.index("--port") + 1] == str(container["ports"][0]["containerPort"])
    context = pod["spec"]["securityContext"]
    assert f"\nUSER {context['runAsUser']}:{context['runAsGroup']}\n" in image
    (mount,) = container["volumeMounts"]
    assert f"ln -s {mount['mountPath']} /home/bentoml/prometheus_multiproc_dir" in image


def test_the_model_image_is_copied_to_where_the_service_looks(render: Callable[..., Any]) -> None:
    rendered = render("overlays/production", "canary", "model-image")
    assert len(rendered.pods) == 2
    for pod in rendered.pods.values():
        (copy,) = pod["spec"]["initContainers"]
        (served,) = pod["spec"]["containers"]
        assert copy["volumeMounts"] == [{"name": "models", "mountPath": "/copied"}]
        assert copy["command"] == ["cp", "-R", "/models/.", "/copied/"]
        store = {"name": "models", "mountPath": "/home/bentoml/models", "readOnly": True}
        assert store in served["volumeMounts"], "the store of the image's BENTOML_HOME"
        assert "BENTOML_HOME" not in {one["name"] for one in served["env"]}, "its other folders lead to /tmp"
        assert {"tmp", "models"} == {volume["name"] for volume in pod["spec"]["volumes"]}


def test_the_prediction_log_fits_its_volume(render: Callable[..., Any]) -> None:
    rendered = render("overlays/production", "canary", "prediction-log")
    said = settings(rendered)
    assert not said.prediction_log_text
    assert len(rendered.pods) == 2
    for pod in rendered.pods.values():
        (container,) = pod["spec"]["containers"]
        (mount,) = (one for one in container["volumeMounts"] if one["name"] == "prediction-log")
        # A folder of its own within, for its mode is the owner's alone and the volume's cannot be.
        assert Path(said.prediction_log).parent == Path(mount["mountPath"])
        (volume,) = (one for one in pod["spec"]["volumes"] if one["name"] == "prediction-log")
        # Not in memory, which the pod's limit would count.
        assert volume["emptyDir"].keys() == {"sizeLimit"}
        assert amount(volume["emptyDir"]["sizeLimit"]) > said.prediction_log_max_bytes
    assert not settings(render("overlays/production")).prediction_log


# --- rollouts and shutdown


def test_a_rollout_takes_no_capacity_away(serving: Any) -> None:
    for deployment in serving.of("Deployment"):
        assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
        # Tried on a real control plane: without it, what was ready for 5 s and fell over replaced every old pod.
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        assert deployment["spec"]["minReadySeconds"] >= 2 * container["readinessProbe"]["periodSeconds"]
        for rollout in serving.of("Rollout"):
            assert rollout["spec"]["minReadySeconds"] == deployment["spec"]["minReadySeconds"]


def test_a_shutdown_has_the_time_that_it_needs(serving: Any) -> None:
    drain_s = settings(serving).drain_timeout_ms / 1000
    for pod in serving.pods.values():
        (container,) = pod["spec"]["containers"]
        command, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
        assert command == "sleep"
        option, limit = container["args"]
        assert option == "--timeout-graceful-shutdown"
        assert int(limit) > drain_s
        assert pod["spec"]["terminationGracePeriodSeconds"] > int(seconds) + int(limit) + drain_s


def test_the_gateway_is_more_patient_than_the_server(render: Callable[..., Any]) -> None:
    # Importing it would serve a bundle.
    (margin_s,) = re.findall(r"^TIMEOUT_MARGIN_S = (\d+)$", (K8S.parent / "service/bento.py").read_text(), re.MULTILINE)
    rendered = render("overlays/dev", "gateway")
    (rule,) = rendered.one("HTTPRoute")["spec"]["rules"]
    seconds = int(rule["timeouts"]["request"].removesuffix("s"))
    assert seconds > settings(rendered).request_timeout_ms / 1000 + int(margin_s)
    assert {match["path"]["value"] for match in rule["matches"]} == {"/predict", "/info", "/docs.json"}


# --- training


def test_a_gates_no_ends_a_job_and_anything_else_is_tried_again(render: Callable[..., Any]) -> None:
    from bentune.bundle.errors import GateError, InputError

    job = render("training/job").one("Job")["spec"]
    retrain = render("training/retrain").one("CronJob")["spec"]["jobTemplate"]["spec"]
    for spec in (job, retrain):
        ignored, fatal = spec["podFailurePolicy"]["rules"]
        assert ignored["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
        assert fatal["onExitCodes"]["values"] == [GateError.exit_code, InputError.exit_code]
        (container,) = spec["template"]["spec"]["containers"]
        assert fatal["onExitCodes"]["containerName"] == container["name"]
        assert spec["backoffLimit"] > 0
    # torchrun's exit code says nothing.
    distributed = render("training/distributed").one("Job")["spec"]
    assert distributed["podFailurePolicy"]["rules"] == [ignored]
    # One loss fails the pods of all nodes: as many losses as one node's may have.
    assert distributed["backoffLimit"] + 1 == distributed["completions"] * (job["backoffLimit"] + 1)


def test_the_peers_of_several_nodes_find_each_other(render: Callable[..., Any]) -> None:
    rendered = render("training/distributed")
    job, service = rendered.one("Job"), rendered.one("Service")
    spec = job["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == 2
    pod = spec["template"]["spec"]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    (container,) = pod["containers"]
    env = {one["name"]: one for one in container["env"]}
    assert env["PET_NNODES"]["value"] == str(spec["completions"])
    assert env["PET_NPROC_PER_NODE"]["value"] == "1"
    rank = env["PET_NODE_RANK"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert rank == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert env["PET_MASTER_ADDR"]["value"] == f"{job['metadata']['name']}-0.{pod['subdomain']}"
    (port,) = container["ports"]
    assert env["PET_MASTER_PORT"]["value"] == str(port["containerPort"])
    assert container["command"][0] == "torchrun"


@pytest.mark.parametrize(
    ("directory", "modes"),
    [
        ("job", "ReadWriteOnce"),
        ("distributed", "ReadWriteMany"),
        ("trainjob", "ReadWriteMany"),
        ("retrain", "ReadWriteOnce"),
    ],
)
def test_several_nodes_share_a_volume(directory: str, modes: str, render: Callable[..., Any]) -> None:
    rendered = render(f"training/{directory}")
    claim = rendered.one("PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == [modes]
    # The API server refuses another mode for a claim that is there, and all ways may be in one namespace.
    assert claim["metadata"]["name"] == ("bentune-runs-shared" if modes == "ReadWriteMany" else "bentune-runs")
    (pod,) = rendered.pods.values()
    claims = [
        one["persistentVolumeClaim"]["claimName"] for one in pod["spec"]["volumes"] if "persistentVolumeClaim" in one
    ]
    assert claims == [claim["metadata"]["name"]]


def test_a_train_job_runs_in_its_own_runtime(render: Callable[..., Any]) -> None:
    rendered = render("training/trainjob")
    runtime, job = rendered.one("TrainingRuntime"), rendered.one("TrainJob")
    reference = job["spec"]["runtimeRef"]
    assert (reference["kind"], reference["name"]) == (runtime["kind"], runtime["metadata"]["name"])
    (replicated,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    assert replicated["template"]["metadata"]["labels"] == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    # Kubeflow knows the container that trains by its name.
    assert [one["name"] for one in rendered.containers] == [replicated["name"]] == ["node"]


def test_every_way_of_training_runs_the_same_recipe(training: Any) -> None:
    for container in training.containers:
        said = " ".join([*container["command"], *container.get("args", [])])
        assert re.search("bentune (run|retrain) /recipe/recipe.yaml --runs /runs", said)
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts - {"/registry"} == {"/runs", "/recipe", "/tmp"}


def test_the_recipe_is_one(render: Callable[..., Any], tmp_path: Path) -> None:
    from bentune.commands.retrain import retrain as command
    from training.recipe.file import load_recipe

    (tmp_path / "recipe.yaml").write_text(render("training/job").one("ConfigMap")["data"]["recipe.yaml"])
    load_recipe(tmp_path / "recipe.yaml")
    lines = render("training/retrain").containers[0]["args"][0].splitlines()
    retrain, release = shlex.split(lines[0]), shlex.split(lines[-1])
    assert retrain[:3] == ["bentune", "retrain", "/recipe/recipe.yaml"]
    # The release takes the version that was made, not the newest of the name. Where nothing was new, there is none.
    promoted = command.make_context("retrain", [str(tmp_path / "recipe.yaml"), *retrain[3:]]).params["promoted"]
    assert release[:3] == ["bentune", "release", f"$(cat {promoted})"]
    assert f"test -s {promoted} || exit 0" in lines
    rule, *_ = render("training/retrain").one("Role")["rules"]
    served = render("overlays/dev")
    assert rule["resourceNames"] == [release[4]] == [served.one("Deployment")["metadata"]["name"]]
    assert retrain[6] == release[6] == f"http://{served.one('Service')['metadata']['name']}"


def test_the_release_of_a_retrained_model_is_a_command_that_there_is(render: Callable[..., Any]) -> None:
    from bentune.commands.release import release

    (container,) = render("training/retrain").containers
    *_, line = container["args"][0].splitlines()
    env = {one["name"]: one["value"] for one in container["env"]}
    words = shlex.split(line.replace("$MODEL_REPOSITORY", env["MODEL_REPOSITORY"]))
    given = release.make_context("release", words[2:]).params
    assert (given["tag"], given["deployment"], given["url"]) == ("$(cat /tmp/promoted)", "bentune", "http://bentune")
    assert given["push"] == "registry.example/bentune/bundle"
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert env["REGISTRY_AUTH_FILE"] == f"{mounts['registry']}/.dockerconfigjson"


# --- the files


def test_every_file_says_in_its_first_line_what_it_is_for() -> None:
    files = [*K8S.rglob("*.yaml")]
    assert len(files) > 30
    for file in files:
        first = file.read_text().splitlines()[0]
        assert first.startswith("# "), file
        assert len(first) > 20, file


def test_no_manifest_is_forgotten() -> None:
    """Every YAML file but the adapter's is named by the kustomization beside it.

    The adapter's file is not applied.
    """
    for file in K8S.rglob("*.yaml"):
        if file.name not in {"kustomization.yaml", "prometheus-adapter.yaml"}:
            assert f"{file.name}\n" in (file.parent / "kustomization.yaml").read_text().replace("]", "\n"), file
