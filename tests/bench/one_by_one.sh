#!/bin/sh
# What FlatImage does for each start, without its own overhead: mounts the layers one after another,
# then the overlay, runs the program in bubblewrap, and unmounts.
#
#   one_by_one.sh DIRECTORY MOUNTER 'LAYER …' PROGRAM [WORD …]
#
# MOUNTER LAYER MOUNT-POINT has to come back once the layer is mounted, as FUSE programs do.
set -e
directory=$1 mounter=$2 layers=$3
shift 3

mkdir -p "$directory/upper" "$directory/work" "$directory/merged"
cd "$directory"
number=0 lower=
for layer in $layers; do
	mkdir -p "$number"
	"$mounter" "$layer" "$number"
	lower=$number${lower:+:$lower}
	number=$((number + 1))
done

[ "$(id -u)" = 0 ] && user= bwrap_user= || user='--user --map-root-user' bwrap_user=--unshare-user
# shellcheck disable=SC2016,SC2086 # the inner shell expands; several words are meant
unshare $user --mount --propagation slave sh -c '
	mount -t overlay -o "lowerdir=$1,upperdir=upper,workdir=work,userxattr" overlay merged
	user=$2
	shift 2
	exec bwrap --die-with-parent $user --bind merged / --dev /dev --proc /proc \
		--bind /tmp /tmp --bind /sys /sys -- "$@"
' sh "$lower" "$bwrap_user" "$@" || status=$?

while [ "$number" -gt 0 ]; do
	number=$((number - 1))
	fusermount3 -u "$number"
done
exit "${status:-0}"
