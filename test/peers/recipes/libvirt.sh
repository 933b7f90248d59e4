# libvirtd and virsh (LGPL) of the system, without systemd, dbus or polkit: unmodified test tools, never shipped.
# The tests start instances of their own, each in a folder of its own; the host's configuration stays as it is.
tools='libvirtd virsh qemu-system-x86_64 qemu-img'
present() { for tool in $tools; do command -v "$tool" >/dev/null || return 1; done; }
if ! present; then
  command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] || { echo 'needs libvirt-daemon, libvirt-daemon-driver-qemu, libvirt-clients and qemu-system-x86'; exit 1; }
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
    libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients qemu-system-x86 qemu-utils
fi
# The cache may outlive the system's packages, and these links show it.
for tool in $tools; do ln -s "$(command -v "$tool")" "$into/$tool"; done
