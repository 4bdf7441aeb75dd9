#!/usr/bin/env bash
#
# Provides a folder with a real kube-apiserver, etcd and kubectl for the tests.
#
#   usage: kubernetes.sh [TARGET...]
#
# The last line on stdout is the path of the folder; everything else goes to stderr. TARGET is the name of a command
# of the Kubernetes source tree (kube-apiserver, kubectl, kube-controller-manager, kube-scheduler, kubelet, kube-proxy);
# the default is `kube-apiserver kubectl`. etcd is always provided.
#
# The folder is, in this order:
#
#   1. $KUBEBUILDER_ASSETS, when it holds etcd and the targets that were asked for
#      (kube-apiserver, when none was named);
#   2. the cache: ${XDG_CACHE_HOME:-$HOME/.cache}/relaypool/kubernetes/<Debian package version>-<recipe>/bin;
#   3. the same folder, after building what it lacks from Debian's source package `kubernetes`.
#
# The build takes five to ten minutes on two cores and 3 GB of disk, once per machine. It needs a Debian package mirror
# and nothing else from the network: the compiler, etcd and the sources are downloaded by apt into the cache and
# unpacked there, not installed. So no daemon starts, the system's apt lists stay as they are, and no root is needed
# as long as the few common tools below are present.
#
# The source tree and Go's build cache stay in the cache folder, beside `bin`. That makes a further target cheap:
# kube-proxy is then a matter of seconds, kubelet of a minute or two. To get the room back, delete `build`.
#
# Environment:
#   KUBEBUILDER_ASSETS       a folder of ready-made binaries, see above
#   XDG_CACHE_HOME           where caches live
#   RELAYPOOL_DEBIAN_MIRROR  a Debian mirror; default: the one the system uses, else http://deb.debian.org/debian

set -euo pipefail

# Raise this when the way of building changes so that older binaries must not be used any more.
readonly RECIPE=1

# The Debian release whose packages are used, whatever release the machine itself runs: newer ones no longer ship
# Kubernetes with its vendor tree.
readonly SUITE=bookworm

readonly CACHE="${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/relaypool/kubernetes"
readonly APT_HOME="$CACHE/apt"

say() { echo "kubernetes.sh: $*" >&2; }
die() { say "error: $*"; exit 1; }

# holds FOLDER COMMAND...: does the folder hold all these commands?
holds() {
    local folder=$1 command
    shift
    for command in "$@"; do
        [[ -f "$folder/$command" && -x "$folder/$command" ]] || return 1
    done
}

# cache_folders: prints the cache folders of this recipe, newest version first.
cache_folders() {
    find "$CACHE" -mindepth 1 -maxdepth 1 -type d -name "*-$RECIPE" 2>/dev/null | sort --version-sort --reverse
}

# cached_folder COMMAND...: prints the newest cache folder of this recipe that holds the commands.
cached_folder() {
    local folder
    while IFS= read -r folder; do
        if holds "$folder/bin" "$@"; then
            echo "$folder/bin"
            return 0
        fi
    done < <(cache_folders)
    return 1
}

# unpacked_folder: prints the newest cache folder of this recipe with a source tree that is ready to build from.
unpacked_folder() {
    local folder
    while IFS= read -r folder; do
        if [[ -x $folder/bin/etcd && -e $folder/build/.done-step_source ]]; then
            echo "$folder"
            return 0
        fi
    done < <(cache_folders)
    return 1
}

# --- What the machine must have ------------------------------------------------------------------------------------

# Installs the common tools that are missing, or says which.
ensure_tools() {
    # Command and the package it comes from.
    local needed=(
        rsync:rsync jq:jq make:make git:git patch:patch xz:xz-utils dpkg-source:dpkg-dev
    )
    local entry missing=()
    if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
        die "building Kubernetes needs apt and dpkg; on this system, set KUBEBUILDER_ASSETS to a folder" \
            "with kube-apiserver and etcd (for example from 'setup-envtest use -p path')"
    fi
    [[ -f $KEYRING ]] || missing+=(debian-archive-keyring)
    for entry in "${needed[@]}"; do
        command -v "${entry%%:*}" >/dev/null || missing+=("${entry#*:}")
    done
    ((${#missing[@]})) || return 0
    if ((EUID != 0)); then
        die "missing packages: ${missing[*]}. Install them as root (apt-get install ${missing[*]})," \
            "or set KUBEBUILDER_ASSETS to a folder with kube-apiserver and etcd"
    fi
    say "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # A list that is too old names files the mirror no longer has; so one more try, after an update.
    local install=(apt-get -o DPkg::Lock::Timeout=600 install --yes --no-install-recommends "${missing[@]}")
    "${install[@]}" >&2 || { apt-get update >&2 && "${install[@]}" >&2; }
}

readonly KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

# --- Debian packages, without touching the system's apt ------------------------------------------------------------

debian_mirror() {
    if [[ -n "${RELAYPOOL_DEBIAN_MIRROR:-}" ]]; then
        echo "$RELAYPOOL_DEBIAN_MIRROR"
        return
    fi
    local mirror
    # The dollar signs are apt's.
    # shellcheck disable=SC2016
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT) $(ORIGIN)' 'Created-By: Packages' 2>/dev/null \
        | awk -v suite="$SUITE" '$2 == suite && $3 == "main" && $4 == "Debian" { print $1; exit }') || mirror=
    echo "${mirror:-http://deb.debian.org/debian}"
}

# Lists and downloads of our own; proxies and other settings of the machine still apply.
readonly APT_OPTIONS=(
    -o "Dir::Etc::sourcelist=$APT_HOME/sources.list"
    -o "Dir::Etc::sourceparts=$APT_HOME/no-parts"
    -o "Dir::Etc::preferencesparts=$APT_HOME/no-parts"
    -o "Dir::State::lists=$APT_HOME/lists"
    -o "Dir::Cache=$APT_HOME/cache"
    # apt would else drop to a user that cannot read a cache in root's home.
    -o "APT::Sandbox::User="
)

update_package_lists() {
    local mirror
    mirror=$(debian_mirror)
    mkdir -p "$APT_HOME"/{no-parts,lists/partial,cache/archives/partial,downloads}
    printf '%s [signed-by=%s] %s %s main\n' \
        deb "$KEYRING" "$mirror" "$SUITE" \
        deb-src "$KEYRING" "$mirror" "$SUITE" >"$APT_HOME/sources.list"
    say "reading the package lists of $SUITE from $mirror"
    apt-get "${APT_OPTIONS[@]}" --quiet=2 update >&2 || die "cannot read the package lists from $mirror"
}

# The version of the source package `kubernetes`, without an epoch.
source_version() {
    apt-cache "${APT_OPTIONS[@]}" showsrc --only-source kubernetes \
        | awk '$1 == "Version:" { print $2 }' | sort --version-sort | tail -n 1
}

# unpack_packages FOLDER PACKAGE...: unpacks binary packages below a folder; nothing is installed, no script runs.
unpack_packages() {
    local folder=$1 archive
    shift
    mkdir -p "$folder"
    rm -f "$APT_HOME/downloads"/*.deb
    (cd "$APT_HOME/downloads" && apt-get "${APT_OPTIONS[@]}" --quiet=2 download "$@" >&2) \
        || die "cannot download $*"
    for archive in "$APT_HOME/downloads"/*.deb; do
        dpkg -x "$archive" "$folder"
    done
    rm -f "$APT_HOME/downloads"/*.deb
}

# --- The build -----------------------------------------------------------------------------------------------------

# Each step leaves a mark when it is done, so an interrupted build goes on where it stopped.
once() {
    local mark="$BUILD/.done-$1"
    [[ -e $mark ]] && return 0
    "$@"
    touch "$mark"
}

step_go() {
    say "unpacking the Go compiler"
    rm -rf "$BUILD/debian"
    # golang-go itself holds only links to the version it stands for.
    local compiler
    compiler=$(apt-cache "${APT_OPTIONS[@]}" show --no-all-versions golang-go \
        | sed -n 's/^Depends:.*\(golang-1\.[0-9]*\)-go.*/\1/p' | head -n 1)
    [[ -n $compiler ]] || die "cannot tell which Go version golang-go of $SUITE is"
    unpack_packages "$BUILD/debian" "$compiler-go" "$compiler-src" golang-github-modern-go-reflect2-dev
    ln -sfn "debian/usr/lib/${compiler/golang/go}" "$BUILD/goroot"
}

step_etcd() {
    say "unpacking etcd"
    rm -rf "$BUILD/etcd"
    # The package is unpacked, not installed, because installing starts a daemon.
    unpack_packages "$BUILD/etcd" etcd-server
    install -D -m 0755 "$BUILD/etcd/usr/bin/etcd" "$FOLDER/bin/.etcd.new"
    mv "$FOLDER/bin/.etcd.new" "$FOLDER/bin/etcd"
}

step_source() {
    say "unpacking the sources of Kubernetes $VERSION"
    rm -rf "$BUILD/download" "$TREE"
    mkdir -p "$BUILD/download" "$(dirname "$TREE")"
    (cd "$BUILD/download" && apt-get "${APT_OPTIONS[@]}" --quiet=2 --download-only source "kubernetes=$VERSION" >&2) \
        || die "cannot download the source package kubernetes=$VERSION"
    dpkg-source --no-check --extract "$BUILD/download"/*.dsc "$TREE" >&2
    rm -rf "$BUILD/download"

    # Built with Go 1.18 or newer, reflect2 1.0.1 of the vendor tree corrupts memory: the API server dies as soon as a
    # custom resource is written. Debian packages 1.0.2, which has the cure and the same interface.
    local reflect2="$TREE/vendor/github.com/modern-go/reflect2"
    [[ -d $reflect2 ]] || die "the source tree lacks $reflect2"
    rm -rf "$reflect2"
    cp -rL "$BUILD/debian/usr/share/gocode/src/github.com/modern-go/reflect2" "$reflect2"
    find "$reflect2" -name '*_test.go' -delete

    # The makefiles ask git about the tree. A repository of its own also keeps them from finding one further up.
    git -C "$TREE" init --quiet
}

step_generated_files() {
    say "generating source files"
    go_environment make -C "$TREE" generated_files >&2
}

# go_environment COMMAND...: runs a command with the unpacked compiler, offline, at low priority.
go_environment() {
    env --unset=GOFLAGS --unset=GOROOT --unset=GOBIN --unset=MAKEFLAGS --unset=MAKELEVEL \
        PATH="$BUILD/goroot/bin:$PATH" \
        GOPATH="$BUILD/gopath" \
        GOCACHE="$BUILD/gocache" \
        GO111MODULE=off GOPROXY=off GOTOOLCHAIN=local CGO_ENABLED=0 \
        nice "$@"
}

# build_target NAME: builds one command of the tree into the folder.
build_target() {
    local target=$1 number package flags
    [[ -d "$TREE/cmd/$target" ]] || die "Kubernetes $VERSION has no command '$target'"
    # 1.20.5+really1.20.2-1.1 is version 1.20.2.
    number=${VERSION#*+really}
    number=${number%%[-+~]*}
    flags="-s -w"
    for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        flags+=" -X k8s.io/kubernetes/vendor/$package.gitVersion=v$number"
        flags+=" -X k8s.io/kubernetes/vendor/$package.gitMajor=$(cut -d. -f1 <<<"$number")"
        flags+=" -X k8s.io/kubernetes/vendor/$package.gitMinor=$(cut -d. -f2 <<<"$number")"
        flags+=" -X k8s.io/kubernetes/vendor/$package.gitTreeState=archive"
    done
    say "building $target $number"
    (cd "$TREE" && go_environment go build -ldflags "$flags" -o "$FOLDER/bin/.$target.new" "k8s.io/kubernetes/cmd/$target" >&2)
    mv "$FOLDER/bin/.$target.new" "$FOLDER/bin/$target"
}

# --- Main ----------------------------------------------------------------------------------------------------------

case "${1:-}" in
    -h | --help)
        sed -n '2,/^$/s/^# \{0,1\}//p' "$0" >&2
        exit 0
        ;;
esac

if (($#)); then
    targets=("$@")
    wanted_of_assets=("$@")
else
    targets=(kube-apiserver kubectl)
    # A ready-made folder may come without kubectl; then the one on PATH serves.
    wanted_of_assets=(kube-apiserver)
fi
for target in "${targets[@]}"; do
    [[ $target =~ ^[a-z][a-z0-9-]*$ ]] || die "not the name of a command: '$target'"
done

if [[ -n "${KUBEBUILDER_ASSETS:-}" ]]; then
    if holds "$KUBEBUILDER_ASSETS" etcd "${wanted_of_assets[@]}"; then
        (cd "$KUBEBUILDER_ASSETS" && pwd)
        exit 0
    fi
    say "KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS lacks one of: etcd ${wanted_of_assets[*]}; using the cache instead"
fi

cached_folder etcd "${targets[@]}" && exit 0

mkdir -p "$CACHE"

# One build at a time. The lock is on a file descriptor: it ends with this process, however that ends.
exec 9>"$CACHE/lock"
command -v flock >/dev/null || die "flock is missing: it is part of util-linux"
if ! flock --nonblock 9; then
    say "waiting for another build to end"
    flock 9
fi
# The one we waited for may have built what we want.
cached_folder etcd "${targets[@]}" && exit 0
ensure_tools

# A tree that an earlier run unpacked serves further targets without asking the network.
if FOLDER=$(unpacked_folder); then
    VERSION=$(basename "$FOLDER")
    VERSION=${VERSION%-"$RECIPE"}
    say "building ${targets[*]} from the tree in $FOLDER"
else
    say "building ${targets[*]} into $CACHE; this happens once per machine and takes about ten minutes"
    update_package_lists
    VERSION=$(source_version)
    [[ -n $VERSION ]] || die "the mirror has no source package kubernetes in $SUITE"
    # The colon of an epoch would split GOPATH in two.
    FOLDER="$CACHE/${VERSION/:/_}-$RECIPE"
fi
readonly VERSION FOLDER
readonly BUILD="$FOLDER/build"
readonly TREE="$BUILD/gopath/src/k8s.io/kubernetes"
mkdir -p "$BUILD" "$FOLDER/bin"

once step_go
[[ -x $FOLDER/bin/etcd ]] || step_etcd
missing=()
for target in "${targets[@]}"; do
    [[ -x $FOLDER/bin/$target ]] || missing+=("$target")
done
if ((${#missing[@]})); then
    once step_source
    once step_generated_files
    for target in "${missing[@]}"; do
        build_target "$target"
    done
fi
holds "$FOLDER/bin" etcd "${targets[@]}" || die "the build left no complete folder at $FOLDER/bin"
echo "$FOLDER/bin"
