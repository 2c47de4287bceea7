# shellcheck shell=bash
# A host that is paired again, and one that is revoked.
set -Eeuo pipefail

scenario 'A thief of a used token gets nothing; a new host goes on in the directories of the old'
systemctl stop sendshot-sender
mv /var/lib/sendshot-sender /root/old-state
mv /etc/sendshot/receivers.d/nas2.toml /root/old-receiver
systemctl start sendshot-sender
fails 4 'used' sendshotctl pair 127.0.0.1 --name nas2 --token "$TOKEN"
fails 2 'replace' sendshotctl peer invite nas1
pair --replace
before=$(count_copies photos)
push nas2:photos
same "$PHOTOS" "$COPY"
[ "$(count_copies photos)" -eq $((before + 1)) ]

scenario 'Revoking a peer ends its push in words, and keeps its copies'
head -c 512M /dev/urandom > "$PHOTOS/big"
sync_photos
before=$(count_copies photos)
(fails 4 'revoked' sendshotctl push nas2:photos) & waiting=$!
wait_for 20 transferred 33554432
sendshotctl --quiet peer revoke nas1 > /dev/null
wait $waiting
fails 4 'revoked' sendshotctl push nas2:photos
[ "$(count_copies photos)" -eq "$before" ]
[ -z "$(sendshotctl --json copy list --partials)" ]
pair --replace
push nas2:photos
same "$PHOTOS" "$COPY"
wait_for 60 idle
nothing_left /srv
rm "$PHOTOS/big"
