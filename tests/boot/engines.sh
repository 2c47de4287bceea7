# shellcheck shell=bash
# Pushes a tree with every kind of file, whole and changed, by both engines.
set -Eeuo pipefail

scenario 'A full push of every kind of file by the sendshot engine: everything is there, nothing is pinned'
cp -a /usr/share "$PHOTOS/tree"
fill_every_kind "$PHOTOS/every_file_kind"
sync_photos
push nas2:photos
[ "$(reported engine)" = sendshot ]
same "$PHOTOS" "$COPY"
same_flags "$PHOTOS" "$COPY"
same_layout "$COPY" '' zstd lzo zlib
nothing_left /srv

scenario 'An increment by the sendshot engine, with nothing kept but a sendshot'
first=$(reported uuid)
change_every_kind "$PHOTOS/every_file_kind"
rm -r "$PHOTOS/tree/doc"; mv "$PHOTOS/tree" "$PHOTOS/renamed"
sync_photos
push nas2:photos
[ "$(reported parent)" = "$first" ]
same "$PHOTOS" "$COPY"
same_flags "$PHOTOS" "$COPY"
same_layout "$COPY" 2 zstd zlib
nothing_left /srv

scenario "A full push and an increment by the kernel engine"
new_volume kernels /srv/kernels 'pin_parent = true'
fill_every_kind /srv/kernels/every_file_kind
push nas2:kernels
[ "$(reported engine)" = kernel ]
same /srv/kernels "$COPY"
first=$(reported uuid)
change_every_kind /srv/kernels/every_file_kind
push --engine kernel nas2:kernels
[ "$(reported parent)" = "$first" ]
same /srv/kernels "$COPY"
# Only its parent is pinned.
[ "$(btrfs subvolume list /srv | grep -c '\.sendshot/snapshots/')" -eq 1 ]

scenario 'By sendshots from then on: what was pinned goes'
echo more > /srv/kernels/more
push --engine sendshot nas2:kernels
[ "$(reported parent)" != null ]
same /srv/kernels "$COPY"
sendshotctl --quiet forget --yes --all nas2:kernels --break-chain
nothing_left /srv
