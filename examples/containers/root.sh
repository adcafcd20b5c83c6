#!/bin/sh
# The root of a container's file system: a Python of Debian's, Isthmus from its wheel, and nothing that neither needs.
#   sh root.sh agent|server ROOT WHEEL
# It needs Debian 12 with apt-get and a pip of Python 3.11, and no privilege: packages are unpacked, none is set up.
set -eu
role=$1 root=$2 wheel=$3
packages="base-files ca-certificates libpython3.11-stdlib libstdc++6 netbase python3.11-minimal tzdata"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$root" "$scratch/archives/partial"

# As if nothing were installed, so that all they need comes with them.
: > "$scratch/status"
apt-get -qq -o Dir::State::status="$scratch/status" -o Dir::Cache::archives="$scratch/archives" -o Debug::NoLocking=1 \
  -o APT::Sandbox::User=root --no-install-recommends --yes --download-only install $packages > /dev/null
for package in "$scratch"/archives/*.deb; do
  case ${package##*/} in
    debconf_*|dpkg_*|perl-base_*|tar_*|openssl_*) continue ;;  # set up packages, which is not done here
  esac
  dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C "$root" -f -
done
# What setting up would have done.
(cd "$root/usr/share/ca-certificates" && find mozilla -name '*.crt' | sort | xargs cat) > "$scratch/bundle"
mkdir -p "$root/etc/ssl/certs" "$root/tmp" "$root/proc" "$root/dev" "$root/sys" "$root/var/lib/isthmus" "$root/etc/isthmus"
cp "$scratch/bundle" "$root/etc/ssl/certs/ca-certificates.crt"
ln -sf python3.11 "$root/usr/bin/python3"
printf 'root:x:0:0::/:/nonexistent\nisthmus:x:10001:10001::/var/lib/isthmus:/nonexistent\n' > "$root/etc/passwd"
printf 'root:x:0:\nvideo:x:44:isthmus\nisthmus:x:10001:\n' > "$root/etc/group"
chmod 1777 "$root/tmp"
# No rights are needed to write a name: who owns the folder is said where the root becomes an image.
chmod 1777 "$root/var/lib/isthmus"

extra= ; [ "$role" = agent ] && extra='[mqtt]' ; [ "$role" = server ] && extra='[server]'
place="$root/usr/local/lib/python3.11/dist-packages"
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-compile --target "$place" "$wheel$extra"
mkdir -p "$root/usr/local/bin"
printf '#!/usr/bin/python3.11\nfrom isthmus.cli.main import main\nmain()\n' > "$root/usr/local/bin/isthmus"
chmod 755 "$root/usr/local/bin/isthmus"

# What nothing here loads: other people's tests, headers and types, a web page's accelerator, compilers and converters.
cd "$place"
rm -rf bin share include numpy/f2py numpy/distutils numpy/_pyinstaller numpy/_core/include numpy/_core/lib numpy/random/lib \
  ai_edge_litert/libLiteRtWebGpuAccelerator.so ai_edge_litert/pywrap_genai_ops.so ai_edge_litert/aot ai_edge_litert/vendors \
  ai_edge_litert/_pywrap_litert_converter.so ai_edge_litert/_pywrap_modify_model_interface.so \
  ai_edge_litert/_pywrap_tfl_calibration.so ai_edge_litert/_pywrap_tensorflow_lite_calibration_wrapper.so \
  zstandard/_cffi.*.so zstandard/backend_rust.*.so grpc_tools
find . -type d \( -name tests -o -name test -o -name testing \) -prune -exec rm -rf {} +
find . -name '*.pyi' -delete
rm -rf "$root"/usr/share/doc "$root"/usr/share/man "$root"/usr/share/locale "$root"/usr/share/lintian "$root"/usr/share/bash-completion \
  "$root"/usr/lib/python3.11/test "$root"/usr/lib/python3.11/lib2to3 "$root"/usr/lib/python3.11/pydoc_data \
  "$root"/usr/lib/*-linux-gnu/gconv "$root"/usr/lib/*-linux-gnu/perl-base "$root"/usr/share/perl* "$root"/var/cache "$root"/var/lib/apt
# The root is read-only where it runs: what Python would compile at every start is compiled now.
PYTHONDONTWRITEBYTECODE= python3 -m compileall -q -j 0 -s "$root" -p / "$place" "$root/usr/lib/python3.11" > /dev/null || true
