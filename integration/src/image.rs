//! The root file system that all cases run in: a busybox, the actor, and what behaviours want to find.

use std::path::Path;

use crate::harness::Image;

/// Name of the image.
pub const NAME: &str = "localhost/actor:1";

/// Something in the root file system.
pub enum Entry {
    /// A copy of the actor.
    Actor(&'static str),
    /// A small file.
    File {
        /// Where.
        path: String,
        /// What it holds.
        content: &'static str,
        /// Its mode.
        mode: u32,
    },
    /// A symbolic link.
    Link {
        /// What it says.
        target: String,
        /// Where.
        path: String,
    },
    /// A directory.
    Directory(&'static str),
}

const ACTORS: [&str; 10] = [
    "/usr/bin/actor",
    "/usr/bin/xmrig",
    "/usr/bin/not-xmrig",
    "/opt/dev/shm/program",
    "/usr/bin/dpkg",
    "/usr/bin/tool-actor",
    "/usr/bin/tool-chmod",
    "/usr/bin/tool-touch",
    "/usr/bin/tool-rewritten",
    "/usr/bin/tool-replaced",
];

const SCRIPTS: [&str; 9] = [
    "/usr/bin/tool",
    "/usr/bin/tool-append",
    "/usr/bin/tool-both",
    "/usr/bin/tool-dirfd",
    "/usr/bin/tool-mode",
    "/usr/bin/tool-open",
    "/usr/bin/tool-setuid",
    "/usr/bin/tool-uring",
    "/opt/program",
];

const TEXTS: [&str; 20] = [
    "/etc/hostname",
    "/etc/ld.so.preload",
    "/etc/shadow.txt",
    "/lib/ld-musl-x86_64.so.1",
    "/lib/libdemo.so.1",
    "/lib/x86_64-linux-gnu/libc.so.6",
    "/opt/data.txt",
    "/opt/etc/shadow",
    "/opt/script.sh",
    "/opt/token",
    "/usr/lib/libold.so",
    "/usr/share/data.txt",
    "/usr/share/release_agent",
    "/var/log/auth.log",
    "/var/log/daemon.log",
    "/var/log/dpkg.log",
    "/var/log/kern.log",
    "/var/log/messages",
    "/var/log/secure",
    "/var/log/syslog",
];

const DIRECTORIES: [&str; 4] = ["/opt/bin", "/usr/binary", "/usr/local/sbin", "/var/lib"];

const TOKEN: &str = "/run/secrets/kubernetes.io/serviceaccount";

/// Everything besides busybox and what it needs.
pub fn entries() -> Vec<Entry> {
    let mut entries: Vec<_> = DIRECTORIES.into_iter().map(Entry::Directory).collect();
    entries.extend(ACTORS.into_iter().map(Entry::Actor));
    let file = |path: &str, content, mode| Entry::File { path: path.into(), content, mode };
    entries.extend(SCRIPTS.into_iter().map(|path| file(path, "#!/bin/sh\nexit 0\n", 0o755)));
    entries.extend(TEXTS.into_iter().map(|path| file(path, "some text\n", 0o644)));
    // As the kubelet lays it out, so that a rotation is one rename.
    for name in ["token", "ca.crt", "namespace"] {
        entries.push(file(&format!("{TOKEN}/..2026_01_01_00_00_00.1/{name}"), "secret\n", 0o644));
        entries.push(Entry::Link { target: format!("..data/{name}"), path: format!("{TOKEN}/{name}") });
    }
    entries.push(Entry::Link { target: "..2026_01_01_00_00_00.1".into(), path: format!("{TOKEN}/..data") });
    entries.push(Entry::Link { target: "/run".into(), path: "/var/run".into() });
    entries
}

/// The image for containerd. `actor` is the static program on this machine.
pub fn image(actor: &Path) -> Image {
    entries().into_iter().fold(Image::busybox(NAME), |image, entry| match entry {
        Entry::Actor(path) => image.file(actor, path, 0o755),
        Entry::File { path, content, mode } => image.content(&path, content, mode),
        Entry::Link { target, path } => image.link(&target, &path),
        Entry::Directory(path) => image.directory(path, 0o755),
    })
}
