# shellcheck shell=bash
# What the units promise to systemd: reload, a wrong configuration, the journal, the watchdog; and
# that their filters block nothing that the daemons need.
set -Eeuo pipefail

scenario 'The journal has a push with its fields'
push nas2:photos
echo fields > "$PHOTOS/fields"
push nas2:photos
journalctl --sync
journalctl -u sendshot-sender -o json --no-pager | grep -F 'pushed photos to nas2' | tail -n 1 > /run/line
for field in VOLUME RECEIVER UUID PARENT PARENT_REASON STREAM_BYTES WIRE_BYTES SECONDS COPY; do
    [ "$(jq -r ".SENDSHOT_$field" /run/line)" != null ] || die "SENDSHOT_$field is not in the journal"
done
[ "$(jq -r .SENDSHOT_UUID /run/line)" = "$(reported uuid)" ]

scenario 'A reload takes a new configuration, and refuses a wrong one'
new_volume docs /srv/docs
echo x > /srv/docs/x
push nas2:docs
cp /etc/sendshot/sender.toml /root/good
echo 'recievers = []' >> /etc/sendshot/sender.toml
logs 'Reload failed'
fails 1 'failed' systemctl reload sendshot-sender
push nas2:docs
# A signal that bypasses the unit's check is answered by the daemon itself.
logs 'the former configuration stays in use.*recievers'
systemctl kill --kill-whom=main --signal=HUP sendshot-sender
told() { journalctl --sync && journalctl -q -u sendshot-sender -p err --since=-1min | grep 'stays in use' > /dev/null; }
wait_for 5 told
push nas2:docs

scenario 'A wrong configuration keeps a unit from starting, and the journal says why'
logs "Failed with result 'exit-code'"
logs 'Failed to start'
fails 1 'failed' systemctl restart sendshot-sender
journalctl --sync
says 'unknown key .recievers.' journalctl -u sendshot-sender --no-pager -n 50
cp /root/good /etc/sendshot/sender.toml
wait_for 20 active sender
push nas2:photos
same "$PHOTOS" "$COPY"

scenario 'No system call is denied unheard: with a filter that kills, everything still works'
for unit in sender receiver; do
    printf '[Service]\nSystemCallErrorNumber=kill\n' | drop_in "$unit"
done
restart receiver sender
fill_every_kind "$PHOTOS/filtered"
push nas2:photos
same "$PHOTOS" "$COPY"
same_flags "$PHOTOS" "$COPY"
change_every_kind "$PHOTOS/filtered"
push nas2:photos
same "$PHOTOS" "$COPY"
push --engine kernel nas2:photos
same "$PHOTOS" "$COPY"
sendshotctl --quiet plan nas2:photos > /dev/null
sendshotctl --quiet prune > /dev/null
sendshotctl --quiet copy list > /dev/null
push --engine sendshot nas2:photos
sendshotctl --quiet forget --yes --all nas2:docs --break-chain > /dev/null
no_drop_ins
restart receiver sender

scenario 'The watchdog is fed, and bites a daemon that hangs'
logs 'Watchdog timeout'
logs 'Main process exited'
logs "Failed with result 'watchdog'"
for unit in sender receiver; do
    was=$(systemctl show -P WatchdogTimestampMonotonic "sendshot-$unit")
    fed() { [ "$(systemctl show -P WatchdogTimestampMonotonic "sendshot-$unit")" -gt $((was + 4000000)) ]; }
    wait_for 10 fed
    was=$(restarts "$unit")
    systemctl kill --kill-whom=main --signal=STOP "sendshot-$unit"
    wait_for 20 restarted "$unit" $((was + 1))
done
push nas2:photos
same "$PHOTOS" "$COPY"
