"""bentofile.yaml packs what pyproject.toml installs to serve, and nothing of training."""

import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent.parent
COMMAND_LINE = ("aiohttp", "click", "httpx", "packaging", "pyyaml", "rich")


def test_packages_are_the_serving_dependencies() -> None:
    base = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    serving = [requirement for requirement in base if not requirement.startswith(COMMAND_LINE)]
    assert yaml.safe_load((ROOT / "bentofile.yaml").read_text())["python"]["packages"] == serving


def test_the_service_and_the_bundle_are_included_and_nothing_else() -> None:
    bentofile = yaml.safe_load((ROOT / "bentofile.yaml").read_text())
    included = {str(path.relative_to(ROOT)) for pattern in bentofile["include"] for path in ROOT.glob(pattern)}
    rooms = [*(ROOT / "service").rglob("*.py"), *(ROOT / "bentune/bundle").rglob("*.py"), ROOT / "bentune/__init__.py"]
    assert included == {str(path.relative_to(ROOT)) for path in rooms}
    assert {"service/bento.py", "service/engine/predictor.py", "bentune/bundle/manifest.py"} <= included
