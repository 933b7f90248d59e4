# A backup program to compare with; its C parts are compiled here.
command -v python3 >/dev/null || { echo 'python3 is not installed'; exit 1; }
headers='libssl-dev liblz4-dev libzstd-dev libxxhash-dev libacl1-dev pkg-config'
if ! dpkg -s $headers >/dev/null 2>&1; then
  command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] || { echo "needs $headers"; exit 1; }
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $headers
fi
python3 -m venv "$into/venv"
"$into/venv/bin/pip" install --no-input --disable-pip-version-check borgbackup==1.4.5
ln -s venv/bin/borg "$into/borg"
