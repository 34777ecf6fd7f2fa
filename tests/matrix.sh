#!/bin/sh
# Runs the integration tier (but for what is marked `once`) on every other set of servers that this
# machine has, then everything on the embedded ones. What is not there is said aloud; nothing is skipped in silence.
#
#   tests/matrix.sh PYTEST [ARGUMENTS…]
set -eu
cd "$(dirname "$0")/.."
pytest=$1
shift

banner() {
  printf '\n==== %s\n' "$*"
}
loudly() {
  printf '\n!!!! NOT RUN: %s\n!!!! %s\n' "$1" "$2"
}

if [ -x .ci/second-versions ] && settings=$(.ci/second-versions env 2>/dev/null); then
  banner "integration tier on Debian's PostgreSQL and Redis"
  (
    eval "$settings"
    AFTERWRITE_TEST_SERVICES=embedded "$pytest" -m "integration and not once" -q "$@"
  )
else
  loudly "the integration tier on Debian's PostgreSQL and Redis" \
    "Install them: .ci/second-versions (root), or apt install postgresql redis-server."
fi

if docker version >/dev/null 2>&1; then
  banner "integration tier on testcontainers"
  (
    # Images built here, where .ci/engine has made them; the official ones elsewhere.
    if docker image inspect afterwrite-test/postgres >/dev/null 2>&1; then
      eval "$(.ci/engine env)"
    fi
    AFTERWRITE_TEST_SERVICES=containers "$pytest" -m "integration and not once" -q "$@"
  )
else
  loudly "the integration tier on testcontainers" \
    "No Docker engine answers. Start one, or as root: .ci/engine"
fi

banner "everything, on the embedded servers"
AFTERWRITE_TEST_SERVICES=embedded exec "$pytest" "$@"
