#!/bin/sh
# Finds a Python that will do and lets it set up .venv:   sh scripts/bootstrap.sh [EXTRA ...]
# PYTHON=/path/to/python3 chooses one by hand.
set -u
here=$(cd "$(dirname "$0")" && pwd)
# What a complete Debian or Ubuntu python3 has; python3-minimal and hand-built ones may lack some.
modules="ctypes, lzma, sqlite3, ssl, urllib.request, venv, zlib"
seen=""
for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3 python}; do
  version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
  case "$version" in
    3.11 | 3.12 | 3.13) ;;
    *) seen="$seen $candidate is $version;"; continue ;;
  esac
  if missing=$("$candidate" -c "import $modules" 2>&1); then
    exec "$candidate" "$here/bootstrap.py" "$@"
  fi
  seen="$seen $candidate ($version) is incomplete: $(printf '%s' "$missing" | tail -n 1);"
done
echo "nightscribe needs Python 3.11, 3.12 or 3.13 (Debian, Ubuntu: apt install python3);${seen:- there is none on PATH;} or name one: PYTHON=/path/to/python3 make demo" >&2
exit 2
