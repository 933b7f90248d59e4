# AWS KMS, STS and IAM, with key states, encryption contexts and policies that are really enforced (Apache-2.0).
# Its metadata says Python 3.10, but its KMS imports only under 3.13.
suits() { "$1" -c 'import sys; sys.exit(not (3, 13) <= sys.version_info < (3, 15))' 2>/dev/null; }
for python in python3 python3.13 python3.14 "$HOME"/.pyenv/versions/3.1[34].*/bin/python3; do
  if suits "$python"; then break; fi
done
suits "$python" || { echo 'needs Python 3.13 or 3.14'; exit 1; }
"$python" -m venv "$into/venv"
"$into/venv/bin/pip" install --quiet --disable-pip-version-check 'localemu[base-runtime]==1.3.2'
"$into/venv/bin/python" -c 'import localemu.services.kms.provider'
