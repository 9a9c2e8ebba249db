# shellcheck shell=bash
# What scripts/demo and scripts/test share: messages, the toolchain, hugepages, /dev/net/tun.
# Sourced, never run. The caller has set -euo pipefail and cleans up with its own EXIT trap.

# shellcheck disable=SC2034 # for the scripts that source this
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
me=$(basename "$0")

say() { printf '%s: %s\n' "$me" "$*" >&2; }
die() { say "$*"; exit 1; }

# What the head of the script says.
usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; }

need_root() {
    [ "$(id -u)" -eq 0 ] ||
        die "needs root for the network namespace and the tap device. Run: sudo -E $0"
}

# Puts cargo on PATH. rustup installs it where a root shell does not look.
need_cargo() {
    command -v cargo >/dev/null 2>&1 || PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    command -v cargo >/dev/null 2>&1 ||
        die 'no Rust toolchain found. Install one from https://rustup.rs and run this again.'
}

# The character device behind every tap. Containers often come without it.
need_tun() {
    [ -c /dev/net/tun ] || modprobe tun 2>/dev/null || true
    [ -c /dev/net/tun ] ||
        die '/dev/net/tun is missing. Load the module (modprobe tun), or pass the device to the container (--device /dev/net/tun).'
    { : <>/dev/net/tun; } 2>/dev/null ||
        die '/dev/net/tun cannot be opened. The container needs CAP_NET_ADMIN and the device (--cap-add NET_ADMIN --device /dev/net/tun).'
}

hugepages_file=/proc/sys/vm/nr_hugepages
hugepages_before=
hugepages_set=

meminfo() { awk -v key="$1:" '$1 == key { print $2 }' /proc/meminfo; }

# take_hugepages MIB: sees to MIB of free hugepages. Returns 1 if the machine does not give them.
# Call release_hugepages from the EXIT trap, whatever came back.
take_hugepages() {
    local mib=$1 page_kib free wanted
    page_kib=$(meminfo Hugepagesize)
    free=$(meminfo HugePages_Free)
    [ -n "$page_kib" ] && [ -n "$free" ] || return 1
    wanted=$((mib * 1024 / page_kib))
    [ "$free" -lt "$wanted" ] || return 0
    hugepages_before=$(cat "$hugepages_file") || return 1
    hugepages_set=$((hugepages_before + wanted - free))
    # Memory may be too fragmented: then the kernel gives fewer than asked for, without an error.
    { echo "$hugepages_set" >"$hugepages_file"; } 2>/dev/null || true
    hugepages_set=$(cat "$hugepages_file")
    if [ "$(meminfo HugePages_Free)" -lt "$wanted" ]; then
        release_hugepages
        return 1
    fi
}

# Gives back what take_hugepages took, unless someone else has changed the number since.
release_hugepages() {
    [ -n "$hugepages_before" ] || return 0
    case $(cat "$hugepages_file") in
        "$hugepages_before" | "$hugepages_set") ;;
        *)
            # Another run has raised or lowered it meanwhile: take off no more than our own share.
            hugepages_before=$(($(cat "$hugepages_file") - (hugepages_set - hugepages_before)))
            [ "$hugepages_before" -ge 0 ] || hugepages_before=0
            ;;
    esac
    { echo "$hugepages_before" >"$hugepages_file"; } 2>/dev/null || true
    hugepages_before=
}
