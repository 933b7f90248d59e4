# S3 that enforces IAM policies, and STS (Apache-2.0).
command -v python3 >/dev/null || { echo 'python3 is not installed'; exit 1; }
python3 -m venv "$into/venv"
"$into/venv/bin/pip" install --quiet --disable-pip-version-check 'moto[s3,iam,server]==5.2.5'
