# Sourced by the scripts of the folder above. It gives each a temporary folder to work in, which is removed at its end,
# a way to install pinned packages there, and the comparison with the output that the script records.

set -euo pipefail

support=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
cd "$work"

unset PYTHONPATH PYTHONHOME VIRTUAL_ENV
export TZ=UTC PYTHONWARNINGS=ignore

# Exit code 2: the script could not run, which says nothing about the package.
unable() {
    echo "$1" >&2
    exit 2
}

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# python_with PACKAGE==VERSION ...: makes `python` an environment with these packages. PYTHON names another interpreter.
python_with() {
    local candidate
    for candidate in "${PYTHON:-python3}" python3.11 python3.12 python3.13 python3.14; do
        if new_enough "$candidate"; then
            "$candidate" -m venv environment || unable "$candidate cannot make virtual environments"
            environment/bin/python -m pip --disable-pip-version-check install --quiet "$@" 2>pip.log ||
                unable "$(cat pip.log)"
            PATH="$work/environment/bin:$PATH"
            return
        fi
    done
    unable "No Python >= 3.11 found; name one: PYTHON=/path/to/python $0"
}

# node_with PACKAGE@VERSION ...: installs these for scripts that `node` runs in the temporary folder.
node_with() {
    command -v node >/dev/null && command -v npm >/dev/null || unable "This needs node and npm."
    npm install --no-audit --no-fund --ignore-scripts --loglevel=error "$@" >npm.log 2>&1 || unable "$(cat npm.log)"
}

# expect COMMAND ... <recorded: runs the command and compares what it prints with the standard input.
expect() {
    cat >recorded
    "$@" >seen || unable "$* ended with exit code $?"
    diff --unified recorded seen || exit 1
    echo "as recorded: $(basename "$0")"
}
