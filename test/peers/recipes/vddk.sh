# nbdkit and its VDDK plugin (BSD) from Debian 13, for Debian 12 has the plugin not, and our stand-in for the library
# that the plugin loads, which is VMware's and may not be passed on. Unmodified test tools but for the stand-in, never
# shipped. debootstrap needs root, and so does $into/nbdkit, which shows Debian 13's /usr to this one process only.
[ "$(id -u)" = 0 ] || { echo 'needs root, for debootstrap'; exit 1; }
command -v apt-get >/dev/null && command -v unshare >/dev/null || { echo 'needs apt-get and unshare'; exit 1; }
command -v gcc >/dev/null || { echo 'needs gcc, with libc6-dev'; exit 1; }
command -v debootstrap >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 \
  install -y -q --no-install-recommends debootstrap
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The mirror that this system itself uses.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -E '/debian/?$' | head -n 1)
[ -n "$mirror" ] || { echo 'needs a mirror of Debian among the sources of apt'; exit 1; }
debootstrap --variant=minbase --components=main,contrib --include=nbdkit,nbdkit-plugin-vddk trixie "$work/root" "$mirror"
mv "$work/root/usr" "$into/usr"
cat >"$into/nbdkit" <<END
#!/bin/sh
# A mount that only this process sees: all else, sockets and images above all, stays as it is.
exec unshare --mount --propagation private sh -c 'mount --bind $into/usr /usr && exec /usr/bin/nbdkit "\$@"' nbdkit "\$@"
END
chmod 755 "$into/nbdkit"

mkdir -p "$into/vddk/lib64"
gcc -shared -fPIC -O2 -Wall -Wextra -Werror -fvisibility=hidden -pthread -I "$parts" \
  -o "$into/vddk/lib64/libvixDiskLib.so.8" "$parts/stand-in.c"
# A plugin that can't load it fails here, not in a test.
"$into/nbdkit" vddk --dump-plugin libdir="$into/vddk" | grep -E '^(version|vddk_)'
