# shellcheck shell=bash
# Runs last, because it takes the disk away.
set -Eeuo pipefail

scenario 'Nothing keeps a disk busy while no push is running'
push nas2:photos
holders() {
    for unit in sender receiver; do
        grep -l " $1 .* btrfs " "/proc/$(systemctl show -P MainPID "sendshot-$unit")/mountinfo" || true
    done
}
# Each daemon has its own mount namespace: a file system that the host unmounts must be unmounted there, too.
[ "$(holders /srv | wc -l)" -eq 2 ] || die "the daemons do not see the disk"
umount /srv/small
umount /srv
[ -z "$(holders /srv)" ] || die "a daemon keeps the disk mounted"
# Opening a block device exclusively fails while it is in use.
perl -MFcntl -e 'sysopen(F, $ARGV[0], O_RDONLY | O_EXCL) or die "$!\n"' "$MAIN" || die "the disk is in use"
