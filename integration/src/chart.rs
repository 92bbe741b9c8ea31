//! What the chart makes of values, by real Helms. Needs no cluster.
//!
//! `chart/overrides/NAME.yaml` are overrides files as users write them, `chart/golden/NAME.yaml` what comes of them,
//! without the custom resource definitions and without empty lines. `RINGFENCE_BLESS=1` writes the latter anew.

mod values;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::cluster::{Helm, Interrupt, succeed};
use crate::suite::Report;

const HELMS: [(&str, Helm); 2] = [("helm3", Helm::V3), ("helm4", Helm::V4)];

/// Overrides files.
const OVERRIDES: [&str; 15] = [
    "aks-fail",
    "cert-manager",
    "components",
    "converted",
    "default",
    "digests-proxy",
    "eks-tolerations",
    "given-certificate",
    "gke-autopilot",
    "k3s-detected",
    "k3s-one-replica",
    "oldest-kubernetes",
    "openshift",
    "openshift-detected",
    "switched-off",
];

/// What is refused, and all that is said about it: the path above all.
const REFUSED: [(&str, &[&str]); 20] = [
    ("runtimeSecurity.enabeld=true", &["/runtimeSecurity", "'enabeld'"]),
    ("runtimesecurity.enabled=true", &["'runtimesecurity'"]),
    ("runtimeSecurity.enabled=off", &["/runtimeSecurity/enabled", "boolean"]),
    ("runtimeSecurity.tolerations=all", &["/runtimeSecurity/tolerations", "array"]),
    ("runtimeSecurity.tolerations[0].operator=exists", &["/runtimeSecurity/tolerations/0/operator", "'Exists'"]),
    (
        "webhook.tolerations[0].operator=,webhook.tolerations[0].effect=NoSchedule",
        &["/webhook/tolerations/0/operator", "'Exists'"],
    ),
    ("runtimeSecurity.tolerations[0].keys=a", &["/runtimeSecurity/tolerations/0", "'keys'"]),
    ("runtimeSecurity.tolerations[0].value=a", &["/runtimeSecurity/tolerations/0", "'operator'"]),
    (
        "webhook.tolerations[0].operator=Exists,webhook.tolerations[0].value=a",
        &["/webhook/tolerations/0/value", "value must be ''"],
    ),
    ("webhook.tolerations[0].tolerationSeconds=5", &["/webhook/tolerations/0", "'effect'"]),
    ("webhook.failurePolicy=ignore", &["/webhook/failurePolicy", "'Ignore', 'Fail'"]),
    ("webhook.replicas=0", &["/webhook/replicas"]),
    ("webhook.image.digest=sha256:12", &["/webhook/image/digest"]),
    ("webhook.image.pullSecrets[0]=mine", &["/webhook/image/pullSecrets/0", "object"]),
    ("webhook.resources.limits.memory=1GB", &["/webhook/resources/limits/memory"]),
    ("platform=ekz", &["/platform", "'eks'"]),
    ("policy.active=My_Policy", &["/policy/active"]),
    ("policy.maxMitigation=kill", &["/policy/maxMitigation", "'terminate'"]),
    ("platform=gke-autopilot", &["platform gke-autopilot", "WorkloadAllowlist", "gkeAutopilot.allowlisted=true"]),
    ("webhook.certificate.source=secret", &["webhook.certificate.secretName", "webhook.certificate.caBundle"]),
];

/// What the notes of an installation say of values, and what they don't.
const NOTES: [(&str, &str, &str); 4] = [
    ("policy.maxMitigation=log", "Policy \"default\" is the active one. It is a dry run", "mitigations up to"),
    ("policy.maxMitigation=isolate", "active one, with mitigations up to isolate", "dry run"),
    ("policy.create=false,policy.active=mine", "No pod is governed until policy \"mine\" is made", "active one"),
    ("runtimeSecurity.enabled=false", "Runtime security is off", "daemonset/ringfence-enforcer"),
];

const VALUES: &str = "chart/values-are-documented";

/// Helm 3 installs nothing without a cluster, not even to try.
const OF_NOTES: &str = "chart/helm4/notes";

/// Where the chart is.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/ringfence")
}

/// Names of the tests.
pub fn names() -> Vec<String> {
    let of_helm = |helm: &'static str| {
        let golden = OVERRIDES.into_iter().map(move |name| golden_name(helm, name));
        golden.chain([lint_name(helm), refused_name(helm)])
    };
    HELMS.into_iter().flat_map(|(helm, _)| of_helm(helm)).chain([VALUES, OF_NOTES].map(str::to_owned)).collect()
}

fn golden_name(helm: &str, name: &str) -> String {
    format!("chart/{helm}/{name}")
}

fn lint_name(helm: &str) -> String {
    format!("chart/{helm}/lint")
}

fn refused_name(helm: &str) -> String {
    format!("chart/{helm}/refused")
}

/// Runs those tests that the report wants.
pub fn run(report: &mut Report, interrupt: &Interrupt) -> Result<()> {
    if !names().iter().any(|name| report.wants(name)) {
        return Ok(());
    }
    let documents = [folder().join("../../docs/install.md"), folder().join("README.md")];
    report.check(VALUES, || {
        let of = folder().join("values.yaml");
        documents.iter().try_for_each(|document| values::compare(&of, document, bless()))
    });
    for (name, helm) in HELMS {
        let program = helm.program(interrupt)?;
        report.check(&lint_name(name), || lint(&program));
        for overrides in OVERRIDES {
            report.check(&golden_name(name, overrides), || golden(&program, overrides));
        }
        report.check(&refused_name(name), || refused(&program));
        if OF_NOTES.split('/').any(|part| part == name) {
            report.check(OF_NOTES, || notes(&program));
        }
    }
    Ok(())
}

/// A command of Helm's that leaves nothing in the user's folders and knows no cluster.
fn helm(program: &Path) -> Command {
    let mut helm = Command::new(program);
    let nowhere = std::env::temp_dir().join("ringfence-helm-has-none");
    helm.env("KUBECONFIG", "/dev/null");
    helm.envs(["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"].map(|name| (name, &nowhere)));
    helm
}

fn template(program: &Path) -> Command {
    let mut helm = helm(program);
    helm.args(["template", "ringfence"]).arg(folder()).args(["--namespace", "security"]);
    helm
}

fn lint(program: &Path) -> Result<()> {
    for overrides in OVERRIDES {
        let said = succeed(
            helm(program).args(["lint", "--strict"]).arg(folder()).arg("-f").arg(overrides_file(overrides)),
            None,
        )?;
        for word in ["[WARNING]", "[ERROR]"] {
            ensure!(!said.contains(word), "{overrides}: {said}");
        }
    }
    Ok(())
}

fn overrides_file(name: &str) -> PathBuf {
    own_folder().join("overrides").join(name).with_extension("yaml")
}

/// Whether what is found is right from now on.
fn bless() -> bool {
    std::env::var_os("RINGFENCE_BLESS").is_some()
}

fn own_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/chart")
}

fn golden(program: &Path, name: &str) -> Result<()> {
    let overrides = overrides_file(name);
    let text = fs::read_to_string(&overrides).with_context(|| overrides.display().to_string())?;
    let server = |what: &str| text.lines().find_map(|line| line.strip_prefix(what));
    let mut command = template(program);
    command.arg("-f").arg(&overrides).args(["--kube-version", server("# kube-version: ").unwrap_or("1.37.0")]);
    command.args(server("# api-versions: ").map(|served| format!("--api-versions={served}")));
    let said = succeed(&mut command, None)?;
    let (definitions, others): (Vec<_>, Vec<_>) =
        said.split("\n---\n").partition(|document| document.contains("\nkind: CustomResourceDefinition\n"));
    let kept = definitions.iter().filter(|text| text.contains("helm.sh/resource-policy: keep")).count();
    let keep = !text.contains("keep: false");
    ensure!(
        definitions.len() == 2 && kept == if keep { 2 } else { 0 },
        "{} definitions, {kept} kept",
        definitions.len()
    );
    let documents = others.iter().map(|document| {
        let lines = document.lines().filter(|line| !line.trim().is_empty() && *line != "---");
        lines.collect::<Vec<_>>().join("\n")
    });
    // Each Helm has an order of its own, which does not matter.
    let documents: BTreeSet<_> = documents.collect();
    let found = documents.into_iter().collect::<Vec<_>>().join("\n---\n") + "\n";
    let file = own_folder().join("golden").join(name).with_extension("yaml");
    if bless() {
        fs::write(&file, &found)?;
    }
    let expected = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    if let Some(number) =
        (0..).zip(found.lines().zip(expected.lines())).find_map(|(number, (a, b))| (a != b).then_some(number))
    {
        let line = |text: &str| text.lines().nth(number).unwrap_or_default().to_owned();
        bail!("line {}: {:?} instead of {:?}", number + 1, line(&found), line(&expected));
    }
    ensure!(found.lines().count() == expected.lines().count(), "one ends before the other");
    Ok(())
}

fn refused(program: &Path) -> Result<()> {
    for (value, parts) in REFUSED {
        let mut command = template(program);
        let Err(error) = succeed(command.args(["--set", value]), None) else { bail!("{value} was taken") };
        let error = format!("{error:#}");
        for part in parts {
            ensure!(error.contains(part), "{value}: {part:?} is not in: {error}");
        }
    }
    Ok(())
}

fn notes(program: &Path) -> Result<()> {
    for (values, expected, unexpected) in NOTES {
        let mut command = helm(program);
        command.args(["install", "ringfence"]).arg(folder()).args(["--dry-run=client", "--set", values]);
        let said = succeed(&mut command, None)?;
        let (_, notes) = said.split_once("\nNOTES:\n").context("no notes")?;
        ensure!(notes.contains(expected), "{values}: {expected:?} is not in: {notes}");
        ensure!(!notes.contains(unexpected), "{values}: {unexpected:?} is in: {notes}");
    }
    Ok(())
}
