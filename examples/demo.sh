#!/bin/sh
# Runs the whole loop on the handwritten digits in demo/, a copy of examples/digits with its own git and DVC project. Each
# run creates it anew. `make demo` runs this script with the environment's programs first on the PATH.
set -eu
cd "$(dirname "$0")/.."
# The demo must use neither the surrounding repository nor a tracking server that the shell names.
unset MLFLOW_TRACKING_URI MLFLOW_EXPERIMENT_NAME DVC_ROOT GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE

step() { printf '\n\033[1m== %s\033[0m\n' "$1"; }
show() { printf '\033[1m$ %s\033[0m\n' "$*"; "$@"; }
commit() {
    git add .
    git -c user.name=demo -c user.email=demo@localhost -c commit.gpgsign=false commit --quiet --message "$1"
}

rm -rf demo
mkdir demo
for file in params.yaml dvc.yaml .gitignore .dvcignore .dvc/config .dvc/.gitignore mlruns/.gitignore; do
    mkdir -p "demo/$(dirname "$file")"
    cp "examples/digits/$file" "demo/$file"
done
cd demo
# A first guess that leaves something to find: steps that are small and few, with little momentum.
python -m pipeline.config --set train.learning_rate=0.01 --set train.batch_size=128 --set train.momentum=0.5
git init --quiet
commit "The digits, and a first guess"

step "1. Download, train, evaluate, report: everything from params.yaml"
show dvc repro
commit "The first result"

step "2. Change one value, and run what depends on it"
python -m pipeline.config --set model.width=16
show dvc params diff
show dvc repro

step "3. What the change brought"
show dvc metrics diff

commit "A wider network"

step "4. Search: 10 configurations, the best few again with other seeds, the winner into params.yaml"
show python -m pipeline.tune --trials 10 --set tune.confirm=2 --apply
show dvc params diff
show dvc repro
show dvc metrics diff

commit "The winner of the search"

step "5. The whole story on one page"
show python -m pipeline.report --compare HEAD~1

step "Where to look next"
cat <<END
  the report            demo/results/report/index.html    (open it in a browser)
  before and after      demo/results/compare/index.html   (which images the winner recognises, and which no longer)
  all runs in MLflow    make ui DIR=demo                   (then http://127.0.0.1:5000)
  the search            demo/results/tune/                 (and the study in MLflow, with its trials below it)
  the project           demo/params.yaml: change a value there, and in that folder: dvc repro
  your own images       README.md, "Your own images"
END
