#!/usr/bin/env bash
# The local stack of docker/compose.yaml; `make stack`, `make stack-down` and `make stack-images` call it.
#
#   stack.sh up                  makes what is missing (secrets, images), starts the stack and waits until it is healthy
#   stack.sh down [--volumes]    stops it; its data stay, unless --volumes says to remove them
#   stack.sh images              builds the images of PostgreSQL and the S3 server; options for docker build in BUILD
#   stack.sh names               prints the images that it uses
#
# STACK_PROJECT names its containers, network and volumes. STACK_DIR keeps its secrets and the clients' settings.
# Whatever docker/compose.yaml reads may be set too, the images above all.
set -euo pipefail
umask 077
root=$(cd "$(dirname "$0")/.." && pwd)
project=${STACK_PROJECT:-cliprd-stack}
folder=${STACK_DIR:-$root/.stack}
case $folder in /*) ;; *) folder=$PWD/$folder ;; esac
export STACK_SECRETS=${STACK_SECRETS:-$folder/secrets}

content=$(cat "$root"/docker/stack/* | git hash-object --stdin | cut -c1-12)
targets=()
[ -n "${POSTGRES_IMAGE:-}" ] || targets+=(postgres)
[ -n "${S3_IMAGE:-}" ] || targets+=(s3)
export POSTGRES_IMAGE=${POSTGRES_IMAGE:-cliprd-postgres:$content} S3_IMAGE=${S3_IMAGE:-cliprd-s3:$content}

die() {
    echo "stack: $*" >&2
    exit 1
}

compose() {
    if docker compose version >/dev/null 2>&1; then
        docker compose -p "$project" -f "$root/docker/compose.yaml" "$@"
    elif command -v docker-compose >/dev/null; then
        docker-compose -p "$project" -f "$root/docker/compose.yaml" "$@"
    else
        die "neither 'docker compose' nor 'docker-compose' is here. Install Docker's compose plugin."
    fi
}

here() { docker image inspect "$1" >/dev/null 2>&1; }

build() { # target; BUILD is a list of options
    # shellcheck disable=SC2086
    DOCKER_BUILDKIT=1 docker build -f "$root/docker/stack/Dockerfile" --target "$1" ${BUILD:-} \
        -t "cliprd-$1:$content" "$root/docker/stack"
}

images() {
    for target in ${targets[@]+"${targets[@]}"}; do
        here "cliprd-$target:$content" || build "$target"
    done
    if [ -z "${CLIPRD_IMAGE:-}" ]; then
        CLIPRD_IMAGE=$("$root/.venv/bin/cliprd" pipeline image cpu)
        here "$CLIPRD_IMAGE" || make -C "$root" images TARGETS=cpu
    fi
    export CLIPRD_IMAGE
}

secrets() {
    [ ! -d "$STACK_SECRETS" ] || return 0
    if docker volume inspect "${project}_postgres" >/dev/null 2>&1; then
        die "the data of $project were made with secrets that are gone from $STACK_SECRETS." \
            "Bring them back, or remove the data: docker/stack.sh down --volumes"
    fi
    rm -rf "$STACK_SECRETS.new"
    mkdir -p "$STACK_SECRETS.new"
    for name in postgres_password s3_secret_key; do
        head -c 24 /dev/urandom | od -An -vtx1 | tr -d ' \n' >"$STACK_SECRETS.new/$name"
        # The servers read it under users of their own; others on this machine are kept out by the folder's mode, 700.
        chmod 444 "$STACK_SECRETS.new/$name"
    done
    mv "$STACK_SECRETS.new" "$STACK_SECRETS"
}

settings() { # for clients on this machine: `. .stack/env`
    mkdir -p "$folder"
    cat >"$folder/env.new" <<EOF
export MLFLOW_TRACKING_URI=http://localhost:${MLFLOW_PORT:-5000}
export AWS_ENDPOINT_URL=http://localhost:${S3_PORT:-9000}
export AWS_ACCESS_KEY_ID=${S3_ACCESS_KEY:-cliprd}
export AWS_SECRET_ACCESS_KEY=$(cat "$STACK_SECRETS/s3_secret_key")
export AWS_DEFAULT_REGION=us-east-1
EOF
    mv "$folder/env.new" "$folder/env"
}

wait_healthy() {
    container=$(compose ps -q mlflow)
    restarts=$(docker inspect -f '{{.RestartCount}}' "$container")
    for _ in $(seq 1200); do # a busy machine may take minutes; a server that ends is not waited for
        case $(docker inspect -f '{{.State.Health.Status}} {{.RestartCount}}' "$container") in
            "healthy "*) return 0 ;;
            "starting $restarts") ;;
            *) return 1 ;;
        esac
        sleep 0.5
    done
    return 1
}

case "${1:-} ${2:-}" in
    "up ")
        docker version >/dev/null 2>&1 || die "the Docker engine does not answer (docker version)."
        images
        secrets
        settings
        if ! { compose up -d && wait_healthy; }; then
            compose logs --tail 20 >&2
            die "it did not get healthy; the logs are above."
        fi
        echo "MLflow: http://localhost:${MLFLOW_PORT:-5000}     S3: http://localhost:${S3_PORT:-9000}     Clients: . $folder/env"
        ;;
    "down " | "down --volumes")
        CLIPRD_IMAGE=${CLIPRD_IMAGE:-none} compose down "${@:2}"
        ;;
    "images ") for target in postgres s3; do build "$target"; done ;;
    "names ") printf '%s\n' "$POSTGRES_IMAGE" "$S3_IMAGE" "${CLIPRD_IMAGE:-$("$root/.venv/bin/cliprd" pipeline image cpu)}" ;;
    *) die "what? $(grep -o '^#   stack.sh [^ ]*' "$0" | cut -c5- | tr '\n' ';')" ;;
esac
