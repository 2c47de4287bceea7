# shellcheck shell=bash
# A tree with every kind of file that a file system can hold, a change of everything in it, and the layout
# that its data must have in a copy.
set -Eeuo pipefail

# Writes a file of incompressible data, of a size in KiB.
noise() { head -c "$2K" /dev/urandom > "$1"; }

fill_every_kind() (
    mkdir "$1"; cd "$1"
    echo regular > regular; : > empty
    truncate -s 1G sparse; echo end >> sparse
    noise holes 1024; fallocate -p -o 65536 -l 65536 holes
    echo one > hard; mkdir links; ln hard links/two; ln hard links/three
    ln -s /nowhere dangling; ln -s regular relative; chown -h 33:4 relative
    mkfifo -m 640 fifo
    perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0) and bind(S, sockaddr_un("socket")) or die $!'
    mknod -m 620 char c 1 3; mknod block b 7 99; mknod whiteout c 0 0; chown 7:8 block
    echo x > setuid; chown 33:4 setuid; chmod 6755 setuid; mkdir -m 3777 sticky; echo x > shut; chmod 0 shut
    chown 4294967294:65534 sticky
    echo x > xattrs
    setfattr -n user.a -v 1 xattrs; setfattr -n user.empty xattrs
    setfattr -n trusted.b -v 2 xattrs; setfattr -n security.test -v 3 xattrs
    setfattr -h -n trusted.of_a_link -v 4 dangling
    cp /bin/true capable; chown 1000:1000 capable; setcap cap_net_raw,cap_net_admin+ep capable
    echo x > acl; setfacl -m u:33:rw,g:4:r acl; mkdir acls; setfacl -d -m g:4:rx acls; echo x > acls/heir
    mkdir names; cd names
    for name in $'not \xff\xfe UTF-8' $'\x80' ' ' $'new\nline' 'back\slash' -rf '☃' "$(printf 'n%.0s' {1..255})"; do
        echo "$name" > "./$name"
    done
    cd ..
    noise original 2048; cp --reflink=always original clone
    fallocate -l 4M reserved; echo x > reserved-beyond; fallocate -n -l 4M reserved-beyond
    mkdir nodatacow; chattr +C nodatacow; noise nodatacow/image 1024
    for method in zstd lzo zlib; do
        mkdir $method; btrfs property set $method compression $method
        seq 200000 > $method/text
    done
    touch -d '1969-01-01 00:00:00.123456789' regular; touch -a -d '2100-01-01 00:00:00.000000001' empty
    # In this order, because each flag forbids the steps before it.
    echo x > append; chattr +a append; mkdir append.d; echo x > append.d/x; chattr +a append.d
    mkdir immutable.d; echo x > immutable.d/x; chattr +d immutable.d/x; chattr +i immutable.d/x immutable.d
    noise immutable 300; chattr +iA immutable
)

change_every_kind() (
    cd "$1"
    rm whiteout fifo; echo 'in the place of a fifo' > fifo
    mknod whiteout b 7 98; chown 9:9 char; chmod 600 block
    echo more >> sparse; noise holes 512
    rm links/two; echo other > links/two; mv links/three links/moved
    chmod 4711 setuid; chown 1:1 setuid; chown 34:5 sticky
    setfattr -x user.a xattrs; setfattr -n user.empty -v full xattrs; setfattr -n security.test -v 4 xattrs
    echo change >> capable; setcap cap_chown+ep shut; setfacl -x u:33 acl; setfacl -k acls
    mv $'names/not \xff\xfe UTF-8' $'names/\xfe'; rm names/-rf
    noise clone 64; cp --reflink=always original clone2
    dd if=/dev/urandom of=nodatacow/image bs=64K count=1 seek=3 conv=notrunc status=none
    seq 300000 >> zstd/text; rm lzo/text
    echo more >> append; chattr -i immutable; echo more >> immutable; chattr +ia immutable
    chattr -i immutable.d; echo new > immutable.d/new; chattr +i immutable.d/new immutable.d
)

# Prints the address of the first extent of a file.
physical() { filefrag -v "$1" | awk '$1 == "0:" { sub(/\.\..*/, "", $4); print $4 }'; }
# Asserts that data of the tree with a special layout has that layout in a copy, too. $2 ends the name of a
# clone, and the further arguments are the compressions in use.
same_layout() {
    local at=$1/every_file_kind method
    [ -n "$(physical "$at/original")" ]
    [ "$(physical "$at/original")" = "$(physical "$at/clone$2")" ] || die "the reflink is no more"
    [ "$(stat -c %b "$at/sparse")" -lt 100 ] || die "the sparse file is full"
    [ "$(stat -c %b "$at/reserved")" -ge 8192 ] || die "the reservation is gone"
    [ "$(stat -c %b "$at/reserved-beyond")" -ge 8000 ] || die "the reservation beyond the end is gone"
    filefrag -v "$at/reserved" | grep unwritten > /dev/null || die "the reservation is written"
    for method in "${@:3}"; do
        compsize "$at/$method/text" | grep -w "$method" > /dev/null || die "$method became something else"
    done
}
