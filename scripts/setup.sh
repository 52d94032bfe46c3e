#!/usr/bin/env bash
# Makes the virtual environment in $1 with everything pinned by constraints.txt.
# Idempotent; the stamp file is written last, so that an interrupted run is done again.
set -euo pipefail
venv=${1:-.venv}
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "stretto needs Python 3.11 or newer; '$python' is $("$python" -V 2>&1). Set PYTHON=..." >&2
    exit 1
}
echo "setting up $venv ..." >&2
# Two runs at once would break it between them: one waits for the other.
mkdir -p "$venv"
if command -v flock >/dev/null; then
    exec 9>"$venv/.lock"
    flock 9
fi
if ! "$python" -m venv "$venv" 2>/dev/null; then
    # Debian ships venv apart from python3.
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq >/dev/null && apt-get install -qq -y python3-venv >/dev/null
        "$python" -m venv "$venv"
    else
        echo "'$python -m venv' does not work here; install it (Debian: apt-get install python3-venv)" >&2
        exit 1
    fi
fi
"$venv/bin/python" -m pip install -q --disable-pip-version-check "pip>=25.1"
"$venv/bin/python" -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[server]' --group dev
# The one contract of others that ours import, where buf and protoc find it.
mkdir -p "$venv/googleapis/google/rpc"
cp "$("$venv/bin/python" -c 'import pathlib, google.rpc; print(pathlib.Path(list(google.rpc.__path__)[0]) / "status.proto")')" \
    "$venv/googleapis/google/rpc/"
touch "$venv/.installed"
