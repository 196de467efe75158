#!/bin/sh
# Makes .venv in the current folder and installs the project into it, editable; quick when nothing has changed.
#
#   deploy/venv.sh run           what the program needs, in the locked versions where they fit this machine
#   deploy/venv.sh test          that, and what the tests need
#   deploy/venv.sh pip ARGS...   runs pip for .venv
#
# PYTHON=... chooses the interpreter. Several ways to make .venv are tried in turn. The first one leaves pip out and uses
# the pip outside: a pip of its own takes 5 s. Debian's python3 comes without ensurepip (that is in python3-venv), and its
# own pip refuses to install outside of a virtual environment.
set -eu

venv=.venv
log=$(mktemp "${TMPDIR:-/tmp}/headgate-venv.XXXXXX")
tools=$(mktemp -d "${TMPDIR:-/tmp}/headgate-tools.XXXXXX")
trap 'rm -rf "$log" "$tools"' EXIT

say() { printf 'headgate: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' >/dev/null 2>&1; }
runs() { "$1" -c 'import sys; sys.exit(sys.prefix == sys.base_prefix)' >/dev/null 2>&1; }

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        fits "$PYTHON" && { echo "$PYTHON"; return; }
        found=$("$PYTHON" --version 2>&1) || found="no Python that can be run"
        fail "PYTHON=$PYTHON is $found; needed is Python 3.11, 3.12, 3.13 or 3.14"
    fi
    for name in python3 python3.13 python3.12 python3.11 python3.14 python; do
        if command -v "$name" >/dev/null 2>&1 && fits "$name"; then echo "$name"; return; fi
    done
    found=$(python3 --version 2>&1) || found="no python3"
    fail "needed is Python 3.11, 3.12, 3.13 or 3.14, but found is $found; install one, or name it: make PYTHON=/path/to/python3.12"
}

# attempt WHAT COMMAND...: true when the command has made a .venv that works; a half-made one is removed.
attempt() {
    what=$1; shift
    if "$@" >>"$log" 2>&1 && runs "$venv/bin/python" && has_installer; then return 0; fi
    printf -- '-- that was: %s\n' "$what" >>"$log"
    rm -rf "$venv"
    return 1
}

has_installer() {
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 && return
    "$python" -m pip --python "$venv/bin/python" --version >/dev/null 2>&1 && return
    command -v uv >/dev/null 2>&1
}

pip() {
    if "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        "$venv/bin/python" -m pip --disable-pip-version-check --no-input "$@"
    elif "$python" -m pip --python "$venv/bin/python" --version >/dev/null 2>&1; then
        "$python" -m pip --disable-pip-version-check --no-input --python "$venv/bin/python" "$@"
    elif command -v uv >/dev/null 2>&1; then
        command=$1; shift
        uv pip "$command" --python "$venv/bin/python" "$@"
    else
        fail "$venv has no pip, and there is no other pip or uv to fill it; remove $venv and run this again"
    fi
}

make_venv() {
    if [ -e "$venv" ]; then
        # A folder that somebody else made in another way is not ours to remove.
        [ -f "$venv/pyvenv.cfg" ] || fail "$venv exists but is no virtual environment; move it away"
        if runs "$venv/bin/python" && fits "$venv/bin/python"; then return; fi
        say "$venv does not work (any more): making it anew"
        rm -rf "$venv"
    fi
    say "making $venv with $("$python" --version)"
    attempt "python -m venv --without-pip, and the pip outside" "$python" -m venv --without-pip "$venv" && return
    attempt "python -m venv" "$python" -m venv "$venv" && return
    if command -v virtualenv >/dev/null 2>&1; then
        attempt "virtualenv" virtualenv --quiet --python "$python" "$venv" && return
    fi
    if command -v uv >/dev/null 2>&1; then
        attempt "uv venv" uv venv --quiet --python "$python" "$venv" && return
    fi
    cat "$log" >&2
    fail "could not make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv (as root).
Without root: put virtualenv or uv on the PATH, or choose another Python with make PYTHON=..."
}

# The stamp says what was installed where; it is stale when the project's metadata, this script or the folder changed.
stamp_text() { cat pyproject.toml deploy/venv.sh; pwd; "$venv/bin/python" --version; }
fresh() { [ -f "$1" ] && runs "$venv/bin/python" && stamp_text | cmp -s - "$1"; }

# A .venv made earlier with another Python would otherwise be used silently.
same_python() {
    [ -n "${PYTHON:-}" ] && [ -x "$venv/bin/python" ] || return 0
    print='import sys; print(*sys.version_info[:2], sep=".")'
    wanted=$("$PYTHON" -c "$print" 2>/dev/null) || return 0
    [ "$wanted" = "$("$venv/bin/python" -c "$print")" ] ||
        fail "$venv was made with another Python than PYTHON=$PYTHON ($wanted); remove $venv first"
}

# Installs the locked versions, if the lock is for this Python and system. The lock saves the search for versions, and
# modules are compiled when they are first imported, which most never are. uv takes 1 s of CPU for it and pip 12 s, most
# of them for reading the index; fetching uv takes 1.5 s. uv does not know an index of pip's configuration.
locked() {
    series=$("$venv/bin/python" -c 'import sys; print("%d.%d, %s" % (*sys.version_info[:2], sys.platform.capitalize()))')
    case "$(head -n 1 deploy/requirements.lock)" in *"for Python $series on"*) ;; *) return 1 ;; esac
    locks="--no-deps -r deploy/requirements.lock -r deploy/build.lock"
    project="--no-deps --no-build-isolation --editable ."
    if uv=$(find_uv); then
        into="pip install --quiet --python $venv/bin/python"
        # shellcheck disable=SC2086  # words with spaces between them
        "$uv" $into $locks >>"$log" 2>&1 && "$uv" $into $project >>"$log" 2>&1 && return
    fi
    # shellcheck disable=SC2086
    pip install --quiet --no-compile $locks >>"$log" 2>&1 && pip install --quiet $project >>"$log" 2>&1
}

find_uv() {
    if pip config list 2>/dev/null | grep -q '[.]index-url='; then return 1; fi
    if command -v uv; then return; fi
    pip install --quiet --no-compile --no-deps --target "$tools" uv >>"$log" 2>&1 && echo "$tools/bin/uv"
}

fail_install() { fail "installing failed, see above; $venv stays as it is, run this again to go on"; }

install() {
    stamp="$venv/.headgate-$1"
    same_python
    if fresh "$stamp" || { [ "$1" = run ] && fresh "$venv/.headgate-test"; }; then return; fi
    python=$(find_python)
    make_venv
    say "installing what to $1 needs (a minute or so the first time)"
    rm -f "$stamp"
    if [ "$1" = run ]; then
        locked || pip install --quiet --no-compile --editable . || fail_install
    else
        pip install --quiet --editable ".[$1]" || fail_install
    fi
    stamp_text >"$stamp"
}

case "${1:-}" in
    run | test) install "$1" ;;
    pip) shift; python=$(find_python); pip "$@" ;;
    *) fail "say one of: run, test, pip" ;;
esac
