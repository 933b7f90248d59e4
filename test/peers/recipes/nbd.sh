# qemu-nbd, qemu-img, qemu-io (GPL), nbdkit (BSD), nbdcopy, nbdinfo (LGPL), of the system: unmodified test tools, never shipped.
tools='qemu-nbd qemu-img qemu-io nbdkit nbdcopy nbdinfo'
present() { for tool in $tools; do command -v "$tool" >/dev/null || return 1; done; }
if ! present; then
  command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] || { echo 'needs qemu-utils, nbdkit and libnbd-bin'; exit 1; }
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends qemu-utils nbdkit libnbd-bin
fi
# The cache may outlive the system's packages, and these links show it.
for tool in $tools; do ln -s "$(command -v "$tool")" "$into/$tool"; done
