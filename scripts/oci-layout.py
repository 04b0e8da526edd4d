#!/usr/bin/python3
"""Writes a directory tree as an OCI image layout with one gzip layer.

The same tree, options and epoch give the same bytes, so the manifest digest on stdout can be pinned: entries are
sorted, owners are 0:0, every time is the epoch, modes are 0755 or 0644, and the gzip header holds neither name nor
time. Only directories, regular files and symbolic links are written (a hard link becomes a copy); anything else,
setuid bits included, is an error rather than something to carry along or to drop in silence.

(Equal bytes also need the same zlib: another deflate implementation gives another layer digest, but the same
diff_id, which is the digest of the tar.)
"""
import argparse
import datetime
import hashlib
import json
import os
import shutil
import stat
import sys
import tarfile
import zlib

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


class LayoutError(Exception):
    pass


class GzipSink:
    """A file-like sink: digests what it is given, compresses it, digests the result."""

    def __init__(self, out):
        self.out = out
        self.deflate = zlib.compressobj(6, zlib.DEFLATED, 31)  # 31: gzip framing, no name, no time
        self.plain, self.packed, self.size = hashlib.sha256(), hashlib.sha256(), 0

    def _emit(self, data):
        self.packed.update(data)
        self.size += len(data)
        self.out.write(data)

    def write(self, data):
        self.plain.update(data)
        self._emit(self.deflate.compress(data))
        return len(data)

    def finish(self):
        self._emit(self.deflate.flush())


def entries(tree):
    """Paths below tree, parents before children, in byte order."""
    found = []
    for folder, dirs, files in os.walk(tree):
        for name in dirs + files:
            found.append(os.path.relpath(os.path.join(folder, name), tree))
    return sorted(found, key=os.fsencode)


def tar_info(tree, name, epoch):
    path = os.path.join(tree, name)
    st = os.lstat(path)
    if os.path.basename(name).startswith(".wh."):
        raise LayoutError(f"{name}: a name that OCI reads as 'delete'")
    info = tarfile.TarInfo(name)
    info.mtime = epoch
    if stat.S_ISLNK(st.st_mode):
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, os.readlink(path), 0o777
        return info
    if st.st_mode & (stat.S_ISUID | stat.S_ISGID) and not stat.S_ISDIR(st.st_mode):
        raise LayoutError(f"{name}: setuid or setgid; clear the bit first")
    if stat.S_ISDIR(st.st_mode):
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    elif stat.S_ISREG(st.st_mode):
        info.size, info.mode = st.st_size, 0o755 if st.st_mode & 0o100 else 0o644
    else:
        raise LayoutError(f"{name}: neither directory, file nor symbolic link; remove it first")
    return info


def write_layer(tree, blobs, epoch):
    part = os.path.join(blobs, "layer.part")
    with open(part, "wb") as out:
        sink = GzipSink(out)
        with tarfile.open(fileobj=sink, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
            for name in entries(tree):
                info = tar_info(tree, name, epoch)
                try:  # plain ustar, which the strictest reader takes; pax only for a name that does not fit
                    info.tobuf(tarfile.USTAR_FORMAT)
                    tar.format = tarfile.USTAR_FORMAT
                except ValueError:
                    tar.format = tarfile.PAX_FORMAT
                if info.isreg():
                    with open(os.path.join(tree, name), "rb") as data:
                        tar.addfile(info, data)
                else:
                    tar.addfile(info)
        sink.finish()
    os.rename(part, os.path.join(blobs, sink.packed.hexdigest()))
    return "sha256:" + sink.plain.hexdigest(), descriptor(LAYER, sink.packed.hexdigest(), sink.size)


def descriptor(media_type, digest, size):
    return {"mediaType": media_type, "digest": "sha256:" + digest, "size": size}


def encode(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def write_blob(blobs, media_type, value):
    data = encode(value)
    digest = hashlib.sha256(data).hexdigest()
    with open(os.path.join(blobs, digest), "wb") as out:
        out.write(data)
    return descriptor(media_type, digest, len(data))


def write_layout(tree, out, *, entrypoint, env=(), user="65534:65534", workdir="/", name="latest", arch="amd64", epoch=0):
    """Writes the layout to the directory `out`, which must be absent or an older layout; returns the digest."""
    if os.path.lexists(out) and not os.path.isfile(os.path.join(out, "oci-layout")):
        if not os.path.isdir(out) or os.listdir(out):
            raise LayoutError(f"{out} exists and is not an OCI layout; name another directory")
    if not os.path.isdir(tree):
        raise LayoutError(f"{tree} is not a directory")
    work = f"{out.rstrip('/')}.part{os.getpid()}"
    blobs = os.path.join(work, "blobs", "sha256")
    os.makedirs(blobs)
    try:
        diff_id, layer = write_layer(tree, blobs, epoch)
        created = datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        config = write_blob(blobs, CONFIG, {
            "architecture": arch,
            "os": "linux",
            "created": created,
            "config": {"Entrypoint": list(entrypoint), "Env": list(env), "User": user, "WorkingDir": workdir},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [{"created": created, "created_by": "oci-layout.py"}],
        })
        manifest = write_blob(blobs, MANIFEST, {
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]})
        index = dict(manifest, platform={"architecture": arch, "os": "linux"},
                     annotations={"org.opencontainers.image.ref.name": name})
        with open(os.path.join(work, "index.json"), "wb") as f:
            f.write(encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": [index]}))
        with open(os.path.join(work, "oci-layout"), "wb") as f:
            f.write(encode({"imageLayoutVersion": "1.0.0"}))
        if os.path.lexists(out):
            shutil.rmtree(out)
        os.rename(work, out)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return manifest["digest"]


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    p.add_argument("tree", help="directory that becomes the root file system")
    p.add_argument("out", help="layout directory to write (an older layout there is replaced)")
    p.add_argument("--entrypoint", action="append", required=True, metavar="WORD", help="repeat for each word")
    p.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    p.add_argument("--user", default="65534:65534", help="UID:GID (default %(default)s)")
    p.add_argument("--workdir", default="/")
    p.add_argument("--name", default="latest", help="reference name in index.json")
    p.add_argument("--arch", default="amd64")
    p.add_argument("--epoch", type=int, default=int(os.environ.get("SOURCE_DATE_EPOCH", "0")),
                   help="every time in the image, seconds (default SOURCE_DATE_EPOCH, else 0)")
    a = p.parse_args()
    try:
        print(write_layout(a.tree, a.out, entrypoint=a.entrypoint, env=a.env, user=a.user, workdir=a.workdir,
                           name=a.name, arch=a.arch, epoch=a.epoch))
    except (LayoutError, OSError) as e:
        sys.exit(f"oci-layout: {e}")


if __name__ == "__main__":
    main()
