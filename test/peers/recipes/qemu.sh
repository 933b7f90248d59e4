# QEMU for x86 machines (GPL) and OVMF, its UEFI firmware (BSD), of the system: unmodified test tools, never shipped.
firmware=/usr/share/OVMF/OVMF_CODE_4M.fd
present() { command -v qemu-system-x86_64 >/dev/null && command -v qemu-img >/dev/null && [ -f "$firmware" ]; }
if ! present; then
  command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] || { echo 'needs qemu-system-x86, qemu-utils and ovmf'; exit 1; }
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -q --no-install-recommends \
    qemu-system-x86 qemu-utils ovmf
fi
# The cache may outlive the system's packages, and these links show it.
for tool in qemu-system-x86_64 qemu-img; do ln -s "$(command -v "$tool")" "$into/$tool"; done
ln -s "$(dirname "$firmware")" "$into/ovmf"
