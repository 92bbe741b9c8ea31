//! Images made by hand: one layer, from files of this machine or an archive.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

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
    entries: BTreeMap<PathBuf, Entry>,
    entrypoint: Vec<String>,
    command: Vec<String>,
    base: Base,
}

/// What there is besides the entries.
#[derive(Debug, Clone)]
enum Base {
    /// Nothing.
    Empty,
    /// The applets of this machine's busybox.
    Applets,
    /// A whole root file system.
    Archive(PathBuf),
}

#[derive(Debug, Clone)]
enum Entry {
    Directory(u32),
    File(Content, u32),
    Link(PathBuf),
}

#[derive(Debug, Clone)]
enum Content {
    Bytes(Vec<u8>),
    Host(PathBuf),
}

/// Something in containerd's content store.
#[derive(Debug)]
pub struct Blob {
    /// What it is.
    pub media_type: String,
    /// `sha256:...`
    pub digest: String,
    /// Itself.
    pub bytes: Arc<Vec<u8>>,
}

/// An image ready to be stored: its layer, configuration and manifest.
#[derive(Debug)]
pub struct Built {
    /// The layer; uncompressed, so its digest is also that of its contents.
    pub layer: Blob,
    /// The configuration.
    pub config: Blob,
    /// The manifest.
    pub manifest: Blob,
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
        Self { name: name.to_owned(), entries: BTreeMap::new(), entrypoint: Vec::new(), command: Vec::new(), base }
    }

    /// A copy of a file of this machine.
    pub fn file(self, host: &Path, path: &str, mode: u32) -> Self {
        self.with(path, Entry::File(Content::Host(host.to_path_buf()), mode))
    }

    /// A file with this content.
    pub fn content(self, path: &str, content: impl Into<Vec<u8>>, mode: u32) -> Self {
        self.with(path, Entry::File(Content::Bytes(content.into()), mode))
    }

    /// A symbolic link at `path`.
    pub fn link(self, target: &str, path: &str) -> Self {
        self.with(path, Entry::Link(target.into()))
    }

    /// A directory. Those above a path are made anyway.
    pub fn directory(self, path: &str, mode: u32) -> Self {
        self.with(path, Entry::Directory(mode))
    }

    /// What a pod's container runs unless it is told otherwise.
    pub fn command(mut self, command: &[&str]) -> Self {
        self.command = command.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// The same, with what a pod calls `args` added to it.
    pub fn entrypoint(mut self, command: &[&str]) -> Self {
        self.entrypoint = command.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Its reference.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn with(mut self, path: &str, entry: Entry) -> Self {
        self.entries.insert(path.trim_matches('/').into(), entry);
        self
    }

    /// The image in the form of the OCI image specification.
    pub fn build(&self) -> Result<Built> {
        let layer = Blob::new("layer.v1.tar", self.layer()?);
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = Blob::json(
            "config.v1+json",
            &json!({
                "architecture": architecture,
                "os": "linux",
                "config": {"Entrypoint": self.entrypoint, "Cmd": self.command, "Env": [path], "WorkingDir": "/"},
                "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
            }),
        );
        let descriptor =
            |blob: &Blob| json!({"mediaType": blob.media_type, "digest": blob.digest, "size": blob.bytes.len()});
        let manifest = Blob::json(
            "manifest.v1+json",
            &json!({
                "schemaVersion": 2,
                "mediaType": media_type("manifest.v1+json"),
                "config": descriptor(&config),
                "layers": [descriptor(&layer)],
            }),
        );
        Ok(Built { layer, config, manifest })
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let mut entries = self.entries.clone();
        match &self.base {
            Base::Archive(archive) => {
                ensure!(entries.is_empty(), "{}: an archive takes no further entries", self.name);
                return std::fs::read(archive).with_context(|| archive.display().to_string());
            }
            Base::Empty => {}
            Base::Applets => {
                for path in applets()? {
                    entries.entry(path).or_insert(Entry::Link("/bin/busybox".into()));
                }
            }
        }
        for path in self.entries.keys() {
            for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
                entries.entry(above.to_path_buf()).or_insert(Entry::Directory(0o755));
            }
        }
        let mut layer = tar::Builder::new(Vec::new());
        for (path, entry) in &entries {
            let mut header = tar::Header::new_gnu();
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(0);
            match entry {
                Entry::Directory(mode) => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(*mode);
                    layer.append_data(&mut header, path, std::io::empty())?;
                }
                Entry::Link(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_mode(0o777);
                    layer.append_link(&mut header, path, target)?;
                }
                Entry::File(content, mode) => {
                    let bytes = content.bytes()?;
                    header.set_entry_type(tar::EntryType::Regular);
                    header.set_mode(*mode);
                    header.set_size(bytes.len() as u64);
                    layer.append_data(&mut header, path, bytes.as_slice())?;
                }
            }
        }
        Ok(layer.into_inner()?)
    }
}

impl Built {
    /// All of it in one uncompressed archive in the form of the OCI image layout, under a whole reference.
    pub fn archive(&self, name: &str) -> Result<Vec<u8>> {
        let index = json!({
            "schemaVersion": 2,
            "mediaType": media_type("index.v1+json"),
            "manifests": [{
                "mediaType": self.manifest.media_type,
                "digest": self.manifest.digest,
                "size": self.manifest.bytes.len(),
                "annotations": {"io.containerd.image.name": name},
            }],
        });
        let index = index.to_string().into_bytes();
        let mut archive = tar::Builder::new(Vec::new());
        let mut add = |path: &str, bytes: &[u8]| -> Result<()> {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(bytes.len() as u64);
            Ok(archive.append_data(&mut header, path, bytes)?)
        };
        add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        add("index.json", &index)?;
        for blob in [&self.layer, &self.config, &self.manifest] {
            add(&format!("blobs/{}", blob.digest.replace(':', "/")), &blob.bytes)?;
        }
        Ok(archive.into_inner()?)
    }
}

/// The applets of this machine's busybox, as paths without a leading slash.
fn applets() -> Result<Vec<PathBuf>> {
    let output = Command::new(BUSYBOX).arg("--list-full").output();
    let output = output.with_context(|| format!("{BUSYBOX}: install busybox-static"))?;
    ensure!(output.status.success(), "{BUSYBOX} --list-full: {}", output.status);
    Ok(String::from_utf8(output.stdout)?.lines().map(PathBuf::from).collect())
}

impl Content {
    fn bytes(&self) -> Result<Vec<u8>> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.clone()),
            Self::Host(path) => std::fs::read(path).with_context(|| path.display().to_string()),
        }
    }
}

impl Blob {
    fn new(kind: &str, bytes: Vec<u8>) -> Self {
        let hex: Vec<String> = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { media_type: media_type(kind), digest: format!("sha256:{}", hex.concat()), bytes: Arc::new(bytes) }
    }

    fn json(kind: &str, value: &Value) -> Self {
        Self::new(kind, value.to_string().into_bytes())
    }
}

fn media_type(kind: &str) -> String {
    format!("application/vnd.oci.image.{kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(image: &Image) -> BTreeMap<String, tar::EntryType> {
        let layer = image.build().expect("an image").layer;
        let mut archive = tar::Archive::new(layer.bytes.as_slice());
        let entries = archive.entries().expect("entries").map(|entry| entry.expect("an entry"));
        let name = |path: &Path| path.display().to_string().trim_end_matches('/').to_owned();
        entries.map(|e| (name(&e.path().expect("a path")), e.header().entry_type())).collect()
    }

    #[test]
    fn parents_come_before_children_and_what_is_given_last_stays() {
        let image = Image::busybox("localhost/x:1").content("/a/b/c", "1", 0o644).link("/run", "/var/run");
        let paths = paths(&image.content("/a/b/c", "22", 0o600));
        assert_eq!(paths["a/b"], tar::EntryType::Directory);
        assert_eq!(paths["a/b/c"], tar::EntryType::Regular);
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
        let config: Value = serde_json::from_slice(&image.build().expect("an image").config.bytes).expect("JSON");
        assert_eq!(config["config"]["Entrypoint"], json!(["/opt/program"]));
    }

    #[test]
    fn an_archive_holds_what_its_index_names() {
        let built = Image::empty("localhost/x:1").content("/f", "x", 0o644).build().expect("an image");
        let bytes = built.archive("localhost/x:1").expect("an archive");
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut files = BTreeMap::new();
        for entry in archive.entries().expect("entries") {
            let mut entry = entry.expect("an entry");
            let path = entry.path().expect("a path").display().to_string();
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).expect("content");
            files.insert(path, content);
        }
        let index: Value = serde_json::from_slice(&files["index.json"]).expect("JSON");
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().expect("a digest");
            let bytes = &files[&format!("blobs/{}", digest.replace(':', "/"))];
            assert_eq!(Blob::new("any", bytes.clone()).digest, digest);
            assert_eq!(descriptor["size"], bytes.len());
            bytes
        };
        assert_eq!(index["manifests"][0]["annotations"]["io.containerd.image.name"], "localhost/x:1");
        let manifest: Value = serde_json::from_slice(blob(&index["manifests"][0])).expect("JSON");
        blob(&manifest["config"]);
        blob(&manifest["layers"][0]);
    }
}
