# OpenSSH's server (BSD), unpacked from packages by name: nothing is installed, and no service is started.
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || { echo 'needs apt-get and dpkg-deb'; exit 1; }
command -v ssh >/dev/null && command -v ssh-keygen >/dev/null || { echo 'needs openssh-client'; exit 1; }
mkdir "$into/debs"
(cd "$into/debs" && { apt-get download -q openssh-server libwrap0 || { apt-get update -q && apt-get download -q openssh-server libwrap0; }; })
for package in "$into"/debs/*.deb; do dpkg-deb -x "$package" "$into/root"; done
LD_LIBRARY_PATH=$into/root/lib/x86_64-linux-gnu:$into/root/usr/lib/x86_64-linux-gnu "$into/root/usr/sbin/sshd" -V 2>&1 | grep OpenSSH
