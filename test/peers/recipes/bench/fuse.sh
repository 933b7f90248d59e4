# fusermount3 and fusermount (GPL) of the system: what restic and rclone mount with. Unmodified, never shipped.
if ! command -v fusermount3 >/dev/null; then
  command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] || { echo 'needs fuse3'; exit 1; }
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -q --no-install-recommends fuse3
fi
[ -c /dev/fuse ] || { echo 'needs /dev/fuse'; exit 1; }
for tool in fusermount3 fusermount; do ln -s "$(command -v "$tool")" "$into/$tool"; done
