#!/usr/bin/env bash
# What CI does for a retraining, for any CI system; .github/workflows/retrain.yml is a thin face of it. In a checkout,
# with cliprd on the PATH. docs/retraining.md has the whole story.
#
#   retrain.sh train      bring the data that DVC tracks, then `cliprd retrain`; the report is in work/retrain
#   retrain.sh record     commit and push dvc.lock, where the retraining has changed it
#
# Environment, all of it optional:
#   RETRAIN_DRY_RUN=true       say what would be done, and change nothing
#   RETRAIN_PROMOTE=false      train and gate only: for pull requests
#   RETRAIN_RUNNER             dvc (default) or kfp
#   RETRAIN_METHOD, RETRAIN_SEEDS      in place of those in params.yaml: clip_rd-exp, and 0,1,2
#   RETRAIN_REASON             kept with the decision
#   RETRAIN_BRANCH             of `record`: where dvc.lock is pushed to
#   RETRAIN_NAME, RETRAIN_EMAIL        of `record`: the commit's author
#   RETRAIN_LOCK               of `record`: dvc.lock as `train` has given it to GITHUB_OUTPUT; empty: the file here
# Credentials are those of DVC's remote (AWS_*), MLflow (MLFLOW_TRACKING_*) and Kubeflow (KFP_TOKEN).
set -euo pipefail
cd "$(git rev-parse --show-toplevel)"
report=work/retrain
export DVC_NO_ANALYTICS=1

for name in ${!AWS_@} ${!MLFLOW_@} ${!KFP_@} ${!KF_@}; do # a CI system sets what it lacks to nothing
    [ -n "${!name}" ] || unset "$name"
done

output() { # name, and the value on standard input: for the jobs that follow
    [ -n "${GITHUB_OUTPUT:-}" ] || return 0
    local end=end-$RANDOM$RANDOM$RANDOM
    { echo "$1<<$end" && cat && echo && echo "$end"; } >>"$GITHUB_OUTPUT"
}

summary() { [ -z "${GITHUB_STEP_SUMMARY:-}" ] || cat "$@" >>"$GITHUB_STEP_SUMMARY"; }

told() { # whatever happened, the jobs that follow hear of it
    local code=$?
    if [ ! -s $report/report.md ]; then # a dry run that failed leaves an empty one
        mkdir -p $report
        printf '## Retraining: failed\n\nIt ended with exit code %s before it could write a report; see the log.\n' "$code" \
            >$report/report.md
    fi
    output report <$report/report.md
    summary $report/report.md
    if [ "$code" = 0 ] && [ -f dvc.lock ] && [ -n "$(git status --porcelain -- dvc.lock)" ]; then
        gzip -9 -n <dvc.lock | base64 -w0 | output lock
    fi
}

off() { [ "$(cliprd params | sed -n "/^promote:/,/^[a-z]/s/^  champion: //p")" = "''" ]; }

train() {
    rm -f $report/report.md $report/report.json
    mkdir -p $report
    trap told EXIT
    if off; then # a copy of the repository that nobody has set up: not a failure at every push
        printf '## Retraining: off\n\nparams.yaml names no place for a champion (promote.champion).\n' |
            tee $report/report.md
        return
    fi
    if [ -n "$(dvc config core.remote 2>/dev/null || true)" ]; then
        git ls-files -z -- '*.dvc' | xargs -0 -r dvc pull
    fi
    local options=(--output "$report" --runner "${RETRAIN_RUNNER:-dvc}")
    [ -z "${RETRAIN_METHOD:-}" ] || options+=(--set "retrain.method=$RETRAIN_METHOD")
    [ -z "${RETRAIN_SEEDS:-}" ] || options+=(--set "retrain.seeds=[$RETRAIN_SEEDS]")
    [ -z "${RETRAIN_REASON:-}" ] || options+=("--reason=$RETRAIN_REASON")
    [ "${RETRAIN_PROMOTE:-true}" = true ] || options+=(--no-promote)
    if [ "${RETRAIN_DRY_RUN:-false}" = true ]; then
        cliprd retrain "${options[@]}" --dry-run | tee $report/report.md
    else
        cliprd retrain "${options[@]}"
    fi
}

record() {
    local name=${RETRAIN_NAME:-cliprd retrain} email=${RETRAIN_EMAIL:-cliprd@localhost}
    export GIT_AUTHOR_NAME=$name GIT_AUTHOR_EMAIL=$email # for the commit, and for `pull --rebase`, which makes it anew
    export GIT_COMMITTER_NAME=$name GIT_COMMITTER_EMAIL=$email
    [ -z "${RETRAIN_LOCK:-}" ] || printf %s "$RETRAIN_LOCK" | base64 -d | gunzip >dvc.lock
    git add dvc.lock
    if git diff --cached --quiet; then
        echo "retrain: dvc.lock is as it was"
        return
    fi
    git commit -q -m "Retrained: dvc.lock" -m "${RETRAIN_REASON:-}"
    for _ in 1 2 3; do # others push meanwhile
        git push -q origin "HEAD:refs/heads/$RETRAIN_BRANCH" && return
        git pull -q --rebase origin "$RETRAIN_BRANCH"
    done
    echo "retrain: dvc.lock could not be pushed to $RETRAIN_BRANCH" >&2
    return 1
}

case ${1:-} in
train | record) "$1" ;;
*)
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
    ;;
esac
