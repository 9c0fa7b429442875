"""A stand-in for a cluster: as much of the Kubernetes API as the real kubectl asks for, and a Deployment's controller.

Discovery, get, list, create, strategic merge and JSON patches of any kind, in memory. With each list of pods time moves
one step: a Deployment gets its ReplicaSet and a new pod a step, which turns ready or not, as `fate` says.
"""

import contextlib
import copy
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import yaml

Object = dict[str, Any]

REVISION = "deployment.kubernetes.io/revision"
# Kind, plural, group and version of all that the overlays render to.
KINDS = {
    "ConfigMap": ("configmaps", "v1"),
    "Pod": ("pods", "v1"),
    "Service": ("services", "v1"),
    "ServiceAccount": ("serviceaccounts", "v1"),
    "Deployment": ("deployments", "apps/v1"),
    "ReplicaSet": ("replicasets", "apps/v1"),
}
# By what an item of a list is known to a strategic merge.
KEYS = {"containerPort": "ports", "mountPath": "volumeMounts", "name": ""}


class Cluster:
    """Its objects, by kind and name, of one namespace; every request is remembered as `VERB path`."""

    def __init__(self, fate: Callable[[str], str] = lambda image: "ready") -> None:
        self.fate = fate
        self.objects: dict[tuple[str, str], Object] = {}
        self.requests: list[tuple[str, str]] = []
        self.steps = 0
        self._uids = 0

    def of(self, kind: str) -> list[Object]:
        return [one for (found, _), one in self.objects.items() if found == kind]

    def put(self, one: Object) -> Object:
        one["metadata"].setdefault("namespace", "default")
        if "uid" not in one["metadata"]:
            self._uids += 1
            one["metadata"]["uid"] = f"uid-{self._uids}"
        before = self.objects.get((one["kind"], one["metadata"]["name"]))
        changed = before is None or before.get("spec") != one.get("spec")
        one["metadata"]["generation"] = (before["metadata"]["generation"] if before else 0) + changed
        if one["kind"] == "Deployment":
            one["spec"].setdefault("replicas", 1)
        self.objects[one["kind"], one["metadata"]["name"]] = one
        return one

    def image(self, deployment: str = "bentune") -> str:
        return str(self.objects["Deployment", deployment]["spec"]["template"]["spec"]["containers"][0]["image"])

    # --- controllers

    def step(self) -> None:
        self.steps += 1
        for deployment in self.of("Deployment"):
            self._reconcile(deployment)

    def _reconcile(self, deployment: Object) -> None:
        wanted, template = deployment["spec"]["replicas"], deployment["spec"]["template"]
        sets = [one for one in self.of("ReplicaSet") if _owner(one) == deployment["metadata"]["uid"]]
        current = next((one for one in sets if _bare(one["spec"]["template"]) == _bare(template)), None)
        newest = max((int(one["metadata"]["annotations"][REVISION]) for one in sets), default=0)
        if current is None:
            current = self.put(_replica_set(deployment, newest + 1))
            sets.append(current)
        elif int(current["metadata"]["annotations"][REVISION]) < newest:
            current["metadata"]["annotations"][REVISION] = str(newest + 1)
        number = current["metadata"]["annotations"][REVISION]
        deployment["metadata"].setdefault("annotations", {})[REVISION] = number
        pods = self._pods(current)
        for pod in pods:
            self._grow(pod)
        ready = sum(_ready(pod) for pod in pods)
        if len(pods) < wanted and ready == len(pods):
            self.put(_pod(current, self.steps))
        old = [pod for one in sets if one is not current for pod in self._pods(one)]
        # maxUnavailable is 0: an old pod goes when a new one is ready.
        for pod in old[: max(0, ready + len(old) - wanted)]:
            del self.objects["Pod", pod["metadata"]["name"]]
        left = [pod for one in sets for pod in self._pods(one)]
        deployment["status"] = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": len(left),
            "updatedReplicas": len(self._pods(current)),
            "availableReplicas": sum(_ready(pod) for pod in left),
        }

    def _pods(self, replica_set: Object) -> list[Object]:
        return [pod for pod in self.of("Pod") if _owner(pod) == replica_set["metadata"]["uid"]]

    def _grow(self, pod: Object) -> None:
        fate = self.fate(pod["spec"]["containers"][0]["image"])
        pod["age"] = pod.get("age", 0) + 1
        status = pod["status"]
        status["phase"] = "Running"
        container: Object = {"name": "model", "restartCount": 0, "state": {"running": {}}}
        if fate == "restarts" and pod["age"] > 1:
            container |= {"restartCount": 1, "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}
        if fate == "no image":
            container["state"] = {"waiting": {"reason": "ImagePullBackOff"}}
        status["containerStatuses"] = [container]
        ready = fate == "ready" and pod["age"] > 1
        status["conditions"] = [{"type": "Ready", "status": str(ready)}]

    # --- the API

    def answer(self, verb: str, target: str, body: Any, content_type: str) -> tuple[int, Object]:
        url = urlsplit(target)
        self.requests.append((verb, url.path))
        found = self._discovery(url.path)
        if found is not None:
            return 200, found
        if url.path == "/api/v1/namespaces/default":
            return 200, {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "default"}}
        parts = url.path.strip("/").split("/")
        parts = parts[2:] if parts[0] == "api" else parts[3:]
        _, _, plural, name, *_ = [*parts, *[""] * 4]
        kind = next((kind for kind, known in KINDS.items() if known[0] == plural), None)
        if kind is None:
            return 404, _status(404, f"no such path {url.path}")
        asked = parse_qs(url.query)
        if verb == "GET" and not name:
            return 200, self._list(kind, asked.get("labelSelector", [""])[0])
        if verb == "POST":
            return 201, body if "dryRun" in asked else self.put(body)
        one = self.objects.get((kind, name))
        if one is None:
            return 404, _status(404, f'{KINDS[kind][0]} "{name}" not found')
        if verb == "PATCH":
            changed = _patched(one, body, content_type)
            return 200, changed if "dryRun" in asked else self.put(changed)
        return 200, one

    def read(self, kind: str, name: str = "", labels: Mapping[str, str] | None = None) -> Any:
        """Return the objects of `get KIND NAME` or `get KIND -l LABELS`.

        They are as kubectl prints them; None without such an object.
        """
        plural, version = next(known for one, known in KINDS.items() if kind in (one.lower(), known[0]))
        group = "api/v1" if version == "v1" else f"apis/{version}"
        query = urlencode({"labelSelector": ",".join(f"{key}={value}" for key, value in (labels or {}).items())})
        code, found = self.answer("GET", f"/{group}/namespaces/default/{plural}/{name}?{query}", None, "")
        return json.loads(json.dumps(found)) if code == 200 else None

    def _list(self, kind: str, selector: str) -> Object:
        if kind == "Pod":
            self.step()
        wanted = dict(part.split("=") for part in selector.split(",") if part)
        items = [one for one in self.of(kind) if wanted.items() <= one["metadata"].get("labels", {}).items()]
        return {
            "kind": f"{kind}List",
            "apiVersion": KINDS[kind][1],
            "metadata": {"resourceVersion": "1"},
            "items": items,
        }

    def _discovery(self, path: str) -> Object | None:
        resources = {
            version: [
                {"name": plural, "kind": kind, "namespaced": True, "verbs": ["get", "list", "patch", "create"]}
                for kind, (plural, own) in KINDS.items()
                if own == version
            ]
            for version in ("v1", "apps/v1")
        }
        apps = {"groupVersion": "apps/v1", "version": "v1"}
        match path:
            case "/version":
                return {"major": "1", "minor": "32", "gitVersion": "v1.32.0"}
            case "/api":
                return {"kind": "APIVersions", "versions": ["v1"]}
            case "/apis":
                group = {"name": "apps", "versions": [apps], "preferredVersion": apps}
                return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]}
            case "/api/v1" | "/apis/apps/v1":
                version = "v1" if path == "/api/v1" else "apps/v1"
                return {"kind": "APIResourceList", "groupVersion": version, "resources": resources[version]}
            case "/openapi/v3":
                paths = ("api/v1", "apis/apps/v1")
                return {"paths": {one: {"serverRelativeURL": f"/openapi/v3/{one}"} for one in paths}}
            case "/openapi/v3/api/v1" | "/openapi/v3/apis/apps/v1":
                return _openapi(path.removeprefix("/openapi/v3"))
        return None


def _openapi(prefix: str) -> Object:
    """That the server checks fields itself is all that kubectl wants to know."""
    version = "apps/v1" if "apps" in prefix else "v1"
    paths = {}
    for kind, (plural, own) in KINDS.items():
        if own == version:
            group, _, short = own.rpartition("/")
            patch = {
                "x-kubernetes-group-version-kind": {"group": group, "version": short, "kind": kind},
                "parameters": [{"name": name, "in": "query"} for name in ("fieldValidation", "dryRun")],
                "responses": {},
            }
            paths[f"{prefix}/namespaces/{{namespace}}/{plural}/{{name}}"] = {"patch": patch}
    return {"openapi": "3.0.0", "info": {"title": "k", "version": "1"}, "paths": paths}


def _status(code: int, message: str) -> Object:
    reason = "NotFound" if code == 404 else "Invalid"
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
    }


def _owner(one: Object) -> str:
    return str(one["metadata"].get("ownerReferences", [{"uid": ""}])[0]["uid"])


def _bare(template: Object) -> Object:
    """Without what the controller adds."""
    bare = copy.deepcopy(template)
    bare["metadata"].get("labels", {}).pop("pod-template-hash", None)
    return bare


def _replica_set(deployment: Object, number: int) -> Object:
    name, template = f"{deployment['metadata']['name']}-{number}", copy.deepcopy(deployment["spec"]["template"])
    template["metadata"]["labels"]["pod-template-hash"] = str(number)
    return {
        "kind": "ReplicaSet",
        "apiVersion": "apps/v1",
        "metadata": {
            "name": name,
            "labels": template["metadata"]["labels"],
            "annotations": {REVISION: str(number)},
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "controller": True,
                    "name": deployment["metadata"]["name"],
                    "uid": deployment["metadata"]["uid"],
                }
            ],
        },
        "spec": {
            "replicas": deployment["spec"]["replicas"],
            "selector": {"matchLabels": template["metadata"]["labels"]},
            "template": template,
        },
    }


def _pod(replica_set: Object, step: int) -> Object:
    template, name = copy.deepcopy(replica_set["spec"]["template"]), replica_set["metadata"]["name"]
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": template["metadata"]
        | {
            "name": f"{name}-{step}",
            "ownerReferences": [{"kind": "ReplicaSet", "name": name, "uid": replica_set["metadata"]["uid"]}],
        },
        "spec": template["spec"],
        "status": {"phase": "Pending", "conditions": []},
    }


def _ready(pod: Object) -> bool:
    return any(one == {"type": "Ready", "status": "True"} for one in pod["status"]["conditions"])


def _patched(one: Object, patch: Any, content_type: str) -> Object:
    changed = copy.deepcopy(one)
    if content_type.startswith("application/json-patch"):
        for operation in patch:
            *path, last = operation["path"].strip("/").split("/")
            place = changed
            for part in path:
                place = place[part.replace("~1", "/")]
            place[last.replace("~1", "/")] = operation["value"]
        return changed
    return _merged(changed, patch)


def _merged(before: Any, patch: Any) -> Any:
    """Return a strategic merge of a patch into an object.

    Lists of objects are matched by the first of KEYS that they have.
    """
    if isinstance(patch, dict) and isinstance(before, dict):
        for key, value in patch.items():
            if key.startswith("$"):
                continue
            if value is None:
                before.pop(key, None)
            else:
                before[key] = _merged(before.get(key), value) if key in before else value
        return before
    if isinstance(patch, list) and isinstance(before, list) and patch and isinstance(patch[0], dict):
        key = next((key for key in KEYS if key in patch[0]), None)
        if key is None:
            return patch
        known = {item[key]: item for item in before}
        for item in patch:
            if item.get("$patch") == "delete":
                known.pop(item[key], None)
            else:
                known[item[key]] = _merged(known[item[key]], item) if item[key] in known else item
        return list(known.values())
    return patch


@contextlib.contextmanager
def serving(cluster: Cluster, directory: Path) -> Iterator[Path]:
    """Serve it on this machine; yields a kubeconfig with the context `test`."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # headers and body in one packet: between two of them kubectl would wait for 40 ms

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            content_type = self.headers.get("Content-Type", "")
            with lock:
                code, found = cluster.answer(self.command, self.path, json.loads(body or b"null"), content_type)
                content = json.dumps(found).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            self.wfile.flush()

        def do_GET(self) -> None:
            self._any()

        def do_POST(self) -> None:
            self._any()

        def do_PATCH(self) -> None:
            self._any()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "test", "user": {}}],
    }
    (directory / "kubeconfig").write_text(yaml.safe_dump(config))
    try:
        yield directory / "kubeconfig"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
