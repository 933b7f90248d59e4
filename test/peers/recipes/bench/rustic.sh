# A backup program to compare with. Without the link-time optimisation of its releases, which takes longer than all else.
command -v cargo >/dev/null || { echo 'cargo is not installed'; exit 1; }
# Hundreds of crates: what an install that ran out of time has compiled stays for the next one.
work=$into.build
CARGO_TARGET_DIR=$work CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
  cargo install rustic-rs --version 0.11.4 --locked --no-default-features --root "$into"
rm -rf "$work"
