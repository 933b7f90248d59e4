# SoftHSM 2 (BSD), a token in software, and pkcs11-tool of OpenSC (LGPL), of the system: unmodified, never shipped.
tools='softhsm2-util pkcs11-tool'
present() { for tool in $tools; do command -v "$tool" >/dev/null || return 1; done; }
if ! present; then
  command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] || { echo 'needs softhsm2 and opensc'; exit 1; }
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends softhsm2 opensc
fi
# The cache may outlive the system's packages, and these links show it.
for tool in $tools; do ln -s "$(command -v "$tool")" "$into/$tool"; done
for module in /usr/lib/softhsm/libsofthsm2.so /usr/lib64/pkcs11/libsofthsm2.so; do
  [ -f "$module" ] && ln -sf "$module" "$into/libsofthsm2.so"
done
[ -f "$into/libsofthsm2.so" ] || { echo 'the library of SoftHSM is not where distributions put it'; exit 1; }
