//! Images made by hand: one layer, from files of this machine or an archive.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ringfence_image::{Architecture, Built, Tree};

/// Debian's busybox-static.
pub const BUSYBOX: &str = "/bin/busybox";

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
const GROUP: &str = "root:x:0:\nshadow:x:42:\nnogroup:x:65534:\n";
// The salt and hash of nobody's password: a real-looking line to read.
const SHADOW: &str = "root:$6$ringfence$notahash:19700:0:99999:7:::\nnobody:*:19700:0:99999:7:::\n";

/// An image to be imported into a node.
#[derive(Debug, Clone)]
pub struct Image {
    name: String,
    tree: Tree,
    /// How a container of it is started.
    start: ringfence_image::Image,
    base: Base,
}

/// What there is besides the tree.
#[derive(Debug, Clone)]
enum Base {
    /// Nothing.
    Empty,
    /// The applets of this machine's busybox.
    Applets,
    /// A whole root file system.
    Archive(PathBuf),
}

impl Image {
    /// A static busybox with all of its applets, accounts, and the usual directories. `name` is a whole reference, such
    /// as `localhost/busybox:1`.
    pub fn busybox(name: &str) -> Self {
        let mut image = Self::new(name, Base::Applets).command(&["sh"]);
        for path in
            ["/bin", "/dev", "/etc", "/home", "/proc", "/run", "/sbin", "/sys", "/usr/bin", "/usr/sbin", "/var/log"]
        {
            image = image.directory(path, 0o755);
        }
        image
            .directory("/root", 0o700)
            .directory("/tmp", 0o1777)
            .directory("/var/tmp", 0o1777)
            .file(Path::new(BUSYBOX), "/bin/busybox", 0o755)
            .content("/etc/passwd", PASSWD, 0o644)
            .content("/etc/group", GROUP, 0o644)
            .content("/etc/shadow", SHADOW, 0o640)
            .content("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n", 0o644)
    }

    /// A root file system in an uncompressed tar archive; it takes no further entries.
    pub fn archive(name: &str, archive: &Path) -> Self {
        Self::new(name, Base::Archive(archive.to_path_buf())).command(&["bash"])
    }

    /// Nothing but what is added, such as one static program.
    pub fn empty(name: &str) -> Self {
        Self::new(name, Base::Empty)
    }

    fn new(name: &str, base: Base) -> Self {
        let start = ringfence_image::Image::new(Architecture::native());
        Self { name: name.to_owned(), tree: Tree::default(), start, base }
    }

    /// A copy of a file of this machine.
    pub fn file(self, host: &Path, path: &str, mode: u32) -> Self {
        Self { tree: self.tree.file(host, path, mode), ..self }
    }

    /// A file with this content.
    pub fn content(self, path: &str, content: impl Into<Vec<u8>>, mode: u32) -> Self {
        Self { tree: self.tree.content(path, content, mode), ..self }
    }

    /// A symbolic link at `path`.
    pub fn link(self, target: &str, path: &str) -> Self {
        Self { tree: self.tree.link(target, path), ..self }
    }

    /// A directory. Those above a path are made anyway.
    pub fn directory(self, path: &str, mode: u32) -> Self {
        Self { tree: self.tree.directory(path, mode), ..self }
    }

    /// What a pod's container runs unless it is told otherwise.
    pub fn command(self, command: &[&str]) -> Self {
        Self { start: self.start.command(command), ..self }
    }

    /// The same, with what a pod calls `args` added to it.
    pub fn entrypoint(self, command: &[&str]) -> Self {
        Self { start: self.start.entrypoint(command), ..self }
    }

    /// Its reference.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The image in the form of the OCI image specification; its layer is not compressed.
    pub fn build(&self) -> Result<Built> {
        Ok(self.start.build(self.layer()?))
    }

    fn layer(&self) -> Result<Vec<u8>> {
        match &self.base {
            Base::Archive(archive) => {
                ensure!(self.tree.is_empty(), "{}: an archive takes no further entries", self.name);
                std::fs::read(archive).with_context(|| archive.display().to_string())
            }
            Base::Empty => Ok(self.tree.archive()?),
            Base::Applets => {
                let missing = applets()?.into_iter().filter(|path| !self.tree.has(Path::new(path)));
                let tree = missing.fold(self.tree.clone(), |tree, path| tree.link(BUSYBOX, &path));
                Ok(tree.archive()?)
            }
        }
    }
}

/// The applets of this machine's busybox, as paths without a leading slash.
fn applets() -> Result<Vec<String>> {
    let output = Command::new(BUSYBOX).arg("--list-full").output();
    let output = output.with_context(|| format!("{BUSYBOX}: install busybox-static"))?;
    ensure!(output.status.success(), "{BUSYBOX} --list-full: {}", output.status);
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn paths(image: &Image) -> BTreeMap<String, tar::EntryType> {
        let layer = image.build().expect("an image").layer;
        let mut archive = tar::Archive::new(layer.bytes.as_slice());
        let entries = archive.entries().expect("entries").map(|entry| entry.expect("an entry"));
        let name = |path: &Path| path.display().to_string().trim_end_matches('/').to_owned();
        entries.map(|e| (name(&e.path().expect("a path")), e.header().entry_type())).collect()
    }

    #[test]
    fn a_busybox_has_its_applets_and_what_is_given() {
        let paths = paths(&Image::busybox("localhost/x:1").content("/bin/cat", "1", 0o755).link("/run", "/var/run"));
        assert_eq!(paths["bin/cat"], tar::EntryType::Regular);
        assert_eq!(paths["var/run"], tar::EntryType::Symlink);
        assert_eq!(paths["bin/sh"], tar::EntryType::Symlink);
    }

    #[test]
    fn the_same_image_has_the_same_digest() {
        let digest = |text: &str| {
            Image::busybox("localhost/x:1").content("/f", text, 0o644).build().expect("image").manifest.digest
        };
        assert_eq!(digest("a"), digest("a"));
        assert_ne!(digest("a"), digest("b"));
    }

    #[test]
    fn an_image_of_one_program_holds_nothing_else() {
        let image = Image::empty("localhost/x:1").content("/opt/program", "x", 0o755).entrypoint(&["/opt/program"]);
        assert_eq!(paths(&image).into_keys().collect::<Vec<_>>(), ["opt", "opt/program"]);
    }
}
