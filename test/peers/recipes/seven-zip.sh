# 7-Zip (LGPL), unpacked from Debian's package by name: an unmodified test tool, never shipped. It reads VHD and VHDX with their parents.
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || { echo 'needs apt-get and dpkg-deb'; exit 1; }
mkdir "$into/debs"
(cd "$into/debs" && { apt-get download -q 7zip || { apt-get update -q && apt-get download -q 7zip; }; })
for package in "$into"/debs/*.deb; do dpkg-deb -x "$package" "$into/root"; done
ln -s root/usr/bin/7zz "$into/7zz"
"$into/7zz" i | grep -i vhdx
