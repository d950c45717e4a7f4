# Keeps one private libvirtd and all its guests, on behalf of a test that holds this script's standard input.
#
# Commands, one a line: `start` and `kill` (-9) the daemon; each is answered by one line. The end of input, however
# it came about, ends the daemon and its guests and removes the folder: so nothing outlives a test that is killed.
#
# DIR   the folder of this host: configuration, sockets, state, logs
# HOST  where libvirtd and QEMU are unpacked
set -u
# The terminal's Ctrl-C is for the test; this script goes when the test has gone.
trap '' INT TERM HUP

export LD_LIBRARY_PATH=$HOST/usr/lib/x86_64-linux-gnu
export LIBVIRT_DRIVER_DIR=$LD_LIBRARY_PATH/libvirt/connection-driver
libvirtd=("$HOST/usr/sbin/libvirtd" --config "$DIR/libvirtd.conf" --pid-file "$DIR/libvirtd.pid")
daemon=

# As root, libvirtd's folders are fixed in its code: a mount namespace puts ours in their place for it alone.
# Without D-Bus and control groups it registers no guest with the machine's systemd.
system_daemon() {
    local folder
    for folder in run var/lib var/log var/cache etc; do
        mkdir -p "$DIR/$folder/libvirt" "/$folder/libvirt"
    done
    # libvirtd insists on the account that its package creates; where that is not installed, root stands in.
    cat /etc/passwd <(printf 'libvirt-qemu:x:0:0::/:/bin/false\n') >"$DIR/etc/passwd"
    cat /etc/group <(printf '%s:x:0:\n' kvm libvirt-qemu) >"$DIR/etc/group"
    # QEMU runs as root too: the folder is root's alone.
    { cat "$DIR/qemu.conf" && printf 'user = "+0"\ngroup = "+0"\n'; } >"$DIR/etc/libvirt/qemu.conf"
    exec unshare --mount --propagation private bash -c '
        set -e
        for folder in run var/lib var/log var/cache etc; do
            mount --bind "$DIR/$folder/libvirt" "/$folder/libvirt"
        done
        for file in passwd group; do
            mount --bind "$DIR/etc/$file" "/etc/$file"
        done
        if [[ -d /run/dbus ]]; then mount -t tmpfs none /run/dbus; fi
        if mountpoint -q /sys/fs/cgroup; then umount --recursive --lazy /sys/fs/cgroup; fi
        exec "$@"' bash "${libvirtd[@]}"
}

# As an ordinary user, libvirtd goes by the XDG folders.
session_daemon() {
    export HOME=$DIR XDG_RUNTIME_DIR=$DIR/run XDG_CONFIG_HOME=$DIR/etc XDG_CACHE_HOME=$DIR/var/cache
    export XDG_STATE_HOME=$DIR/var/lib XDG_DATA_HOME=$DIR/var/lib
    mkdir -p "$XDG_RUNTIME_DIR" "$XDG_CONFIG_HOME/libvirt" "$XDG_CACHE_HOME" "$XDG_STATE_HOME"
    cp "$DIR/qemu.conf" "$XDG_CONFIG_HOME/libvirt/qemu.conf"
    exec "${libvirtd[@]}"
}

start() {
    rm -f "$DIR"/run/libvirt/libvirt-sock*
    if ((EUID == 0)); then
        system_daemon </dev/null >>"$DIR/daemon.out" 2>&1 &
    else
        session_daemon </dev/null >>"$DIR/daemon.out" 2>&1 &
    fi
    daemon=$!
    while ! [[ -S $DIR/run/libvirt/libvirt-sock ]]; do
        kill -0 "$daemon" 2>/dev/null || return 1
        sleep 0.02
    done
}

# Processes of the unpacked programs whose arguments name our folder: those that this host started, and no others.
ours() {
    local file program
    for file in $(grep -lsF -f <(printf '%s/' "$DIR") /proc/[0-9]*/cmdline); do
        IFS= read -r -d '' program 2>/dev/null <"$file"
        [[ $program == "$HOST"/* ]] && tr -dc '0-9\n' <<<"$file"
    done
}

kill_daemon() {
    kill -9 "$daemon" && wait "$daemon"
} 2>/dev/null

export DIR
while read -r command; do
    case $command in
    start) start && echo started || echo "failed" ;;
    kill) kill_daemon; echo killed ;;
    esac
done

kill_daemon
# A guest that was just being started may show up late; one that was killed takes a moment to give its memory back.
killed=()
for _ in {1..250}; do
    pids=$(ours)
    kill -9 $pids 2>/dev/null
    killed+=($pids)
    gone=1
    for pid in "${killed[@]}"; do
        [[ -d /proc/$pid ]] && gone=
    done
    [[ $gone && ! $pids ]] && break
    sleep 0.02
done
rm -rf "$DIR"
