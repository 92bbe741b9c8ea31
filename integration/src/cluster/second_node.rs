//! A second node: a VM with a kernel of its own, in which containerd, runc and a kubelet run as on the first.
//!
//! It has one disk, made anew each time, with everything that it needs; the first node is its way to the API server, to
//! Services and to the first node's pods. Its console, with containerd's and the kubelet's logs, is the log of the
//! program `node2`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ringfence_image::Layout;

use super::component::{Launch, Place};
use super::network::{BITS, SECOND_ADDRESS, SECOND_GATEWAY, SECOND_LINK, SECOND_PODS};
use super::node::{self, Kubelet, SOCKET};
use super::pki::{Pki, SECOND_KUBELET};
use super::succeed;
use super::version::{Programs, Version};
use crate::harness::{BUSYBOX, Image};

/// The second node's name in the cluster.
pub const SECOND_NODE: &str = "node2";

/// What a VM boots with: a kernel, and a first root file system that goes on from the first disk.
#[derive(Debug, Clone)]
pub struct Boot {
    kernel: PathBuf,
    initramfs: PathBuf,
}

impl Boot {
    /// The files `vmlinuz` and `initramfs` of a folder, which `cargo xtask` makes.
    pub fn of(folder: &Path) -> Result<Self> {
        let file = |name: &str| {
            let path = folder.join(name);
            ensure!(path.is_file(), "{} is missing: `cargo xtask test` makes what a VM boots with", path.display());
            Ok(path)
        };
        Ok(Self { kernel: file("vmlinuz")?, initramfs: file("initramfs")? })
    }
}

const INIT: &str = include_str!("second_node/init.sh");

/// Programs of this machine that the node has, with the libraries that they need.
const MACHINES: [&str; 3] = ["runc", "mount", "umount"];
/// Plug-ins of its network.
const PLUGINS: [&str; 3] = ["bridge", "host-local", "loopback"];
/// Of containerd's release.
const CONTAINERD: [&str; 3] = ["containerd", "containerd-shim-runc-v2", "ctr"];

/// In MiB. A kubelet, containerd and a few small pods.
const MEMORY: &str = "3072";
/// Of the disk, in bytes; what is not written takes no place.
const DISK: u64 = 6 << 30;

/// Where things are on the disk.
const NETWORKS: &str = "/etc/cni/net.d";
const CONTAINERD_CONFIG: &str = "/etc/containerd.toml";
const KUBELET_CONFIG: &str = "/etc/kubelet.yaml";
const RESOLVER: &str = "/etc/resolv.conf";

/// Makes the disk, with these images to be loaded at the start, and says how the VM is started.
pub fn prepare(boot: &Boot, version: Version, programs: &Programs, state: &Path, images: &[&Image]) -> Result<Launch> {
    let folder = state.join(SECOND_NODE);
    let root = folder.join("root");
    fs::create_dir_all(&root)?;
    let disk = folder.join("disk");
    fill(&root, version, programs, &Pki::of(state.join("pki")), images)?;
    File::create(&disk)?.set_len(DISK)?;
    let mut make = Command::new(find("mkfs.ext4").context("install e2fsprogs")?);
    // A disk for a few minutes needs no journal and no reserve.
    make.args(["-q", "-O", "^has_journal", "-m", "0", "-d"]).arg(&root).arg(&disk);
    succeed(&mut make, None)?;
    fs::remove_dir_all(&root)?;
    // Emulated: stock kernels do not boot under the nested KVM of some test machines, and CI often has none.
    // Without what is dear to emulate: `xtask/src/vm/machine.rs`.
    let words = "-accel tcg,thread=multi -cpu max,-erms -smp 2 -no-reboot -nodefaults -display none -serial stdio";
    let mut arguments: Vec<String> = words.split(' ').map(str::to_owned).collect();
    for (option, value) in [
        ("-m", MEMORY.to_owned()),
        ("-kernel", boot.kernel.display().to_string()),
        ("-initrd", boot.initramfs.display().to_string()),
        ("-append", "console=ttyS0 quiet panic=-1 lsm=lockdown,capability,landlock,bpf".to_owned()),
        ("-drive", format!("file={},format=raw,if=virtio,cache=unsafe", disk.display())),
        ("-netdev", format!("tap,id=net,ifname={SECOND_LINK},script=no,downscript=no")),
        ("-device", "virtio-net-pci,netdev=net".to_owned()),
    ] {
        arguments.extend([option.to_owned(), value]);
    }
    let program = find("qemu-system-x86_64").context("install qemu-system-x86")?;
    Ok(Launch { name: SECOND_NODE, program, arguments, path: None, place: Place::Node })
}

/// Everything on the disk.
fn fill(root: &Path, version: Version, programs: &Programs, pki: &Pki, images: &[&Image]) -> Result<()> {
    for folder in ["dev", "proc", "sys", "run", "tmp", "root", "sbin", "images", "var/log", "var/lib/kubelet"] {
        fs::create_dir_all(root.join(folder))?;
    }
    copy(Path::new(BUSYBOX), root, Path::new("bin/busybox"))?;
    let mut libraries = BTreeSet::new();
    let mut program = |from: &Path, to: &Path| -> Result<()> {
        libraries.extend(needed(from)?);
        copy(from, root, to)
    };
    for name in CONTAINERD {
        program(&programs.containerd.join(name), &Path::new("usr/local/bin").join(name))?;
    }
    program(&programs.kubernetes.join("kubelet"), Path::new("usr/local/bin/kubelet"))?;
    for name in MACHINES {
        program(&find(name)?, &Path::new("usr/bin").join(name))?;
    }
    let plugins = node::network_plugins()?;
    for name in PLUGINS {
        // Where it is here, as the configuration says.
        let file = plugins.join(name);
        program(&file, file.strip_prefix("/")?)?;
    }
    for library in libraries {
        copy(&library, root, library.strip_prefix("/")?)?;
    }
    for file in ["ca.crt", &format!("{SECOND_KUBELET}.crt"), &format!("{SECOND_KUBELET}.key")] {
        copy_of_pki(pki, root, file)?;
    }
    copy_of_pki(pki, root, &format!("{SECOND_KUBELET}.conf"))?;

    let write = |path: &str, content: String| -> Result<()> {
        let file = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(file.parent().context("it has a folder")?)?;
        fs::write(&file, content).with_context(|| file.display().to_string())
    };
    write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n".into())?;
    write("etc/group", "root:x:0:\nnogroup:x:65534:\n".into())?;
    write("etc/hosts", "127.0.0.1 localhost\n".into())?;
    write("etc/os-release", "NAME=\"test node\"\n".into())?;
    write(RESOLVER, node::resolver_config())?;
    write(&format!("{NETWORKS}/{}", node::NETWORK), node::network_config(SECOND_PODS).to_string())?;
    write(CONTAINERD_CONFIG, node::containerd_config(Path::new(NETWORKS), Path::new("/opt/containerd"))?)?;
    let kubelet = Kubelet {
        node: SECOND_NODE,
        address: SECOND_ADDRESS,
        authority: &pki.path("ca.crt"),
        kubeconfig: &pki.kubeconfig(SECOND_KUBELET),
        resolver: Path::new(RESOLVER),
    };
    write(KUBELET_CONFIG, kubelet.config(version).to_string())?;
    let arguments = kubelet.arguments(version, Path::new(KUBELET_CONFIG)).join(" ");
    let address = format!("{SECOND_ADDRESS}{BITS}");
    let init = [
        ("@NODE@", SECOND_NODE),
        ("@ADDRESS@", &address),
        ("@GATEWAY@", SECOND_GATEWAY),
        ("@CONTAINERD@", CONTAINERD_CONFIG),
        ("@SOCKET@", SOCKET),
        ("@KUBELET@", &arguments),
    ];
    write("init", init.iter().fold(INIT.to_owned(), |text, (word, value)| text.replace(word, value)))?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    for (number, image) in images.iter().enumerate() {
        let mut layout = Layout::default();
        layout.image(image.name(), &image.build().with_context(|| format!("build {}", image.name()))?);
        layout.write(File::create(root.join(format!("images/{number}.tar")))?)?;
    }
    Ok(())
}

/// To the same place, where its kubeconfig looks for it.
fn copy_of_pki(pki: &Pki, root: &Path, file: &str) -> Result<()> {
    let path = pki.path(file);
    copy(Path::new(&path), root, Path::new(path.trim_start_matches('/')))
}

fn copy(from: &Path, root: &Path, to: &Path) -> Result<()> {
    let to = root.join(to);
    fs::create_dir_all(to.parent().context("it has a folder")?)?;
    fs::copy(from, &to).with_context(|| format!("copy {}", from.display())).map(drop)
}

/// The shared libraries that a program needs, its loader included; none of a static one.
fn needed(program: &Path) -> Result<Vec<PathBuf>> {
    // It fails for a static program.
    let said = Command::new("ldd").arg(program).output().context("ldd")?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    Ok(said.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

/// A program of this machine.
fn find(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut files = std::env::split_paths(&path).chain(usual).map(|folder| folder.join(name));
    files.find(|file| file.is_file()).with_context(|| format!("{name} is not installed"))
}
