# shellcheck shell=bash
# Sets up both hosts on one system: disks, users, configuration, units, and pairing by invitation.
set -Eeuo pipefail

ROOT=/srv/backup
PHOTOS=/srv/photos

mount -o noatime "$MAIN" /srv
mkdir /home/second /srv/small
mount -o noatime "$SECOND" /home/second
mount -o noatime,nosuid,nodev "$SMALL" /srv/small
btrfs -q subvolume create "$PHOTOS"
mkdir $ROOT

systemd-sysusers
useradd --groups sendshot member
useradd stranger

configure_receiver() { printf 'root = "%s"\nlisten = "127.0.0.1:7117"\n' "$1" > /etc/sendshot/receiver.toml; }
configure_receiver "$ROOT"
volume photos "$PHOTOS" > /etc/sendshot/sender.toml
# Sets a watchdog that expires within the test, and a short restart delay.
for unit in sender receiver; do
    mkdir -p "/etc/systemd/system/sendshot-$unit.service.d"
    printf '[Service]\nWatchdogSec=2\nRestartSec=1\n' > "/etc/systemd/system/sendshot-$unit.service.d/test.conf"
done
systemctl daemon-reload

scenario 'Both units start, tell systemd so, and give their control sockets to the group'
systemctl enable --quiet --now sendshot-receiver sendshot-sender
for unit in sender receiver; do
    [ "$(stat -c %G-%a "/run/sendshot-$unit/control.sock")" = sendshot-660 ]
done

scenario 'A sender pairs by an invitation'
pair
says 'nas1' sendshotctl peer list
says 'nas2' sendshotctl status

# Prints the exposure of a unit, by its file (which counts implied settings as missing) or as it runs.
exposure() {
    local unit=/usr/local/lib/systemd/system/sendshot-$1.service offline=--offline=yes
    if [ "$2" = runs ]; then unit=sendshot-$1 offline=; fi
    systemd-analyze security --no-pager $offline "$unit" | sed -nE 's/.*exposure level.*: ([0-9]+\.[0-9]).*/\1/p'
}
exposed_at_most() {
    for how in file runs; do
        figure=$(exposure "$1" $how)
        [ "${figure/./}" -le "${2/./}" ] || die "$1: $figure"
    done
}
scenario "Exposure: receiver $(exposure receiver file), as it runs $(exposure receiver runs), at most 3.5; \
sender $(exposure sender file), as it runs $(exposure sender runs), at most 4.0"
exposed_at_most receiver 3.5
exposed_at_most sender 4.0

# Print the capabilities that a unit's file leaves to its daemon, and those that the daemon has.
capabilities() { sed -n 's/^CapabilityBoundingSet=//p' "/usr/local/lib/systemd/system/sendshot-$1.service" | tr 'A-Z ' 'a-z\n' | sort; }
held() { capsh --decode="$(awk '/^CapBnd:/ { print $2 }' "/proc/$1/status")" | sed 's/.*=//' | tr , '\n' | sort; }

scenario 'What the units restrict is in force for the daemons'
for unit in sender receiver; do
    pid=$(systemctl show -P MainPID "sendshot-$unit")
    [ "$(held "$pid")" = "$(capabilities "$unit")" ] || die "the $unit has $(held "$pid")"
    grep -qP '^NoNewPrivs:\t1' "/proc/$pid/status"
    # 2 means a filter of system calls.
    grep -qP '^Seccomp:\t2' "/proc/$pid/status"
    [ "$(readlink "/proc/$pid/ns/mnt")" != "$(readlink /proc/self/ns/mnt)" ]
    fails 1 'read-only' nsenter --target "$pid" --mount mkdir /sys/fs/cgroup/sendshot
done
fails 1 'read-only' nsenter --target "$(systemctl show -P MainPID sendshot-receiver)" --mount touch /usr/file
