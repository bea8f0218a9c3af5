#!/usr/bin/env bash
# Programs the tests run: nats-server and promtool. Those on the PATH are used; elsewhere Debian's packages are
# unpacked into build/deps, so that no service is installed or started.
set -euo pipefail
cd "$(dirname "$0")/.."
deps=build/deps
export PATH="$PATH:/usr/sbin:$PWD/$deps/usr/bin:$PWD/$deps/usr/sbin"

unpack() {
  local package=$1 folder
  folder=$(mktemp -d)
  (
    cd "$folder"
    if ! apt-get download -q "$package" 2>/dev/null; then
      [ "$(id -u)" = 0 ] && apt-get update -q
      apt-get download -q "$package"
    fi
  )
  dpkg-deb -x "$folder"/*.deb "$deps"
  rm -rf "$folder"
}

need() {
  local program=$1 package=$2
  ! command -v "$program" >/dev/null || return 0
  mkdir -p "$deps"
  if ! command -v apt-get >/dev/null || ! unpack "$package"; then
    echo "test-deps: $program is missing: install Debian's package $package (apt-get install $package)" >&2
    exit 1
  fi
}

need nats-server nats-server
need promtool prometheus
