# A small guest that boots by itself, with BIOS (SYSLINUX) or UEFI: Debian's own kernel, busybox, e2fsprogs and
# qemu-guest-agent (GPL), unpacked from packages by name. Nothing is installed, nothing is mounted, no root is needed:
# mtools and mke2fs write into the image file. Result: $into/guest.raw, 96 MiB, FAT boot partition and ext4 root.
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || { echo 'needs apt-get and dpkg-deb'; exit 1; }
compiler=$(command -v gcc || command -v tcc) || { echo 'needs gcc or tcc, with libc6-dev'; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. "$parts/boot-disk.bash"
fetch_boot_parts
libraries=$(for package in qemu-guest-agent e2fsprogs $(depends qemu-guest-agent); do depends "$package"; done |
  grep '^lib' | grep -v -e '^libglib2.0-data' -e '^libc6$' | sort -u)
unpack programs qemu-guest-agent e2fsprogs $libraries

root=$work/root
mkdir -p "$root"/{bin,sbin,dev,proc,sys,tmp,run,etc,data,m,var/log,lib64,lib/x86_64-linux-gnu}
ln -s ../run "$root/var/run"
busybox=$work/tools/bin/busybox
cp "$busybox" "$root/bin/"
for applet in $("$busybox" --list); do
  case $applet in busybox | mke2fs | mkfs.ext2 | init) ;; *) ln -s busybox "$root/bin/$applet" ;; esac
done
# Network drivers are there for the guests that get a network; the cloud kernel has all of them as modules.
for module in drivers/char/virtio_console net/core/failover drivers/net/net_failover drivers/net/virtio_net; do
  cp "$kernel_modules/$module.ko" "$root/m/"
done

cp "$work/programs/usr/sbin/qemu-ga" "$root/bin/"
cp "$work"/programs/sbin/mke2fs "$work"/programs/sbin/resize2fs "$root/sbin/"
ln -s mke2fs "$root/sbin/mkfs.ext4"
cp "$work/programs/etc/mke2fs.conf" "$root/etc/"
"$compiler" -O1 -o "$root/bin/writer" "$parts/writer.c"
# What they link to: from the packages, and what is part of every Debian system from the system.
for program in "$root"/bin/{qemu-ga,writer} "$root"/sbin/{mke2fs,resize2fs}; do
  LD_LIBRARY_PATH=$work/programs/usr/lib/x86_64-linux-gnu:$work/programs/lib/x86_64-linux-gnu ldd "$program"
done >"$work/links"
! grep 'not found' "$work/links" || exit 1
awk '$2 == "=>" { print $3 }' "$work/links" | sort -u | xargs -I{} cp -L {} "$root/lib/x86_64-linux-gnu/"
cp -L /lib64/ld-linux-x86-64.so.2 "$root/lib64/"

cp "$parts/init" "$root/sbin/init"
chmod 755 "$root/sbin/init"
echo guest >"$root/etc/hostname"
echo 'root::0:0:root:/:/bin/sh' >"$root/etc/passwd"
printf 'PRETTY_NAME="Failkit test guest"\nNAME=failkit-guest\nID=failkit-guest\nVERSION_ID=1\n' >"$root/etc/os-release"

make_initrd
pack_disk "$root" "$work/guest.raw" 96
mv "$work/guest.raw" "$into/guest.raw"
