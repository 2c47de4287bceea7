# shellcheck shell=bash
# Lets years pass, by a library between the daemons and the clock.
set -Eeuo pipefail

scenario 'Certificates renew themselves in the last third of their lives'
new_volume years /srv/years
for unit in sender receiver; do
    drop_in "$unit" <<'CONF'
[Service]
Environment=LD_PRELOAD=/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1
Environment=FAKETIME_TIMESTAMP_FILE=/run/clock FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1
CONF
done
echo +0 > /run/clock
restart receiver sender
renewed() { ! cmp -s /root/first /etc/sendshot/receivers.d/nas2.toml; }
cp /etc/sendshot/receivers.d/nas2.toml /root/first
push nas2:years
if renewed; then die "it was renewed for nothing"; fi
# A sender's certificate lasts five years.
echo +4y > /run/clock
push nas2:years
wait_for 5 renewed
# The first certificate would have expired, and the receiver's own is in its last third.
echo +7y > /run/clock
echo later > /srv/years/later
push nas2:years
same /srv/years "$COPY"

scenario 'Clocks that were wrong by years are named as the reason, and pairing again is the way out'
rm /run/clock
no_drop_ins
restart receiver sender
fails 4 'clock' sendshotctl push nas2:years
pair --replace
push nas2:years
same /srv/years "$COPY"
