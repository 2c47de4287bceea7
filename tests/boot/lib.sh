# shellcheck shell=bash
# What the scenarios share: their names and count, assertions, waiting, pushes, and the comparison of a
# copy with its source by tools outside the project.
set -Eeuo pipefail

scenario=''
began=0
count=0
expected=()

# Begins a scenario; the previous one has passed if the daemons logged nothing unexpected.
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

# Declares a warning or error that this scenario provokes, and which then must be in the journal.
logs() { expected+=("$1"); }

# Prints the new journal entries since the last call with this name, one message a line. Returns 1 if
# there are none.
news() {
    local name=$1
    shift
    { journalctl --cursor-file="/run/boot-test.$name" --quiet -o json "$@" || true; } \
        | jq -r '.MESSAGE | tostring | gsub("\n"; " ")'
}

# Prints warnings, errors, and everything that a unit's restrictions denied since the previous scenario,
# from the daemons and from systemd about them.
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

# Waits until a command succeeds, at most this many seconds.
wait_for() {
    local limit=$1 end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || die "waited $limit s for: $*"
        sleep 0.05
    done
}

# Asserts that a command fails with an exit code and a message that matches.
fails() {
    local code=$1 words=$2 said status=0
    shift 2
    said=$("$@" 2>&1) || status=$?
    [ "$status" -eq "$code" ] || die "$* ended with $status, not $code: $said"
    grep -qiE -- "$words" <<< "$said" || die "$* does not say '$words': $said"
}

# Asserts that the output of a command matches.
says() {
    local words=$1 said
    shift
    said=$("$@" 2>&1) || die "$* failed: $said"
    grep -qiE -- "$words" <<< "$said" || die "$* does not say '$words': $said"
}

# Pushes; leaves the report in `REPORT` and the copy's path in `COPY`.
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

# Whether no push is running and everything that pushes need is closed.
idle() { [ "$(sendshotctl --json status | jq '.running | length')" -eq 0 ]; }
# Whether a running push has sent this many bytes.
transferred() { [ "$(sendshotctl --json status | jq '[.running[].stream_bytes] | add // 0')" -ge "$1" ]; }

# Whether the configuration was read again: a reload ends when the daemon gets the signal.
knows() { sendshotctl --json status | jq -e --arg path "$1" 'any(.volumes[]; .path == $path)' > /dev/null; }

# Makes a subvolume that is pushed to nas2, with these lines in its table of the configuration.
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

# Flushes data that was just written to disk, because only then it has extents.
sync_photos() { btrfs filesystem sync "$PHOTOS"; }

# Adds settings to a unit for one scenario; `restart` applies them.
drop_in() {
    mkdir -p "/run/systemd/system/sendshot-$1.service.d"
    cat > "/run/systemd/system/sendshot-$1.service.d/scenario.conf"
    systemctl daemon-reload
}
no_drop_ins() {
    rm -r /run/systemd/system/sendshot-*.service.d
    systemctl daemon-reload
}

# Asserts that no snapshot of a push is left on the sender, and nothing in the receiver's staging.
nothing_left() {
    [ "$(btrfs subvolume list "$1" | grep -c '\.sendshot/snapshots/')" -eq 0 ] || die "a snapshot is pinned"
    [ ! -e "$ROOT/.sendshot-staging" ] || [ -z "$(ls -A "$ROOT/.sendshot-staging")" ] || die "staging is not empty"
}

# Lists the copies of a volume.
copies() { [ ! -d "$ROOT/nas1/$1" ] || find "$ROOT/nas1/$1" -mindepth 1 -maxdepth 1 -name '2*' | sort; }
count_copies() { copies "$1" | wc -l; }

# Pairs by a new invitation.
pair() {
    TOKEN=$(sendshotctl --quiet peer invite nas1 "$@")
    sendshotctl --quiet pair 127.0.0.1 --name nas2 --token "$TOKEN" > /dev/null
}

# Whether systemd reports the daemon as running.
active() { [ "$(systemctl show -P SubState "sendshot-$1")" = running ]; }
# How often systemd has restarted it.
restarts() { systemctl show -P NRestarts "sendshot-$1"; }
restarted() { [ "$(restarts "$1")" -eq "$2" ] && active "$1"; }

# Restarts daemons with their changed configuration.
restart() { for unit in "$@"; do systemctl restart "sendshot-$unit"; done; }

# Lists everything about a tree except content, one line per fact.
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

# Asserts that a listing of both trees is the same, and not empty.
alike() {
    local differences
    "$1" "$2" > /run/here
    "$1" "$3" > /run/there
    [ -s /run/here ]
    differences=$(diff /run/here /run/there || true)
    [ -z "$differences" ] || die "the copy differs by $1: $(head -n 30 <<< "$differences")"
}

# Asserts that a copy has everything of a tree that rsync, stat, getfacl, getfattr and getcap can see.
same() {
    local differences
    differences=$(rsync -naHAXc --delete --itemize-changes "$1/" "$2/")
    [ -z "$differences" ] || die "rsync sees in the copy: $(head -n 30 <<< "$differences")"
    alike listing "$1" "$2"
}
# Compares inode flags, too, which only the sendshot engine transfers.
same_flags() { alike inode_flags "$1" "$2"; }
