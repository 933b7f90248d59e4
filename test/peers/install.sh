#!/usr/bin/env bash
# Installs the real servers that the tests talk to, each by package name, into a cache folder outside the clone.
#
#   test/peers/install.sh [peer …]      without names: every recipe in test/peers/recipes/, but none of its subfolders
#
# A recipe is one small script: it gets the folder to fill as $into, the folder with its further files as $parts, and
# fails when it cannot. The cache folder's name holds the hash of all that, so a changed recipe installs anew and an
# unchanged one costs nothing. What cannot be installed is reported, with its reason left for the tests that are then
# skipped; it never fails the whole run.
set -u
here=$(cd "$(dirname "$0")" && pwd)
cache=${FAILKIT_PEERS:-$HOME/.cache/failkit-peers}
mkdir -p "$cache"

install_peer() {
  local name=$1 recipe=$here/recipes/$1.sh parts=$here/recipes/$1 into log
  [ -f "$recipe" ] || { echo "$name: no recipe $recipe" >&2; return 1; }
  into=$cache/$name-$(LC_ALL=C; shopt -s nullglob; cat "$recipe" "$parts"/* | sha256sum | cut -c1-12)
  log=$into.log
  mkdir -p "$(dirname "$into")"
  # A kernel lock: it ends with the process that holds it, so a killed install blocks nobody.
  exec 9>"$cache/$name.lock"
  flock 9
  if [ -f "$into/.installed" ]; then
    echo "$name: present"
  elif rm -rf "$into" && mkdir -p "$into" &&
    into=$into parts=$parts timeout 1800 nice bash -euo pipefail "$recipe" >"$log" 2>&1 9>&-; then
    touch "$into/.installed"
    rm -f "$into.failed"
    echo "$name: installed"
  else
    tail -n 1 "$log" >"$into.failed"
    echo "$name: SKIPPED, $(cat "$into.failed") (all of it in $log)"
  fi
  exec 9>&-
}

if [ $# -eq 0 ]; then
  for recipe in "$here"/recipes/*.sh; do set -- "$@" "$(basename "$recipe" .sh)"; done
fi
for name in "$@"; do install_peer "$name"; done
