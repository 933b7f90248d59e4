# A whole Debian with systemd, udev and the guest agent, on a disk that is laid out as the small guest's. debootstrap
# needs root. Result: $into/debian.raw, 700 MiB.
[ "$(id -u)" = 0 ] || { echo 'needs root, for debootstrap'; exit 1; }
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || { echo 'needs apt-get and dpkg-deb'; exit 1; }
command -v debootstrap >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 \
  install -y -q --no-install-recommends debootstrap
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. "$parts/boot-disk.bash"
fetch_boot_parts
root=$work/root
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
debootstrap --variant=minbase --include=systemd-sysv,udev,dbus,qemu-guest-agent,kmod "$release" "$root"

rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
sed -i 's/^root:[^:]*:/root::/' "$root/etc/shadow"
echo debian-guest >"$root/etc/hostname"
echo '/dev/vda2 / ext4 defaults 0 1' >"$root/etc/fstab"
version=$(basename "$(dirname "$kernel_modules")")
mkdir -p "$root/lib/modules/$version"
cp -a "$work/kernel/lib/modules/$version/." "$root/lib/modules/$version/"
find "$root/lib/modules" -name '*.ko' | grep -v -E 'virtio|failover|fuse|pvpanic' | xargs rm -f
chroot "$root" depmod "$version"
printf 'virtio_console\nvirtio_net\n' >"$root/etc/modules-load.d/guest.conf"
install -m 755 "$parts/serial-shell" "$root/usr/local/sbin/serial-shell"
install -m 644 "$parts/serial-shell.service" "$root/etc/systemd/system/"
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -s ../serial-shell.service "$root/etc/systemd/system/multi-user.target.wants/"
ln -s /dev/null "$root/etc/systemd/system/serial-getty@ttyS0.service"

make_initrd
pack_disk "$root" "$work/debian.raw" 700
mv "$work/debian.raw" "$into/debian.raw"
