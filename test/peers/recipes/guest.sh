# A small guest that boots by itself, with BIOS (SYSLINUX) or UEFI: Debian's own kernel, busybox, e2fsprogs and
# qemu-guest-agent (GPL), unpacked from packages by name. Nothing is installed, nothing is mounted, no root is needed:
# mtools and mke2fs write into the image file. Result: $into/guest.raw, 96 MiB, FAT boot partition and ext4 root.
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || { echo 'needs apt-get and dpkg-deb'; exit 1; }
compiler=$(command -v gcc || command -v tcc) || { echo 'needs gcc or tcc, with libc6-dev'; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

depends() { apt-cache depends "$1" | awk '/^ *\|?Depends: [^<]/ { print $2 }'; }
kernel=$(depends linux-image-cloud-amd64 | grep -m 1 '^linux-image-' || true)
[ -n "$kernel" ] || { apt-get update -q; kernel=$(depends linux-image-cloud-amd64 | grep -m 1 '^linux-image-'); }

unpack() { # FOLDER PACKAGE…
  local folder=$work/$1
  shift
  mkdir -p "$folder/debs"
  (cd "$folder/debs" && apt-get download -q "$@")
  for package in "$folder"/debs/*.deb; do dpkg-deb -x "$package" "$folder"; done
}
unpack kernel "$kernel"
unpack tools busybox-static syslinux syslinux-common syslinux-efi mtools
libraries=$(for package in qemu-guest-agent e2fsprogs $(depends qemu-guest-agent); do depends "$package"; done |
  grep '^lib' | grep -v -e '^libglib2.0-data' -e '^libc6$' | sort -u)
unpack programs qemu-guest-agent e2fsprogs $libraries

root=$work/root
modules=$(echo "$work"/kernel/lib/modules/*/kernel)
mkdir -p "$root"/{bin,sbin,dev,proc,sys,tmp,run,etc,data,m,var/log,lib64,lib/x86_64-linux-gnu}
ln -s ../run "$root/var/run"
busybox=$work/tools/bin/busybox
cp "$busybox" "$root/bin/"
for applet in $("$busybox" --list); do
  case $applet in busybox | mke2fs | mkfs.ext2 | init) ;; *) ln -s busybox "$root/bin/$applet" ;; esac
done
cp "$modules/drivers/char/virtio_console.ko" "$root/m/"
# Network drivers are there for the guests that get a network; the cloud kernel has all of them as modules.
for module in net/core/failover drivers/net/net_failover drivers/net/virtio_net; do
  cp "$modules/$module.ko" "$root/m/"
done

cp "$work/programs/usr/sbin/qemu-ga" "$root/bin/"
cp "$work"/programs/sbin/mke2fs "$work"/programs/sbin/resize2fs "$root/sbin/"
ln -s mke2fs "$root/sbin/mkfs.ext4"
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
cp "$work/programs/etc/mke2fs.conf" "$root/etc/"

early=$work/early
mkdir -p "$early"/{bin,dev,proc,sys,newroot,m}
cp "$busybox" "$early/bin/"
ln -s busybox "$early/bin/sh"
for module in virtio/virtio virtio/virtio_ring virtio/virtio_pci_legacy_dev virtio/virtio_pci_modern_dev \
  virtio/virtio_pci block/virtio_blk; do
  cp "$modules/drivers/$module.ko" "$early/m/"
done
cp "$parts/early-init" "$early/init"
chmod 755 "$early/init"
(cd "$early" && find . | "$busybox" cpio -o -H newc | gzip -1) >"$work/initrd.gz"

# The disk: partition table by hand (16 bytes each), FAT at 1 MiB, ext4 behind it.
disk=$work/guest.raw mib=1048576 size=96 boot=24
after=$((size - 1 - boot))
truncate -s "${size}M" "$disk"
export MTOOLS_SKIP_CHECK=1 MTOOLSRC=/dev/null PATH=$work/tools/usr/bin:$PATH
mformat -i "$disk@@1M" -T $((boot * 2048)) -h 64 -s 32 -H 2048 -v BOOT ::
copy() { mcopy -i "$disk@@1M" "$1" "::$2"; }
copy "$work"/kernel/boot/vmlinuz-* /vmlinuz
copy "$work/initrd.gz" /initrd.gz
copy "$parts/syslinux.cfg" /syslinux.cfg
mmd -i "$disk@@1M" ::/EFI ::/EFI/BOOT
copy "$work/tools/usr/lib/SYSLINUX.EFI/efi64/syslinux.efi" /EFI/BOOT/BOOTX64.EFI
copy "$work/tools/usr/lib/syslinux/modules/efi64/ldlinux.e64" /EFI/BOOT/ldlinux.e64
copy "$parts/syslinux.cfg" /EFI/BOOT/syslinux.cfg
syslinux --offset $mib --install "$disk"
mke2fs -q -t ext4 -b 4096 -L guest -E "offset=$(((boot + 1) * mib)),root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0" \
  -d "$root" "$disk" "${after}M"
dd if="$work/tools/usr/lib/syslinux/mbr/mbr.bin" of="$disk" bs=440 count=1 conv=notrunc status=none
le32() { local hex; printf -v hex '%08x' "$1"; printf '%b' "\\x${hex:6:2}\\x${hex:4:2}\\x${hex:2:2}\\x${hex:0:2}"; }
entry() { printf '%b' "\\x$1\xfe\xff\xff\\x$2\xfe\xff\xff"; le32 "$3"; le32 "$4"; }
{
  entry 80 0e 2048 $((boot * 2048))
  entry 00 83 $(((boot + 1) * 2048)) $((after * 2048))
  head -c 32 /dev/zero
  printf '\x55\xaa'
} | dd of="$disk" bs=1 seek=446 conv=notrunc status=none
mv "$disk" "$into/guest.raw"
