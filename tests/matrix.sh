#!/bin/sh
# Runs the integration tier (but for what is marked `once`) on every other set of servers that this
# machine has, then everything on the embedded ones; last, alone, what measures time and what a browser does.
# What is not there is said aloud; nothing is skipped in silence. Each process of a run has servers of its own.
# A test that fails beside others on a busy machine is asked once more, alone, and that is said aloud, too: it is
# a race to be found. What fails alone has failed, and so have all if they are more than three.
#
#   tests/matrix.sh PYTEST [ARGUMENTS…]        AFTERWRITE_TEST_PROCESSES=1 for one test at a time
set -eu
cd "$(dirname "$0")/.."
pytest=$1
shift
processes=${AFTERWRITE_TEST_PROCESSES:-2}

banner() {
  printf '\n==== %s\n' "$*"
}
loudly() {
  printf '\n!!!! NOT RUN: %s\n!!!! %s\n' "$1" "$2"
}

failed_tests() {
  python3 -c 'import json; print(len(json.load(open(".pytest_cache/v/cache/lastfailed"))))' 2>/dev/null || echo 0
}
run() { # ARGUMENTS… of pytest; the environment says which servers
  rm -f .pytest_cache/v/cache/lastfailed
  "$pytest" "$@" && return 0 || code=$?
  failed=$(failed_tests)
  if [ "$code" -ne 1 ] || [ "$failed" -lt 1 ] || [ "$failed" -gt 3 ]; then return "$code"; fi
  printf '\n!!!! FAILED, NOW ONCE MORE AND ALONE: %s of the tests above (a race, if they pass)\n' "$failed"
  "$pytest" "$@" -n 0 --last-failed --last-failed-no-failures none
}

if [ -x .ci/second-versions ] && settings=$(.ci/second-versions env 2>/dev/null); then
  banner "integration tier on Debian's PostgreSQL and Redis"
  (
    eval "$settings"
    export AFTERWRITE_TEST_SERVICES=embedded
    run -n "$processes" --dist worksteal -m "integration and not once" -q "$@"
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
    export AFTERWRITE_TEST_SERVICES=containers
    run -n "$processes" --dist worksteal -m "integration and not once" -q "$@"
  )
else
  loudly "the integration tier on testcontainers" \
    "No Docker engine answers. Start one, or as root: .ci/engine"
fi

export AFTERWRITE_TEST_SERVICES=embedded
banner "everything that can run side by side, on the embedded servers"
run -n "$processes" --dist worksteal -m "not browser and not alone" "$@"

banner "what needs the machine for itself, on the embedded servers"
run -m "browser or alone" "$@"
