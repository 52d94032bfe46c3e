#!/usr/bin/env bash
# Generates Python code and type stubs for every contract into $2 (module path = proto path).
# $1: directory of the virtual environment's programs. The output tree is made anew.
set -euo pipefail
bin=$1
out=$2
rm -rf "$out/stretto"
mkdir -p "$out"
mapfile -t protos < <(cd proto && find stretto -name '*.proto' | LC_ALL=C sort)
PATH="$bin:$PATH" "$bin/python" -m grpc_tools.protoc -I proto -I "$bin/../googleapis" \
    --python_out="$out" --grpc_python_out="$out" \
    --mypy_out=quiet:"$out" --mypy_grpc_out=quiet:"$out" "${protos[@]}"
find "$out/stretto" -type d -exec sh -c ': > "$1/__init__.py"' _ {} \;
touch "$out/stretto/py.typed"
# A contract without a service yields an empty stub module: keep only the ones that say something.
grep -rL 'class ' --include='*_pb2_grpc.py' "$out/stretto" | while read -r empty; do rm -f "$empty" "${empty}i"; done
