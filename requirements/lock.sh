#!/bin/sh
# Writes run.txt, test.txt, docs.txt and, with what installs them, uv.txt: exact versions with hashes, for every platform, without addresses.
set -eu
uv=${1:-uv}
compile() {
    "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
        --no-annotate --no-header "$@"
}
cd "$(dirname "$0")/.."
compile pyproject.toml --group build --output-file requirements/run.txt
compile --group test --group docs --constraint requirements/run.txt --output-file requirements/test.txt
compile --group docs --constraint requirements/test.txt --output-file requirements/docs.txt
echo uv | compile - --output-file requirements/uv.txt
