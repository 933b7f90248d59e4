# How a disk that boots by itself is put together from Debian packages, without root and without a mount.
# To be sourced; uses $parts and $work, and sets $kernel_modules.

depends() { apt-cache depends "$1" | awk '/^ *\|?Depends: [^<]/ { print $2 }'; }

unpack() { # FOLDER PACKAGE…
  local folder=$work/$1 package
  shift
  mkdir -p "$folder/debs"
  (cd "$folder/debs" && apt-get download -q "$@")
  for package in "$folder"/debs/*.deb; do dpkg-deb -x "$package" "$folder"; done
}

# Into $work/kernel and $work/tools.
fetch_boot_parts() {
  local kernel
  kernel=$(depends linux-image-cloud-amd64 | grep -m 1 '^linux-image-' || true)
  [ -n "$kernel" ] || { apt-get update -q; kernel=$(depends linux-image-cloud-amd64 | grep -m 1 '^linux-image-'); }
  unpack kernel "$kernel"
  unpack tools busybox-static syslinux syslinux-common syslinux-efi mtools
  kernel_modules=$(echo "$work"/kernel/lib/modules/*/kernel)
}

# The initial memory disk, $work/initrd.gz: drivers of the root disk, then over to it.
make_initrd() {
  local early=$work/early module
  mkdir -p "$early"/{bin,dev,proc,sys,newroot,m}
  cp "$work/tools/bin/busybox" "$early/bin/"
  ln -s busybox "$early/bin/sh"
  for module in virtio/virtio virtio/virtio_ring virtio/virtio_pci_legacy_dev virtio/virtio_pci_modern_dev \
    virtio/virtio_pci block/virtio_blk; do
    cp "$kernel_modules/drivers/$module.ko" "$early/m/"
  done
  cp "$parts/early-init" "$early/init"
  chmod 755 "$early/init"
  (cd "$early" && find . | "$work/tools/bin/busybox" cpio -o -H newc | gzip -1) >"$work/initrd.gz"
}

le32() { local hex; printf -v hex '%08x' "$1"; printf '%b' "\\x${hex:6:2}\\x${hex:4:2}\\x${hex:2:2}\\x${hex:0:2}"; }
entry() { printf '%b' "\\x$1\xfe\xff\xff\\x$2\xfe\xff\xff"; le32 "$3"; le32 "$4"; }

# Partition table by hand (16 bytes each), FAT of 24 MiB at 1 MiB, ext4 behind it.
pack_disk() { # ROOT_TREE DISK SIZE_MIB
  local root=$1 disk=$2 size=$3 mib=1048576 boot=24
  local after=$((size - 1 - boot))
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
  mke2fs -q -t ext4 -b 4096 -L guest -d "$root" \
    -E "offset=$(((boot + 1) * mib)),root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0" "$disk" "${after}M"
  dd if="$work/tools/usr/lib/syslinux/mbr/mbr.bin" of="$disk" bs=440 count=1 conv=notrunc status=none
  {
    entry 80 0e 2048 $((boot * 2048))
    entry 00 83 $(((boot + 1) * 2048)) $((after * 2048))
    head -c 32 /dev/zero
    printf '\x55\xaa'
  } | dd of="$disk" bs=1 seek=446 conv=notrunc status=none
}
