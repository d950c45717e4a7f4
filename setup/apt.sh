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

# For programs that are unpacked into .tools/ and not installed.

refresh() {
    say "refreshing the lists of packages (apt-get update)"
    as_root apt-get update -qq || fail "apt-get update failed (its words, or those of sudo, are above)"
}

# download FOLDER PACKAGE...: fetches the packages' files.
download() {
    local folder=$1
    shift
    mkdir -p "$folder"
    (cd "$folder" && apt-get download -qq -o APT::Sandbox::User=root "$@") 2>/dev/null || {
        refresh
        (cd "$folder" && apt-get download -qq -o APT::Sandbox::User=root "$@") ||
            fail "apt could not download: $* (its words are above)"
    }
}

# want_libs FILE.deb...: asks for the shared libraries that the packages name, the first of every choice.
want_libs() {
    local deb lib before=${#wanted[@]}
    for lib in $(for deb in "$@"; do
        dpkg-deb -f "$deb" Depends Pre-Depends
    done | sed 's/^[A-Za-z-]*: //' | tr ',' '\n' | sed 's/[|(:].*//; s/ //g' | sort -u | grep '^lib' | grep -Ev '^lib(virt|js-|llvm)|-utils$'); do
        installed "$lib" || wanted+=("$lib")
    done
    ((${#wanted[@]} == before)) || say "shared libraries are missing and will be installed, for those programs: ${wanted[*]:before}"
}
