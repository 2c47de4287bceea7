# shellcheck shell=bash
# Kills, stops and restarts daemons in the middle of a push.
set -Eeuo pipefail

MIB=1048576

# Begins a push that is large enough to be caught in its middle.
begin() {
    head -c 512M /dev/urandom > "/srv/$1/big"
    sync_photos
    before=$(count_copies "$1")
    sendshotctl --quiet push --detach "nas2:$1" > /dev/null
    wait_for 20 transferred $((32 * MIB))
    [ "$(count_copies "$1")" -eq "$before" ] || die "the push was over before it could be disturbed"
}

# The interrupted push has completed by itself, or the next one resumes it; the copy is exact.
ends_well() {
    wait_for 60 idle
    push "nas2:$1"
    same "/srv/$1" "$COPY"
}
ended_by_itself() {
    wait_for 60 idle
    [ "$(count_copies "$1")" -gt "$before" ] || die "the sender gave up"
}

# Declares what systemd logs when a daemon is killed.
logs_a_death() { logs 'Main process exited'; logs "Failed with result '$1'"; }

# Kills a daemon, which systemd restarts.
kill_daemon() {
    local was
    was=$(restarts "$1")
    logs_a_death signal
    systemctl kill --kill-whom=main --signal=KILL "sendshot-$1"
    wait_for 20 restarted "$1" $((was + 1))
}

scenario 'A receiver that is killed in a push is started again, and the push ends by itself'
begin photos
kill_daemon receiver
ended_by_itself photos
ends_well photos
same_flags "$PHOTOS" "$COPY"
nothing_left /srv

scenario "So it is by the kernel engine, whose push starts over"
new_volume pinned /srv/pinned 'pin_parent = true'
begin pinned
kill_daemon receiver
ended_by_itself pinned
ends_well pinned
rm /srv/pinned/big
sendshotctl --quiet forget --yes --all nas2:pinned --break-chain > /dev/null

scenario 'A sender that is killed in a push is started again, and the next push goes on'
begin photos
kill_daemon sender
says 'photos' sendshotctl list --partials
ends_well photos
same_flags "$PHOTOS" "$COPY"
[ -z "$(sendshotctl --json list --partials)" ]
nothing_left /srv

for unit in sender receiver; do
    scenario "Stopping the $unit in the middle of a push is quick, and the push goes on"
    begin photos
    stopped=$SECONDS
    systemctl stop "sendshot-$unit"
    [ $((SECONDS - stopped)) -le 5 ]
    [ "$(systemctl show -P Result "sendshot-$unit")" = success ]
    systemctl start "sendshot-$unit"
    ends_well photos
    nothing_left /srv
done

scenario 'Both daemons are restarted between two pushes'
first=$(reported uuid)
echo restarted > "$PHOTOS/restarted"
restart receiver sender
push nas2:photos
[ "$(reported parent)" = "$first" ]
same "$PHOTOS" "$COPY"

scenario 'A push that is cancelled says so, and the next goes on'
head -c 512M /dev/urandom > "$PHOTOS/big"
sync_photos
(fails 1 'cancelled' sendshotctl push nas2:photos) & waiting=$!
wait_for 20 transferred $((32 * MIB))
sendshotctl --quiet cancel nas2:photos > /dev/null
wait $waiting
says 'photos' sendshotctl list --partials
says 'photos' sendshotctl copy list --partials
ends_well photos

scenario 'A push waits for a receiver that is away, if it is told to'
systemctl stop sendshot-receiver
echo waits > "$PHOTOS/waits"
fails 3 'cannot be reached' sendshotctl push nas2:photos
(sendshotctl --quiet push --retry-for 1m nas2:photos > /dev/null) & waiting=$!
running() { ! idle; }
wait_for 5 running
systemctl start sendshot-receiver
wait $waiting
ends_well photos
rm "$PHOTOS/big"
