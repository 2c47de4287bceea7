# shellcheck shell=bash
# What the scenarios share: their names and count, expectations, waiting, pushes, and the comparison
# of a copy with its source by tools that are not ours.
set -Eeuo pipefail

scenario=''
began=0
count=0
expected=()

# Begins a scenario; the one before has passed if the daemons said nothing unexpected.
scenario() {
    passed
    scenario=$1
    began=$SECONDS
    expected=()
}

passed() {
    [ -n "$scenario" ] || return 0
    daemons_are_content
    count=$((count + 1))
    printf 'ok %2d  %s (%s s)\n' "$count" "$scenario" "$((SECONDS - began))"
}

finish() {
    passed
    scenario=''
    printf '%s scenarios passed\n' "$count"
}

die() {
    printf 'FAILED: %s: %s\n' "${scenario:-before the first scenario}" "$*" >&2
    exit 1
}
trap 'die "${BASH_SOURCE[0]}:$LINENO: ${BASH_COMMAND:0:200}"' ERR

# A warning or error that this scenario provokes, and which must then be there.
logs() { expected+=("$1"); }

# What the journal has since it was last asked under this name, a message a line. It ends with 1 if
# that is nothing.
news() {
    local name=$1
    shift
    { journalctl --cursor-file="/run/boot-test.$name" --quiet -o json "$@" || true; } \
        | jq -r '.MESSAGE | tostring | gsub("\n"; " ")'
}

# Warnings, errors, and whatever a unit's restrictions denied since the scenario before, by the
# daemons and by systemd about them.
daemons_are_content() {
    local lines pattern
    journalctl --sync
    lines=$(news warnings -p warning -u 'sendshot-*')
    for pattern in "${expected[@]}"; do
        grep -qE "$pattern" <<< "$lines" || die "not in the journal: $pattern"
    done
    for pattern in "${expected[@]}"; do lines=$(grep -vE "$pattern" <<< "$lines" || true); done
    [ -z "$lines" ] || die "unexpected in the journal: $lines"
    lines=$(news denials -u 'sendshot-*' | grep -iE 'operation not permitted|status=31|SIGSYS|core-dump' || true)
    [ -z "$lines" ] || die "denied by a unit: $lines"
}

# Waits until a command succeeds, no longer than so many seconds.
wait_for() {
    local limit=$1 end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || die "waited $limit s for: $*"
        sleep 0.05
    done
}

# Expects that a command fails with an exit code and in words that match.
fails() {
    local code=$1 words=$2 said status=0
    shift 2
    said=$("$@" 2>&1) || status=$?
    [ "$status" -eq "$code" ] || die "$* ended with $status, not $code: $said"
    grep -qiE -- "$words" <<< "$said" || die "$* does not say '$words': $said"
}

# Expects that the words of a command match.
says() {
    local words=$1 said
    shift
    said=$("$@" 2>&1) || die "$* failed: $said"
    grep -qiE -- "$words" <<< "$said" || die "$* does not say '$words': $said"
}

# Pushes; its report is in `REPORT`, the copy's path in `COPY`.
REPORT='' COPY=''
push() {
    local said status=0
    said=$(sendshotctl --json push "$@" 2>/run/push.errors) || status=$?
    [ "$status" -eq 0 ] || die "push $* ended with $status: $(cat /run/push.errors)"
    REPORT=$(tail -n 1 <<< "$said")
    # shellcheck disable=SC2034 # for the scenarios
    COPY=$ROOT/$(jq -r .copy <<< "$REPORT")
    wait_for 20 idle
}
reported() { jq -r ".$1" <<< "$REPORT"; }

# Has no push, and what pushes need is let go of.
idle() { [ "$(sendshotctl --json status | jq '.running | length')" -eq 0 ]; }
# Has sent so many bytes of a push that goes on.
transferred() { [ "$(sendshotctl --json status | jq '[.running[].stream_bytes] | add // 0')" -ge "$1" ]; }

# Has read the configuration again: a reload is over when the daemon is told of it.
knows() { sendshotctl --json status | jq -e --arg path "$1" 'any(.volumes[]; .path == $path)' > /dev/null; }

# Makes a subvolume that is pushed to nas2, with these lines in its table.
new_volume() {
    btrfs -q subvolume create "$2"
    volume "$@" >> /etc/sendshot/sender.toml
    systemctl reload sendshot-sender
    wait_for 5 knows "$2"
}
volume() {
    printf '[volumes.%s]\npath = "%s"\nreceivers = ["nas2"]\n' "$1" "$2"
    if [ $# -gt 2 ]; then printf '%s\n' "${@:3}"; fi
}

# Sends data that was just written to the disk, where extents are.
sync_photos() { btrfs filesystem sync "$PHOTOS"; }

# Settings of a unit for as long as a scenario needs them; `restart` has them used.
drop_in() {
    mkdir -p "/run/systemd/system/sendshot-$1.service.d"
    cat > "/run/systemd/system/sendshot-$1.service.d/scenario.conf"
    systemctl daemon-reload
}
no_drop_ins() {
    rm -r /run/systemd/system/sendshot-*.service.d
    systemctl daemon-reload
}

# No snapshot of a push is left on the sender, and nothing in the receiver's staging.
nothing_left() {
    [ "$(btrfs subvolume list "$1" | grep -c '\.sendshot/snapshots/')" -eq 0 ] || die "a snapshot is pinned"
    [ ! -e "$ROOT/.sendshot-staging" ] || [ -z "$(ls -A "$ROOT/.sendshot-staging")" ] || die "staging is not empty"
}

# The copies of a volume.
copies() { [ ! -d "$ROOT/nas1/$1" ] || find "$ROOT/nas1/$1" -mindepth 1 -maxdepth 1 -name '2*' | sort; }
count_copies() { copies "$1" | wc -l; }

# Pairs by a new invitation.
pair() {
    TOKEN=$(sendshotctl --quiet peer invite nas1 "$@")
    sendshotctl --quiet pair 127.0.0.1 --name nas2 --token "$TOKEN" > /dev/null
}

# Is up, as systemd sees it.
active() { [ "$(systemctl show -P SubState "sendshot-$1")" = running ]; }
# How often systemd has started it again, by itself.
restarts() { systemctl show -P NRestarts "sendshot-$1"; }
restarted() { [ "$(restarts "$1")" -eq "$2" ] && active "$1"; }

# Restarts with the configuration that was written meanwhile.
restart() { for unit in "$@"; do systemctl restart "sendshot-$unit"; done; }

# All that a tree tells of itself but the content, line by line.
listing() (
    cd "$1"
    find . -print0 | sort -z > /run/names
    xargs -0 stat --printf '%N %f %u:%g %h %t:%T %.X %.Y %F\n' < /run/names
    find . -type f -printf '%p %s\n' | sort
    find . ! -type l -print0 | sort -z | xargs -0 getfacl -n -s
    xargs -0 getfattr -h -d -m - -e hex < /run/names
    getcap -r . | sort
)
inode_flags() ( cd "$1" && find . \( -type f -o -type d \) -print0 | sort -z | xargs -0 lsattr -d )

# Expects that a listing of both trees is the same, and is one at all.
alike() {
    local differences
    "$1" "$2" > /run/here
    "$1" "$3" > /run/there
    [ -s /run/here ]
    differences=$(diff /run/here /run/there || true)
    [ -z "$differences" ] || die "the copy differs by $1: $(head -n 30 <<< "$differences")"
}

# Expects that a copy has everything of a tree that rsync, stat, getfacl, getfattr and getcap can see.
same() {
    local differences
    differences=$(rsync -naHAXc --delete --itemize-changes "$1/" "$2/")
    [ -z "$differences" ] || die "rsync sees in the copy: $(head -n 30 <<< "$differences")"
    alike listing "$1" "$2"
}
# And inode flags, which only our engine brings over.
same_flags() { alike inode_flags "$1" "$2"; }
