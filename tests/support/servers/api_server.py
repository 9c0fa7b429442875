"""As much of a Kubernetes API server as `kubectl --dry-run=client` asks: which kinds there are, and what exists."""

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from aiohttp import web

Object = dict[str, Any]
CLUSTER_WIDE = {"Namespace", "ClusterRole", "ClusterRoleBinding"}
VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]


def plural(kind: str) -> str:
    name = kind.lower()
    return f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"


class ApiServer:
    """Knows the kinds of `objects`, and that nothing exists but the namespaces `existing`. It takes nothing."""

    def __init__(self, objects: Sequence[Object], existing: Sequence[str]) -> None:
        self.existing = existing
        self.refused: list[str] = []
        self.kinds: defaultdict[str, set[str]] = defaultdict(set, {"v1": {"Namespace"}})
        for one in objects:
            self.kinds[one["apiVersion"]].add(one["kind"])

    async def __call__(self, request: web.Request) -> web.Response:
        if request.method != "GET":
            self.refused.append(f"{request.method} {request.path}")
            return web.json_response({"kind": "Status", "status": "Failure", "code": 405}, status=405)
        found = self._get(request.path)
        missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
        text = json.dumps(found or missing)
        return web.Response(text=text, content_type="application/json", status=200 if found else 404)

    def _get(self, path: str) -> Object | None:
        match path.strip("/").split("/"):
            case ["api"]:
                return {"kind": "APIVersions", "versions": ["v1"]}
            case ["apis"]:
                return {"kind": "APIGroupList", "apiVersion": "v1", "groups": self._groups()}
            case ["api", version]:
                return self._resources(version)
            case ["apis", group, version]:
                return self._resources(f"{group}/{version}")
            case ["api", "v1", "namespaces", name] if name in self.existing:
                return {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}}
        return None

    def _groups(self) -> list[Object]:
        named = [version.split("/") for version in self.kinds if "/" in version]
        versions = [(group, {"groupVersion": f"{group}/{version}", "version": version}) for group, version in named]
        return [{"name": group, "versions": [one], "preferredVersion": one} for group, one in versions]

    def _resources(self, version: str) -> Object:
        resources = [
            {"name": plural(kind), "kind": kind, "namespaced": kind not in CLUSTER_WIDE, "verbs": VERBS}
            for kind in sorted(self.kinds.get(version, ()))
        ]
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}
