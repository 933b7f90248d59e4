#!/bin/sh
# Makes the Python environment of the independent reader, outside the clone. Running it again changes nothing.
# Prints the path of its python.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
home="${FAILKIT_PEERS:-$HOME/.cache/failkit-peers}/independent-reader"
python="$home/venv/bin/python"
stamp="$home/requirements.txt"
if ! { [ -x "$python" ] && cmp -s "$here/requirements.txt" "$stamp"; }; then
  mkdir -p "$home"
  python3 -m venv "$home/venv"
  "$python" -m pip install --quiet --disable-pip-version-check --requirement "$here/requirements.txt" >&2
  cp "$here/requirements.txt" "$stamp"
fi
echo "$python"
