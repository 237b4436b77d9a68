# SPDX-License-Identifier: MIT
# Debian packages for the scripts beside this file, which source it.

build_packages="gcc libc6-dev ninja-build meson pkg-config python3
    libglib2.0-dev liburing-dev libaio-dev nettle-dev zlib1g-dev libzstd-dev
    python3-docutils"
run_packages="fuse3"
test_packages="git qemu-utils fio e2fsprogs xfsprogs parted fdisk util-linux
    mount sqlite3 cryptsetup-bin clang libclang-rt-14-dev valgrind"

# install_packages NAME...: install what is missing; one line where it cannot.
install_packages()
{
    local name missing=() log

    if ! command -v dpkg-query >/dev/null; then
        echo "$(basename "$0"): no Debian system: packages not checked"
        return 0
    fi
    for name; do
        dpkg-query -W -f '${db:Status-Status}\n' "$name" 2>/dev/null |
            grep -qx installed || missing+=("$name")
    done
    if [ ${#missing[@]} -eq 0 ]; then
        return 0
    fi
    if [ "$(id -u)" -ne 0 ]; then
        echo "$(basename "$0"): packages are missing; as root:" \
            "apt-get install ${missing[*]}" >&2
        return 1
    fi
    echo "installing: ${missing[*]}"
    log=$(mktemp)
    export DEBIAN_FRONTEND=noninteractive
    if { apt-get -q update && apt-get -q install -y --no-install-recommends \
            "${missing[@]}"; } >"$log" 2>&1 </dev/null; then
        rm -f "$log"
        return 0
    fi
    echo "$(basename "$0"): apt-get cannot install ${missing[*]}:" \
        "$(grep '^E:' "$log" | head -n 1)" >&2
    rm -f "$log"
    return 1
}
