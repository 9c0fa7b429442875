#!/usr/bin/env bash
# Builds the image that runs recipes with podman, upon the base image of base_image.sh; every layer is kept.
#
#   training_image.sh [DIRECTORY]    DIRECTORY: of base_image.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
directory=${1:-${BENTUNE_TEST_CONTAINERS:-$HOME/.cache/bentune-test-containers}}
mkdir -p "$directory"
exec 9>"$directory/training.lock" # CI builds it early, beside what comes before the tests
flock 9
flock "$directory/lock" tests/containers/base_image.sh "$directory"
export CONTAINERS_CONF=$directory/containers.conf CONTAINERS_STORAGE_CONF=$directory/storage.conf
# Where this machine's pip finds CPU builds of torch, if it was told: PyPI's own are ten times as large.
wheels=$("${PYTHON:-python3.11}" -m pip config get global.find-links 2>/dev/null || true)
options=(${wheels:+--volume "$wheels:$wheels:ro" --build-arg "PIP_FIND_LINKS=$wheels"})
podman build --layers --format oci "${options[@]}" --file training/Dockerfile --tag bentune/training:test .
