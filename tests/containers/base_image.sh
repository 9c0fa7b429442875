#!/usr/bin/env bash
# Makes the base image python:3.11-slim from Debian's packages, for machines that reach no container registry.
#
#   base_image.sh DIRECTORY    writes DIRECTORY/{containers.conf,storage.conf,base.tar} and imports the image with podman
#
# The machine's own package sources and certificates are used in the image, so that builds work where this machine does.
set -euo pipefail
directory=$(mkdir -p "$1" && cd "$1" && pwd)
image=localhost/python:3.11-slim
certificates=/etc/ssl/certs/ca-certificates.crt

# No container may be given more than podman has, which lowers its own number of processes to the kernel's pid_max.
lower() { printf '%s\n' "${1/unlimited/1048576}" "$2" | sort -n | head -1; }
files=$(lower "$(ulimit -Hn)" 1048576)
processes=$(lower "$(ulimit -Hu)" "$(cat /proc/sys/kernel/pid_max)")

cat > "$directory/containers.conf" <<CONF
[containers]
default_ulimits = ["nofile=$files:$files", "nproc=$processes:$processes"]
netns = "host"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
CONF
cat > "$directory/storage.conf" <<CONF
[storage]
driver = "overlay"
graphroot = "$directory/storage"
runroot = "$directory/run"
CONF
export CONTAINERS_CONF=$directory/containers.conf CONTAINERS_STORAGE_CONF=$directory/storage.conf

# Made again when this file changed.
made=$(sha256sum "$0" | cut -c1-16)
if [ "$(cat "$directory/made" 2>/dev/null)" != "$made" ]; then rm -f "$directory/base.tar"; fi
if [ -e "$directory/base.tar" ] && podman image exists "$image"; then exit; fi
if [ ! -e "$directory/base.tar" ]; then
  hook='cp '"$certificates"' "$1/etc/ssl/certs/ca-certificates.crt" && ln -sf python3 "$1/usr/bin/python" && rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED
    mkdir -p "$1/etc/uv" && echo "system-certs = true" > "$1/etc/uv/uv.toml"'
  mmdebstrap --quiet --format=tar --mode=root --variant=minbase --include=python3,python3-venv,ca-certificates,passwd \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --customize-hook="$hook" bookworm "$directory/base.tar.part" /etc/apt/sources.list.d/debian.sources
  mv "$directory/base.tar.part" "$directory/base.tar"
fi
podman import --quiet --change "ENV PIP_CERT=$certificates" --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' "$directory/base.tar" "$image"
echo "$made" > "$directory/made"
