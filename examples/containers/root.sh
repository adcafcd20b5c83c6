#!/bin/sh
# The root of a container's file system: a Python of Debian's, Isthmus from its wheel, and nothing that neither needs.
#   sh root.sh agent|server ROOT WHEEL
# It needs Debian 12 with apt-get, binutils and a pip of Python 3.11, and no privilege: packages are unpacked, none is set up.
set -eu
role=$1 root=$2 wheel=$3
packages="base-files ca-certificates liblapack3 libpython3.11-stdlib libstdc++6 netbase python3.11-minimal tzdata"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$root" "$scratch/archives/partial"

# As if nothing were installed, so that all they need comes with them.
: > "$scratch/status"
apt-get -qq -o Dir::State::status="$scratch/status" -o Dir::Cache::archives="$scratch/archives" -o Debug::NoLocking=1 \
  -o APT::Sandbox::User=root --no-install-recommends --yes --download-only install $packages > /dev/null
for package in "$scratch"/archives/*.deb; do
  case ${package##*/} in
    debconf_*|dpkg_*|perl-base_*|tar_*|openssl_*|gcc-12-base_*) continue ;;  # set up packages, which is not done here
    libdb5*|libsqlite3*|libnsl2*|libtirpc*|libgssapi*|libk5*|libkrb5*|libkeyutils*|libcom-err*|libncurses*|libtinfo*|libreadline*|\
    readline-common*|libselinux*|libpcre*|libmd0*|libacl*) continue ;;  # of parts of Python that are removed below
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

# What nothing here loads: other people's tests, headers and types, an accelerator for web pages, compilers and converters.
cd "$place"
rm -rf bin share include numpy/f2py numpy/distutils numpy/_pyinstaller numpy/_core/include numpy/_core/lib numpy/random/lib \
  ai_edge_litert/libLiteRt*.so ai_edge_litert/tools ai_edge_litert/pywrap_genai_ops.so ai_edge_litert/aot ai_edge_litert/vendors \
  ai_edge_litert/_pywrap_litert_converter.so ai_edge_litert/_pywrap_modify_model_interface.so \
  ai_edge_litert/_pywrap_tfl_calibration.so ai_edge_litert/_pywrap_tensorflow_lite_calibration_wrapper.so \
  zstandard/_cffi.*.so zstandard/backend_rust.*.so grpc_tools onnxruntime/capi/libonnxruntime.so.*
find . -type d \( -name tests -o -name test -o -name testing \) -prune -exec rm -rf {} +
find . -name '*.pyi' -delete
find pygments/lexers -name '*.py' ! -name '__init__.py' ! -name _mapping.py ! -name special.py -delete
# A tail and the tables of the emulator are of no use to a device.
[ "$role" = server ] || find isthmus/models/zoo \( -name 'tail.*' -o -name '*.npz' -o -name '*.png' \) -delete
strip --strip-unneeded zstandard/backend_c.*.so ai_edge_litert/libpywrap_litert_common.so
# OpenCV brings an OpenBLAS of 39 MB for what is not called here; Debian's LAPACK has the same functions in 8.
for blas in opencv_python_headless.libs/libopenblas*; do
  [ -e "$blas" ] || continue
  rm -f "$blas" opencv_python_headless.libs/libgfortran* opencv_python_headless.libs/libquadmath*
  system=$(cd "$root" && echo usr/lib/*-linux-gnu)
  ln -s "/$system/lapack/liblapack.so.3" "$blas"
  ln -s blas/libblas.so.3 "$root/$system/libblas.so.3"
done

lib=$root/usr/lib/python3.11
rm -rf "$root"/usr/share/doc "$root"/usr/share/man "$root"/usr/share/locale "$root"/usr/share/lintian "$root"/usr/share/bash-completion \
  "$root"/usr/share/zoneinfo/right "$root"/usr/share/zoneinfo/posix \
  "$root"/usr/lib/*-linux-gnu/gconv "$root"/usr/lib/*-linux-gnu/perl-base "$root"/usr/share/perl* "$root"/var/cache "$root"/var/lib/apt
cd "$lib"
rm -rf curses dbm distutils doctest.py ensurepip idlelib lib2to3 pydoc.py pydoc_data sqlite3 test tkinter turtle.py turtledemo unittest \
  venv xmlrpc lib-dynload/_curses* lib-dynload/_dbm* lib-dynload/_sqlite3* lib-dynload/nis* lib-dynload/readline*

# The root is read-only where it runs: what Python would compile at every start is compiled now. Of what is not ours nothing but
# that is kept; OpenCV reads files of its own.
find "$lib" "$place" -name __pycache__ -prune -exec rm -rf {} +
PYTHONDONTWRITEBYTECODE= python3 -m compileall -q -j 0 -s "$root" -p / "$place/isthmus" "$place/cv2"
PYTHONDONTWRITEBYTECODE= python3 -m compileall -q -j 0 -b -s "$root" -p / -x 'dist-packages/(isthmus|cv2)/' "$lib" "$place"
find "$lib" "$place" -name '*.py' ! -path "$place/isthmus/*" ! -path "$place/cv2/*" -delete
