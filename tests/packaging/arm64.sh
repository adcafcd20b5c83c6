#!/bin/sh
# The root of an arm64 Debian with Isthmus's packages in it, made on another processor: sh tests/packaging/arm64.sh ROOT
# As root, on Debian 12 with debootstrap and qemu-user-static. Nothing is run in it here: packages are unpacked, wheels are
# those that pip chooses for that machine. `run` below is how something is: sh tests/packaging/arm64.sh ROOT run COMMAND…
set -eu
root=$1
here=$(cd "$(dirname "$0")/../.." && pwd)
if [ "${2:-}" = run ]; then
  shift 2
  binfmt=/proc/sys/fs/binfmt_misc
  [ -e $binfmt/register ] || mount -t binfmt_misc binfmt_misc $binfmt
  [ -e $binfmt/qemu-aarch64 ] || printf '%s' ':qemu-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64-static:F' > $binfmt/register
  PYTHONPATH=/opt/site
  for portion in device edge_server proto models emulation cli; do PYTHONPATH=$PYTHONPATH:/opt/isthmus/$portion; done
  export PYTHONPATH
  # LiteRT looks for an ARM core in /proc/cpuinfo, where qemu shows the host's.
  exec unshare --mount sh -c '
    root=$1; shift
    mount -t proc proc "$root/proc" && mount --rbind /sys "$root/sys" && mount --rbind /dev "$root/dev"
    mount --bind "$root/pi4_cpuinfo" "$root/proc/cpuinfo"
    exec chroot "$root" /usr/bin/env -i PATH=/usr/local/bin:/usr/bin:/bin HOME=/tmp LANG=C.UTF-8 QEMU_CPU=cortex-a72 \
      OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 PYTHONPATH=$PYTHONPATH "$@"' sh "$root" "$@"
fi
if [ ! -e "$root/usr/bin/python3.11" ]; then
  debootstrap --arch=arm64 --foreign --variant=minbase --include=python3,ca-certificates bookworm "$root"
  for package in "$root"/var/cache/apt/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C "$root" -f -
  done
fi
if [ ! -e "$root/opt/site/cv2" ]; then
  platforms=; for old in 2_17 2_26 2_27 2_28; do platforms="$platforms --platform manylinux_${old}_aarch64"; done
  python3 -m pip install --quiet --disable-pip-version-check --target "$root/opt/site" $platforms --platform manylinux2014_aarch64 \
    --platform any --python-version 3.11 --implementation cp --only-binary=:all: \
    ai-edge-litert grpcio msgspec numpy opencv-python-headless protobuf rich tomli-w 'typer>=0.19,<0.29' zstandard pytest pytest-timeout hypothesis
fi
[ ! -L "$root/proc" ] || rm "$root/proc"  # debootstrap's own way where it may not mount
mkdir -p "$root/tmp" "$root/proc" "$root/sys" "$root/dev" "$root/opt/isthmus"
cat > "$root/pi4_cpuinfo" <<'CPU'
processor	: 0
BogoMIPS	: 108.00
Features	: fp asimd evtstrm crc32 cpuid
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x0
CPU part	: 0xd08
CPU revision	: 3

processor	: 1
BogoMIPS	: 108.00
Features	: fp asimd evtstrm crc32 cpuid
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x0
CPU part	: 0xd08
CPU revision	: 3

Model		: Raspberry Pi 4 Model B Rev 1.4
CPU
rm -rf "$root/opt/isthmus" && mkdir -p "$root/opt/isthmus" "$root/opt/site/isthmus-0.1.0.dist-info"
printf 'Metadata-Version: 2.1\nName: isthmus\nVersion: 0.1.0\n' > "$root/opt/site/isthmus-0.1.0.dist-info/METADATA"
(cd "$here" && tar -c device edge_server proto models emulation cli tests pyproject.toml) | tar -x -C "$root/opt/isthmus" -f -
