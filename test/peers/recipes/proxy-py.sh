# A CONNECT proxy (BSD), for the proxy setting of the S3 target.
command -v python3 >/dev/null || { echo 'python3 is not installed'; exit 1; }
python3 -m venv "$into/venv"
"$into/venv/bin/pip" install --quiet --disable-pip-version-check 'proxy.py==2.4.10'
