# Run by mmdebstrap in the base's root ($1), once for each image: installs $packages in a copy of it, runs $setup
# there, and writes what has changed to $1/tmp/$tag.tar, a layer.
set -eu
root=$1
copy=$1.$tag
trap 'umount --lazy "$copy/dev" "$copy/sys" "$copy/proc" || true; rm -rf --one-file-system "$copy" "$copy.stamp"' EXIT
mkdir --mode=755 "$copy"
for entry in "$root"/*; do
    case ${entry##*/} in
    # Not copied: an ordinary user's namespace has the machine's device nodes there, and cannot make any.
    dev | proc | sys) mkdir "$copy/${entry##*/}" && mount --rbind "$entry" "$copy/${entry##*/}" ;;
    *) cp --archive --one-file-system "$entry" "$copy" ;;
    esac
done
printf '#!/bin/sh\nexit 101\n' >"$copy/usr/sbin/policy-rc.d"
chmod 755 "$copy/usr/sbin/policy-rc.d"

# All that changes from here on has a later change time, whatever modification time dpkg gives it. The change
# time advances by the kernel's clock tick: two ticks make the border sharp.
touch "$copy.stamp"
sleep 0.1
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
chroot "$copy" apt-get --yes --quiet=2 --no-install-recommends install $packages
chroot "$copy" sh -euc "$setup"

# No whiteouts are made: a package that removes a file of the base is an error here.
list() { (cd "$1" && find . -xdev \( -path ./tmp -o -path ./run -o -path ./var/cache -o -path ./dev -o -path ./proc -o -path ./sys \) -prune -o -print | sort); }
list "$root" >"$root/tmp/before"
list "$copy" >"$root/tmp/after"
gone=$(comm -23 "$root/tmp/before" "$root/tmp/after")
rm "$root/tmp/before" "$root/tmp/after"
if [ -n "$gone" ]; then echo "the layer of $tag removes files of the base: $gone" >&2; exit 1; fi

cd "$copy"
find . -mindepth 1 -xdev \
    \( -path ./dev -o -path ./proc -o -path ./sys -o -path ./tmp -o -path ./var/cache -o -path ./var/lib/apt \
       -o -path ./usr/sbin/policy-rc.d -o -path './var/lib/dpkg/*-old' -o \( -path './var/log/*' -type f \) \) -prune \
    -o -cnewer "$copy.stamp" -print0 |
    LC_ALL=C sort --zero-terminated |
    tar --create --file="$root/tmp/$tag.tar" --format=pax --pax-option=delete=atime,delete=ctime --numeric-owner \
        --mtime="@$SOURCE_DATE_EPOCH" --clamp-mtime --xattrs --xattrs-include='security.*' \
        --no-recursion --null --files-from=-
