# Sourced by scripts/make-*-image: a cache of finished layouts, and lines that say what is done and how long it took.
# Progress goes to stderr, so that the only line on stdout is the image's digest.

epoch=${SOURCE_DATE_EPOCH:-1735689600} # 2025-01-01: every time in an image; a constant, so that digests can be pinned
cache=${GBX_CACHE:-${HOME:-/root}/.cache/glovebox}
arch=$(dpkg --print-architecture)

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
  say "$*"
  exit 1
}
now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f s", b - a }'; }
# One hash over files and words: cache_key WORD... -- FILE...
cache_key() {
  {
    while [ $# -gt 0 ] && [ "$1" != -- ]; do printf '%s\0' "$1" && shift; done
    shift
    for f; do sha256sum <"$f"; done
  } | sha256sum | cut -c1-32
}

# Only one of several builders at a time may fill the cache.
lock_cache() {
  mkdir -p "$cache"
  exec 9>"$cache/images.lock"
  flock 9
  rm -rf "$cache"/{tree.*,study-*.part*,noop-*.part*} # left by a run that was killed
}

# Keeps the newest few entries of one kind, so that edits do not fill the disk.
prune_cache() { # PREFIX KEEP
  ls -1dt "$cache/$1"-* 2>/dev/null | grep -v '\.part' | tail -n +"$(($2 + 1))" | while read -r old; do rm -rf "$old"; done
}

layout_digest() { grep -o 'sha256:[0-9a-f]\{64\}' "$1/index.json"; }

# Copies a cached layout to where the caller wants it, whole or not at all, and prints its digest.
deliver() { # LAYOUT OUTDIR
  if [ -e "$2" ] && [ ! -f "$2/oci-layout" ] && [ -n "$(ls -A "$2")" ]; then
    die "$2 exists and is not an OCI layout; name another directory"
  fi
  mkdir -p "$(dirname "$2")"
  rm -rf "$2.part$$"
  cp -r --reflink=auto "$1" "$2.part$$"
  rm -rf "$2"
  mv "$2.part$$" "$2"
  touch "$1" # newest in the cache
  say "$2: $(du -sh "$2" | cut -f1), $(layout_digest "$2")"
  layout_digest "$2"
}
