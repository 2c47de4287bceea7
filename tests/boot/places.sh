# shellcheck shell=bash
# More than one file system: volumes below /home, and a receiver's root that is full, read-only, or
# not mounted.
set -Eeuo pipefail

scenario 'Two volumes of one host at once, in different file systems, one of which belongs to a user'
chown member: /home/second
chmod 700 /home/second
new_volume music /home/second/music
cp -a /usr/lib /home/second/music/lib
head -c 100M /dev/urandom > "$PHOTOS/more"
for method in zstd lzo zlib; do
    mount -o "remount,compress-force=$method" /home/second
    seq 200000 > "/home/second/music/$method"
    sync -f /home/second
done
(sendshotctl --json push nas2:music > /run/music) & waiting=$!
push nas2:photos
wait $waiting
same "$PHOTOS" "$COPY"
music=$ROOT/$(jq -r .copy /run/music)
same /home/second/music "$music"
for method in zstd lzo zlib; do
    compsize "$music/$method" | grep -w $method > /dev/null || die "$method became something else"
done
nothing_left /srv
nothing_left /home/second
echo more > /home/second/music/more; rm "$PHOTOS/more"
sendshotctl --quiet push nas2:photos nas2:music > /dev/null

# Gives the receiver a root of its own, on a small disk mounted as the README advises.
scenario 'A full receiver is told as such, nothing is half done, and with space the push goes on'
new_volume books /srv/books
echo x > /srv/books/file
mkdir -m 700 /srv/small/backup
ROOT=/srv/small/backup
configure_receiver "$ROOT"
restart receiver sender
push nas2:books
same /srv/books "$COPY"
first=$(reported uuid)
head -c 60M /dev/urandom > /srv/books/big
# Fills the disk until not even 4 KiB are left.
fill_up() {
    for size in 1M 4K; do
        while dd if=/dev/zero bs=$size count=64 status=none >> /srv/small/filler 2>/dev/null; do :; done
        sync -f /srv/small
    done
}
fill_up
before=$(sendshotctl --json copy list)
fails 1 'receiver.*full' sendshotctl push nas2:books
says 'is full' journalctl -u sendshot-receiver --no-pager -n 20
[ "$(sendshotctl --json copy list)" = "$before" ]
rm /srv/small/filler
sync -f /srv/small
push nas2:books
[ "$(reported parent)" = "$first" ]
same /srv/books "$COPY"
nothing_left /srv

scenario 'A read-only root is told as such, and works again when it is writable'
echo more > /srv/books/more
mount -o remount,ro,nosuid,nodev /srv/small
fails 1 'read-only' sendshotctl push nas2:books
mount -o remount,rw,nosuid,nodev /srv/small
push nas2:books
same /srv/books "$COPY"

scenario 'The directory below a root that is not mounted is not taken for it'
umount /srv/small
mkdir -m 700 /srv/small/backup
fails 1 'not.*mounted|mark' sendshotctl push nas2:books
[ -z "$(ls -A /srv/small/backup)" ]
rmdir /srv/small/backup
mount -o noatime,nosuid,nodev "$SMALL" /srv/small
echo mounted > /srv/books/mounted
push nas2:books
same /srv/books "$COPY"
ROOT=/srv/backup
configure_receiver "$ROOT"
restart receiver
