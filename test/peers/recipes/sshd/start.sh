#!/bin/bash
# A server of OpenSSH that ends with its namespace. Usage, as root: unshare --mount --pid --fork --kill-child --mount-proc start.sh FOLDER SSHD
# FOLDER has sshd_config; SSHD is the folder of sshd.sh.
set -euo pipefail
folder=$1 sshd=$2
{ grep -v -e '^sshd:' /etc/passwd; echo 'sshd:x:64056:65534::/run/sshd:/bin/false'; } >"$folder/passwd"
mount --bind "$folder/passwd" /etc/passwd
mkdir -p /run/sshd
LD_LIBRARY_PATH=$sshd/lib/x86_64-linux-gnu:$sshd/usr/lib/x86_64-linux-gnu \
  "$sshd/usr/sbin/sshd" -D -f "$folder/sshd_config" -E "$folder/sshd.log" &
wait $!
