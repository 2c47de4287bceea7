# shellcheck shell=bash
# Runs every command against the running daemons: as root, as a member of the control group, and
# as a user who is neither.
set -Eeuo pipefail

member() { runuser -u member -- sendshotctl "$@"; }
stranger() { runuser -u stranger -- sendshotctl "$@"; }

scenario 'A plan tells what a push then sends, and leaves nothing behind'
sendshotctl --json prune > /dev/null
echo planned > "$PHOTOS/planned"
sync_photos
planned=$(sendshotctl --json plan nas2:photos)
says 'planned' sendshotctl plan --top=3 nas2:photos
says 'incremental|since|parent' sendshotctl push --dry-run nas2:photos
nothing_left /srv
push nas2:photos
[ "$(jq .stream_bytes <<< "$planned")" -eq "$(reported stream_bytes)" ] || die "planned: $planned, sent: $REPORT"

scenario 'Looking and pushing is for members of the group sendshot'
for command in 'push nas2:photos' 'plan nas2:photos' 'push --dry-run nas2:photos' list 'list nas2:photos' \
    'list --partials' status 'prune --dry-run' 'peer list' 'peer grants' 'copy list' 'copy list --partials'; do
    # shellcheck disable=SC2086
    says '' member $command
done
says 'photos.*nas2|nas2.*photos' member list
says 'nas1' member copy list

scenario 'Paths, pairing and deleting are for root, and members are told so'
first=$(sendshotctl --json list nas2:photos | sed -n 1p | jq -r .uuid)
fails 4 'root' member push nas2:/srv/photos
fails 4 'root' member plan nas2:/srv/photos
fails 4 'root' member pair 127.0.0.1 --name nas3 --token "$TOKEN"
fails 4 'root' member peer invite nas3
fails 4 'root' member peer revoke nas1
fails 4 'root' member peer grant nas1 --for 1h
fails 4 'root' member peer invite nas1 --restore
fails 4 'root' member prune
fails 4 'root' member forget --yes nas2:photos "$first"

scenario 'Who is not in the group is refused, and told of it'
for command in 'push nas2:photos' 'plan nas2:photos' list status 'cancel --all' prune 'forget --yes --all nas2:photos' \
    'peer list' 'peer invite nas3' 'copy list' 'pair 127.0.0.1'; do
    # shellcheck disable=SC2086
    fails 1 'denied|not allowed|group|permission' stranger $command
done

scenario 'Retention: prune by a lower keep, forget one, and the last one only with --break-chain'
for round in 1 2 3; do
    echo "$round" > "$PHOTOS/round"
    push nas2:photos
done
kept() { sendshotctl --json list nas2:photos | wc -l; }
[ "$(kept)" -eq 3 ]
cp /etc/sendshot/sender.toml /root/keep-3
sed -i '/path = "\/srv\/photos"/a keep = 2' /etc/sendshot/sender.toml
systemctl reload sendshot-sender
# A reload ends when the daemon gets the signal, not when it has read the configuration.
goes_by_two() { [ "$(sendshotctl --json prune --dry-run nas2:photos | grep -c '"verdict":"deleted')" -eq 1 ]; }
wait_for 5 goes_by_two
says 'keep' sendshotctl prune nas2:photos
[ "$(kept)" -eq 2 ]
oldest=$(sendshotctl --json list nas2:photos | sed -n 1p | jq -r .uuid)
newest=$(sendshotctl --json list nas2:photos | tail -n 1 | jq -r .uuid)
sendshotctl --quiet forget --yes nas2:photos "$oldest"
fails 4 'break-chain' sendshotctl forget --yes nas2:photos "$newest"
cp /root/keep-3 /etc/sendshot/sender.toml
systemctl reload sendshot-sender
push nas2:photos
[ "$(reported parent)" = "$newest" ]
same "$PHOTOS" "$COPY"

scenario 'A path, and a read-only snapshot, are pushed without being configured'
btrfs -q subvolume create /srv/other; echo other > /srv/other/file
push nas2:/srv/other
same /srv/other "$COPY"
btrfs -q subvolume snapshot -r /srv/photos /srv/mine
push nas2:/srv/mine
same /srv/mine "$COPY"
[ -d /srv/mine ]
nothing_left /srv

scenario 'Streams in a pipe, and what changed between two sendshots, without daemons'
mkdir /srv/piped /root/sendshots
sendshotctl --quiet stream send --save-sendshot /root/sendshots/1 /srv/mine | sendshotctl --quiet stream receive /srv/piped > /dev/null
same /srv/mine /srv/piped/mine
fails 1 'only root' member stream send /srv/mine
fails 1 'only root' member stream receive -f /dev/null /srv/piped
btrfs -q subvolume delete /srv/mine
echo piped > "$PHOTOS/piped"; rm "$PHOTOS/planned"
btrfs -q subvolume snapshot -r /srv/photos /srv/mine2
sendshotctl --quiet stream send --sendshot /root/sendshots/1 --save-sendshot /root/sendshots/2 /srv/mine2 \
    | sendshotctl --quiet stream receive /srv/piped > /dev/null
same /srv/mine2 /srv/piped/mine2
says 'new +piped' sendshotctl diff /root/sendshots/1 /root/sendshots/2
says 'gone +planned' sendshotctl diff /root/sendshots/1 /root/sendshots/2

scenario 'A timer pushes as a member of the group'
echo nightly > "$PHOTOS/nightly"
systemd-run --quiet --unit=nightly --on-active=1s --timer-property=AccuracySec=100ms \
    --property=RemainAfterExit=yes --uid=member sendshotctl push nas2:photos
ran() { [ "$(systemctl show -P SubState nightly.service)" = exited ]; }
wait_for 20 ran
systemctl stop nightly.service
[ "$(cat "$(copies photos | tail -n 1)/nightly")" = nightly ]
