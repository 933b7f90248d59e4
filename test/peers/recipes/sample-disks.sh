# Sample disk images that Windows and Virtual PC wrote, out of QEMU's source package (tests/qemu-iotests/sample_images, GPL): read by the tests, never shipped.
command -v apt-get >/dev/null && command -v bunzip2 >/dev/null && command -v tar >/dev/null || { echo 'needs apt-get, bzip2 and tar'; exit 1; }
mkdir -p "$into/apt/sources" "$into/apt/lists/partial" "$into/source"
# The system's own sources, asked for source packages: nothing of the system's configuration changes.
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
  [ -f "$file" ] && sed 's/^deb /deb-src /' "$file" >"$into/apt/sources/$(basename "$file")"
done
for file in /etc/apt/sources.list.d/*.sources; do
  [ -f "$file" ] && sed 's/^Types:.*/Types: deb-src/' "$file" >"$into/apt/sources/$(basename "$file")"
done
own() { apt-get -q -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$into/apt/sources" -o Dir::State::Lists="$into/apt/lists" "$@"; }
own update
(cd "$into/source" && own source --download-only --tar-only qemu)
tar -xf "$into"/source/qemu_*.orig.tar.* -C "$into" --wildcards --strip-components=4 '*/tests/qemu-iotests/sample_images/*vh*.bz2'
rm -rf "$into/source" "$into/apt"
bunzip2 "$into"/*.bz2
# They are mostly zeros.
for image in "$into"/*.vh*; do cp --sparse=always "$image" "$image.sparse" && mv "$image.sparse" "$image"; done
[ -f "$into/iotest-dirtylog-10G-4M.vhdx" ]
