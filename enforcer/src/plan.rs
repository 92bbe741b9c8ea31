//! What the command line asks for, checked as far as that is possible without touching anything.

use crate::{
    args::Run,
    output::Output,
    rulesets::{self, Rulesets},
};
use anyhow::{Context, bail, ensure};
use kube::config::Kubeconfig;
use nix::sys::statfs::{BPF_FS_MAGIC, CGROUP2_SUPER_MAGIC, statfs};
use ringfence_containers::{Container, ContainerKey, Kind};
use ringfence_policy::{Catalogue, Exception};
use std::{collections::BTreeMap, fs, path::Path};

/// A command line that can be followed.
pub struct Plan {
    /// Itself.
    pub args: Run,
    /// Where rulesets and containers come from.
    pub mode: Mode,
    /// `--exception`, read.
    pub exceptions: Vec<Exception>,
    /// `--log-file`, open.
    pub output: Output,
}

/// Where rulesets and containers come from.
pub enum Mode {
    /// Files, and a container runtime or cgroups that are named.
    Standalone {
        /// `--rulesets`, read.
        rulesets: Box<Rulesets>,
        /// `--cgroup`, as containers.
        cgroups: Vec<Container>,
    },
    /// The API server, and a container runtime.
    Cluster {
        /// What rulesets choose from.
        catalogue: Catalogue,
        /// `--policy`.
        policy: String,
        /// `--namespace`, or the service account's.
        namespace: String,
        /// `--kubeconfig`, read; none: as a pod.
        kubeconfig: Option<Box<Kubeconfig>>,
    },
}

/// Where a pod finds the namespace of its service account.
const OWN_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

impl Plan {
    /// Checks everything. An error is the user's to mend.
    pub fn new(args: Run) -> anyhow::Result<Self> {
        if !args.standalone && !args.cluster {
            bail!(
                "neither --standalone nor --cluster is given: say where rulesets come from, files (--standalone \
                 --rulesets DIR) or the API server (--cluster --policy NAME)"
            );
        }
        let exceptions = args
            .exception
            .iter()
            .map(|text| text.parse().map_err(|error| anyhow::anyhow!("--exception {text}: {error}")))
            .collect::<Result<_, _>>()?;
        check_bpffs(&args.bpffs)?;
        if let Some(root) = &args.cgroup_root {
            check_cgroup_root(root)?;
        }
        let catalogue = rulesets::catalogue(args.catalogue.as_deref()).map_err(anyhow::Error::msg)?;
        let mode = if args.cluster { cluster(&args, catalogue) } else { standalone(&args, catalogue) }?;
        let output = Output::open(args.output, args.log_file.as_deref()).map_err(anyhow::Error::msg)?;
        Ok(Self { args, mode, exceptions, output })
    }
}

fn standalone(args: &Run, catalogue: Catalogue) -> anyhow::Result<Mode> {
    let path = args.rulesets.as_ref().context(
        "--rulesets is missing: name a file or folder of rulesets, such as --rulesets /etc/ringfence/rulesets",
    )?;
    let cgroups = args.cgroup.iter().map(|text| named_cgroup(text)).collect::<Result<_, _>>()?;
    let rulesets = Box::new(Rulesets::load(path, catalogue).map_err(anyhow::Error::msg)?);
    Ok(Mode::Standalone { rulesets, cgroups })
}

fn cluster(args: &Run, catalogue: Catalogue) -> anyhow::Result<Mode> {
    let policy = args
        .policy
        .clone()
        .filter(|name| !name.is_empty())
        .context("--policy is missing: name the RuntimePolicy that is to be active, such as --policy default")?;
    let namespace = match &args.namespace {
        Some(name) => name.clone(),
        None => fs::read_to_string(OWN_NAMESPACE).with_context(|| {
            format!("--namespace is missing, and {OWN_NAMESPACE}, where a pod finds it, can't be read")
        })?,
    };
    ensure!(!namespace.trim().is_empty(), "--namespace is empty: name the namespace that Ringfence runs in");
    let kubeconfig = args.kubeconfig.as_deref().map(kubeconfig).transpose()?.map(Box::new);
    Ok(Mode::Cluster { catalogue, policy, namespace: namespace.trim().to_owned(), kubeconfig })
}

fn kubeconfig(path: &Path) -> anyhow::Result<Kubeconfig> {
    let place = path.display();
    let read = Kubeconfig::read_from(path).with_context(|| format!("--kubeconfig {place}"))?;
    ensure!(
        !read.clusters.is_empty(),
        "--kubeconfig {place}: it names no cluster; a file as kubectl has it in ~/.kube/config would be right"
    );
    Ok(read)
}

/// A folder that is no bpf file system yet will be hidden by one: it must be empty, or still be made.
pub fn check_bpffs(path: &Path) -> anyhow::Result<()> {
    if statfs(path).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC) {
        return Ok(());
    }
    let right = "name a bpf file system, or a folder where one can be mounted, such as /sys/fs/bpf";
    let place = path.display();
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => bail!("--bpffs {place}: it is not a folder; {right}"),
        Ok(_) => {
            let mut entries = fs::read_dir(path).with_context(|| format!("--bpffs {place}"))?;
            ensure!(
                entries.next().is_none(),
                "--bpffs {place}: the folder is not empty, its files would be hidden; {right}"
            );
            Ok(())
        }
        // The folder is made, if the one nearest to it is one where that is possible.
        Err(_) => {
            let above = path.ancestors().skip(1).find(|above| above.exists()).unwrap_or(Path::new("."));
            let is_kernels = statfs(above).is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::PROC_SUPER_MAGIC);
            ensure!(above.is_dir() && !is_kernels, "--bpffs {place}: it can't be made in {}; {right}", above.display());
            Ok(())
        }
    }
}

fn check_cgroup_root(path: &Path) -> anyhow::Result<()> {
    let place = path.display();
    let right = "name a directory of the cgroup v2 hierarchy that is above all containers, such as /sys/fs/cgroup";
    match statfs(path) {
        Ok(fs) if fs.filesystem_type() == CGROUP2_SUPER_MAGIC && path.is_dir() => Ok(()),
        Ok(_) => bail!("--cgroup-root {place}: it is not a directory of cgroup v2; {right}"),
        Err(error) => bail!("--cgroup-root {place}: {}; {right}", error.desc()),
    }
}

/// A cgroup of the command line as a container.
fn named_cgroup(text: &str) -> anyhow::Result<Container> {
    let (path, labels) = text.split_once(':').unwrap_or((text, ""));
    let names = path.strip_prefix('/').with_context(|| {
        format!("--cgroup {text}: the path below the hierarchy's root is to begin with '/', such as /system.slice/web.service")
    })?;
    ensure!(
        names.split('/').all(|name| !matches!(name, "" | "." | "..")),
        "--cgroup {text}: the path is to name a cgroup below the root, without '//', '.' and '..', such as \
         /system.slice/web.service"
    );
    let mut read = BTreeMap::new();
    for label in labels.split(',').filter(|label| !label.is_empty()) {
        let (key, value) = label.split_once('=').filter(|(key, _)| !key.is_empty()).with_context(|| {
            format!("--cgroup {text}: '{label}' is no label; labels are KEY=VALUE, joined by ',', such as app=web,tier=front")
        })?;
        if let Some(other) = read.insert(key.to_owned(), value.to_owned()) {
            bail!("--cgroup {text}: label {key} is given twice, as '{other}' and as '{value}'");
        }
    }
    let id = names.rsplit('/').next().unwrap_or(names).to_owned();
    Ok(Container {
        key: ContainerKey { namespace: "cgroup".to_owned(), id: id.clone() },
        name: id,
        kind: Kind::Plain,
        pod: None,
        labels: read,
        image: String::new(),
        image_digest: None,
        snapshotter: String::new(),
        cgroups_path: path.to_owned(),
        host_network: true,
        netns: None,
        pid: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_may_have_labels() {
        let container = named_cgroup("/app/web:tier=front,app=shop").unwrap();
        assert_eq!((container.key.id.as_str(), container.cgroups_path.as_str()), ("web", "/app/web"));
        assert_eq!(container.labels["app"], "shop");
        assert!(named_cgroup("/app").unwrap().labels.is_empty());
    }

    #[test]
    fn what_is_wrong_with_a_cgroup_is_named() {
        for (text, wrong) in [
            ("app", "begin with '/'"),
            ("", "begin with '/'"),
            ("/", "below the root"),
            ("//app", "'//'"),
            ("/app/../x", "'..'"),
            ("/app:tier", "'tier' is no label"),
            ("/app:=front", "'=front' is no label"),
            ("/app:a=1,a=2", "label a is given twice"),
        ] {
            let error = named_cgroup(text).unwrap_err().to_string();
            assert!(error.contains(wrong) && error.starts_with("--cgroup"), "{text}: {error}");
        }
    }

    #[test]
    fn a_kubeconfig_names_a_cluster() {
        let error = kubeconfig(Path::new("/dev/null")).unwrap_err().to_string();
        assert!(error.starts_with("--kubeconfig /dev/null: it names no cluster"), "{error}");
        let error = format!("{:#}", kubeconfig(Path::new("/nonexistent")).unwrap_err());
        assert!(error.starts_with("--kubeconfig /nonexistent: ") && error.contains("No such file"), "{error}");
    }

    #[test]
    fn a_bpf_file_system_hides_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        assert!(check_bpffs(folder.path()).is_ok() && check_bpffs(&folder.path().join("a/b")).is_ok());
        fs::write(&file, "").unwrap();
        for (path, wrong) in [(folder.path(), "not empty"), (&file, "not a folder"), (&file.join("a"), "can't be made")]
        {
            let error = check_bpffs(path).unwrap_err().to_string();
            assert!(error.contains(wrong) && error.contains("/sys/fs/bpf"), "{error}");
        }
        assert!(check_bpffs(Path::new("/proc/nothing")).is_err());
    }
}
