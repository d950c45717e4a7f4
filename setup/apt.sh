# Sourced by the scripts beside it: asks for system packages, and installs them with apt.

# Told on standard error, with the cure, and the script ends.
fail() {
    echo "setup: $*" >&2
    exit 1
}

say() {
    echo "setup: $*"
}

installed() {
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

wanted=()

# want PACKAGE WHY
want() {
    say "$1 is missing and will be installed: $2"
    wanted+=("$1")
}

as_root() {
    if ((EUID == 0)); then
        "$@"
    else
        sudo "$@"
    fi
}

need_apt() {
    command -v apt-get >/dev/null || fail "this is neither Debian nor Ubuntu; install by hand what these packages hold, then try again: $*"
    ((EUID == 0)) || command -v sudo >/dev/null || fail "no sudo here; as root run: apt-get install --no-install-recommends $*"
}

# Removes nothing, restarts nothing (needrestart is told to stay quiet), recommends nothing.
apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        apt-get install -qq -y --no-install-recommends --no-remove -o Dpkg::Use-Pty=0 "$@" >/dev/null
}

install_wanted() {
    ((${#wanted[@]})) || return 0
    need_apt "${wanted[@]}"
    apt_install "${wanted[@]}" 2>/dev/null || {
        say "refreshing the lists of packages (apt-get update)"
        as_root apt-get update -qq || fail "apt-get update failed (its words, or those of sudo, are above); install by hand: ${wanted[*]}"
        apt_install "${wanted[@]}" || fail "apt could not install: ${wanted[*]} (its words are above)"
    }
    wanted=()
}
