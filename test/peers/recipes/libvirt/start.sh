#!/bin/bash
# libvirtd with a configuration, a state and processes of its own: everything it knows is in FOLDER, and everything that
# it started ends with it. Usage, as root: unshare --mount --pid --fork --kill-child --mount-proc start.sh FOLDER [SSHD]
# With SSHD, the folder of sshd.sh, a server with FOLDER/sshd_config lets others in from outside, as from another host.
set -euo pipefail
folder=$1 sshd=${2:-}
mkdir -p "$folder"/{run,etc,lib,cache,log} /run/libvirt /etc/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt
# As Debian sets it up, without what needs systemd, cgroups or AppArmor: QEMU runs as a user of its own, who owns its images.
cat >"$folder/etc/qemu.conf" <<'END'
user = "libvirt-qemu"
group = "libvirt-qemu"
dynamic_ownership = 1
remember_owner = 0
cgroup_controllers = [ ]
namespaces = [ ]
stdio_handler = "file"
max_core = 0
END
cat >"$folder/etc/libvirtd.conf" <<END
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_rw_perms = "0700"
log_level = 3
log_outputs = "3:file:$folder/libvirtd.log"
END
{ grep -v -e '^libvirt-qemu:' -e '^sshd:' /etc/passwd; echo 'libvirt-qemu:x:64055:64055::/:/bin/false'
  echo 'sshd:x:64056:65534::/run/sshd:/bin/false'; } >"$folder/passwd"
{ grep -v '^libvirt-qemu:' /etc/group; echo 'libvirt-qemu:x:64055:'; } >"$folder/group"
mount --bind "$folder/passwd" /etc/passwd
mount --bind "$folder/group" /etc/group
mount --bind "$folder/run" /run/libvirt
mount --bind "$folder/etc" /etc/libvirt
mount --bind "$folder/lib" /var/lib/libvirt
mount --bind "$folder/cache" /var/cache/libvirt
mount --bind "$folder/log" /var/log/libvirt
if [ -n "$sshd" ]; then
  mkdir -p /run/sshd
  LD_LIBRARY_PATH=$sshd/lib/x86_64-linux-gnu:$sshd/usr/lib/x86_64-linux-gnu \
    "$sshd/usr/sbin/sshd" -f "$folder/sshd_config" -E "$folder/sshd.log"
fi
libvirtd -f /etc/libvirt/libvirtd.conf -p "$folder/pid" &
# This shell is the first process of its kind here, and takes leave of those whose parents have gone.
wait $!
