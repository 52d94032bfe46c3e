#!/usr/bin/env bash
# Lints the contracts and fails when what was generated from them and committed is out of date.
# $1: directory of the virtual environment's programs.
set -euo pipefail
bin=$1
"$bin/buf" lint
"$bin/buf" format -d --exit-code --path proto/stretto >/dev/null || { echo "proto/: run make fmt" >&2; exit 1; }
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
bash scripts/gen_protos.sh "$bin" "$fresh"
diff -r -q -x __pycache__ "$fresh/stretto" libs/protogen/stretto || {
    echo "libs/protogen is not what proto/ generates: run make proto" >&2
    exit 1
}
"$bin/python" scripts/gen_permissions.py "$fresh/permissions.md"
diff -q "$fresh/permissions.md" docs/permissions.md || {
    echo "docs/permissions.md is not what the contracts say: run make proto" >&2
    exit 1
}
