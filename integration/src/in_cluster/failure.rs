//! The webhook is away, or its certificate is one that it is given: what becomes of pods, by the chart.

use anyhow::{Context as _, Result, bail, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use serde_json::{Value, json};

use super::pods::{DRIFT, spec};
use super::release::Release;
use super::traffic::{self, HASH};
use super::{Context, OfRelease, Part, names_of, over_release, told};
use crate::cluster::{Ability, CertManager, Cluster, Helm, Interrupt, succeed};
use crate::harness::Image;
use crate::suite::Report;

pub const PART: Part = Part { names, run };

/// In this order: they share the release, and the last one removes it.
const TESTS: [(&str, OfRelease); 6] = [
    ("failure/webhook-away-ignore", ignore),
    ("failure/rulesets-that-do-not-fit-together", crowded),
    ("failure/webhook-away-fail", fail),
    ("failure/given-certificate", given_certificate),
    ("failure/cert-manager", cert_manager),
    ("failure/removed", removed),
];

const OBJECTS: &str = include_str!("failure/objects.yaml");

/// Where the chart is installed, and where others' pods are.
const NAMESPACE: &str = "watch";
const OTHERS: &str = "market";
const VALUES: [&str; 3] = ["policy.create=false", "crds.keep=false", "policy.active=main"];

fn names() -> Vec<String> {
    names_of(&TESTS)
}

fn run(context: &mut Context, report: &mut Report) {
    over_release(context, report, ("failure/installed", prepare), &TESTS);
}

fn prepare(context: &mut Context) -> Result<Release> {
    let release = Release::prepare(context, Helm::V4, "ringfence", NAMESPACE)?;
    let cluster = &mut context.cluster;
    release.install(cluster, &VALUES)?;
    cluster.apply(OBJECTS)?;
    release.enforces(cluster, "isolated")?;
    trusted(cluster)?;
    Ok(release)
}

/// Waits until the API server trusts the webhook, and the webhook knows the policy.
fn trusted(cluster: &mut Cluster) -> Result<()> {
    cluster.wait_for("labels of new pods", |cluster| {
        Ok(make(cluster, OTHERS, "probe", &["--dry-run=server"]).is_ok_and(|pod| is_labelled(&pod)))
    })
}

fn pod(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name, "on-drift": "isolate"}},
        "spec": spec(DRIFT),
    })
}

/// Makes a pod; returns it as the API server answers.
fn make(cluster: &Cluster, namespace: &str, name: &str, arguments: &[&str]) -> Result<Value> {
    let mut kubectl = cluster.command(cluster.kubectl_program());
    let pod = pod(namespace, name).to_string();
    let said = succeed(kubectl.args(["create", "-f", "-", "-o", "json"]).args(arguments), Some(&pod))?;
    Ok(serde_json::from_str(&said)?)
}

fn is_labelled(pod: &Value) -> bool {
    pod["metadata"]["labels"][HASH].is_string()
}

fn get(cluster: &Cluster, namespace: &str, pod: &str) -> Result<Value> {
    Ok(serde_json::from_str(&cluster.kubectl(["-n", namespace, "get", "pod", pod, "-o", "json"])?)?)
}

fn ready(cluster: &Cluster, namespace: &str, what: &str) -> Result<()> {
    cluster.kubectl(["-n", namespace, "wait", "--for=condition=Ready", "--timeout=180s", what]).map(drop)
}

fn delete(cluster: &Cluster, namespace: &str, pod: &str) -> Result<()> {
    cluster.kubectl(["-n", namespace, "delete", "pod", pod, "--force"]).map(drop)
}

/// Until it labels pods again.
fn bring_back(cluster: &mut Cluster, release: &Release) -> Result<()> {
    release.bring_webhook_back(cluster)?;
    trusted(cluster)
}

/// A pod comes without labels, its node governs it all the same, and the labels come with the webhook.
fn ignore(cluster: &mut Cluster, release: &Release) -> Result<()> {
    release.take_webhook_away(cluster)?;
    let made = make(cluster, OTHERS, "alone", &[])?;
    ensure!(!is_labelled(&made), "somebody labelled it: {}", made["metadata"]);
    ready(cluster, OTHERS, "pod/alone")?;
    cluster.kubectl(["-n", OTHERS, "exec", "alone", "--", "touch", "/tmp/go"])?;
    told::event(cluster, OTHERS, "alone", "PodIsolated")?;
    let pod = get(cluster, OTHERS, "alone")?;
    ensure!(!is_labelled(&pod), "somebody labelled it meanwhile: {}", pod["metadata"]);
    bring_back(cluster, release)?;
    cluster.wait_for("its labels", |cluster| Ok(is_labelled(&get(cluster, OTHERS, "alone")?)))?;
    let labels = get(cluster, OTHERS, "alone")?["metadata"]["labels"].clone();
    for label in ["ruleset.ringfence.dev/everywhere", "ruleset.ringfence.dev/isolated"] {
        ensure!(labels[label] == "1", "{label} is not among {labels}");
    }
    delete(cluster, OTHERS, "alone")
}

/// Rulesets of which each is right, and a policy that names them: too many for the kernel's tables, since the exceptions of
/// each are others.
fn demanding(number: usize) -> Value {
    let exceptions = json!([{"processes": [format!("/opt/{number}")]}]);
    let rule = |id| json!({"rule": id, "mitigation": "log", "exceptions": exceptions});
    let rules: Vec<_> = ["RF-211", "RF-401", "RF-903", "RF-906"].into_iter().map(rule).collect();
    json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "RuntimeRuleset",
        "metadata": {"name": format!("demanding-{number}")}, "spec": {"rules": rules},
    })
}

/// The webhook refuses them. While it is away they get in, and what was enforced stays so, for an enforcer that starts then
/// too; all say why. With a policy that fits, that is enforced.
fn crowded(cluster: &mut Cluster, release: &Release) -> Result<()> {
    const DEMANDING: usize = 40;
    let rulesets =
        json!({"apiVersion": "v1", "kind": "List", "items": (0..DEMANDING).map(demanding).collect::<Vec<_>>()});
    cluster.apply(&rulesets.to_string())?;
    let before = ["everywhere".to_owned(), "isolated".to_owned()];
    let wanted = before.iter().cloned().chain((0..DEMANDING).map(|number| format!("demanding-{number}")));
    let policy = |rulesets: Vec<String>| {
        let policy = json!({
            "apiVersion": "ringfence.dev/v1alpha1", "kind": "RuntimePolicy",
            "metadata": {"name": "main"}, "spec": {"rulesets": rulesets},
        });
        policy.to_string()
    };
    let crowd = policy(wanted.collect());
    let why = "class Open is full";
    let Err(refused) = cluster.apply(&crowd) else { bail!("the webhook let too much in") };
    let refused = format!("{refused:#}");
    ensure!(
        refused.contains("spec.rulesets: they do not fit beside one another") && refused.contains(why),
        "{refused}"
    );

    release.take_webhook_away(cluster)?;
    cluster.apply(&crowd)?;
    let rejected = |cluster: &mut Cluster| -> Result<bool> {
        let status = release.status(cluster)?["rulesets"].clone();
        let names = status["names"] == json!(before);
        Ok(names && status["rejected"].as_str().is_some_and(|said| said.contains(why)))
    };
    cluster.wait_for("that the node refuses the change", rejected)?;
    cluster.kubectl(["-n", NAMESPACE, "rollout", "restart", "daemonset/ringfence-enforcer"])?;
    cluster.kubectl(["-n", NAMESPACE, "rollout", "status", "daemonset/ringfence-enforcer", "--timeout=180s"])?;
    cluster.wait_for("that an enforcer which starts then has what was in force before", rejected)?;
    make(cluster, OTHERS, "held", &[])?;
    ready(cluster, OTHERS, "pod/held")?;
    cluster.kubectl(["-n", OTHERS, "exec", "held", "--", "touch", "/tmp/go"])?;
    told::event(cluster, OTHERS, "held", "PodIsolated")?;
    delete(cluster, OTHERS, "held")?;

    bring_back(cluster, release)?;
    let mut last = Value::Null;
    let told = cluster.wait_for("why, in the policy's status", |cluster| {
        last = told::status(cluster, "rpol/main")?;
        let degraded = told::condition(&last, "Degraded");
        let mut failures = last["failures"].as_array().into_iter().flatten();
        Ok(degraded["status"] == "True"
            && degraded["reason"] == "NodesFail"
            && failures.any(|it| it["nodes"] == 1 && it["reason"].as_str().is_some_and(|said| said.contains(why))))
    });
    told.with_context(|| last.to_string())?;
    let mut fits = before.to_vec();
    fits.push("demanding-7".to_owned());
    cluster.apply(&policy(fits))?;
    cluster.wait_for("what fits, on the node,", |cluster| {
        let status = release.status(cluster)?["rulesets"].clone();
        let names = status["names"].as_array().map(Vec::len);
        Ok(names == Some(before.len() + 1) && status["rejected"].is_null())
    })?;
    cluster.apply(&policy(before.to_vec()))?;
    let names: Vec<_> = (0..DEMANDING).map(|number| format!("demanding-{number}")).collect();
    cluster.wait_for("that the webhook lets them go", |cluster| {
        let words = ["delete", "runtimerulesets", "--ignore-not-found"].map(str::to_owned);
        Ok(cluster.kubectl(words.iter().chain(&names)).is_ok())
    })?;
    trusted(cluster)
}

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: waits, namespace: market}
spec:
  selector: {matchLabels: {app: waits}}
  template:
    metadata: {labels: {app: waits}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: main, image: "localhost/basics:1", imagePullPolicy: Never, command: [sleep, "999999"]}
"#;

/// Pods are refused with what is the matter; those of the system and of the webhook itself are not; it comes back without
/// anybody's help, and so does what waited for it.
fn fail(cluster: &mut Cluster, release: &Release) -> Result<()> {
    let values = [&VALUES[..], &["webhook.failurePolicy=Fail"]].concat();
    if !cluster.version().can(Ability::NamespaceNames) {
        let Err(error) = release.upgrade(cluster, &values) else {
            bail!("Fail was taken, although the namespaces are not labelled");
        };
        let hint = "kubectl label namespace kube-system kubernetes.io/metadata.name=kube-system";
        ensure!(format!("{error:#}").contains(hint), "{hint:?} is not in: {error:#}");
        for namespace in ["kube-system", NAMESPACE] {
            cluster.kubectl(["label", "namespace", namespace, &format!("kubernetes.io/metadata.name={namespace}")])?;
        }
    }
    release.upgrade(cluster, &values)?;
    // It exists before: a template is asked about too.
    cluster.apply(DEPLOYMENT)?;
    cluster.kubectl(["-n", OTHERS, "rollout", "status", "deployment/waits", "--timeout=180s"])?;
    release.take_webhook_away(cluster)?;
    let Err(error) = make(cluster, OTHERS, "refused", &[]) else { bail!("a pod was made without the webhook") };
    let error = format!("{error:#}");
    for part in ["failed calling webhook", "pods.ringfence.dev", "ringfence-webhook"] {
        ensure!(error.contains(part), "{part:?} is not in: {error}");
    }
    for namespace in ["kube-system", NAMESPACE] {
        cluster.wait_for("the service account", |cluster| {
            Ok(cluster.kubectl(["-n", namespace, "get", "serviceaccount", "default"]).is_ok())
        })?;
        make(cluster, namespace, "admitted", &[]).with_context(|| format!("in {namespace}"))?;
        delete(cluster, namespace, "admitted")?;
    }
    // A pod that has to be made anew waits.
    cluster.kubectl(["-n", OTHERS, "delete", "pods", "-l", "app=waits", "--force"])?;
    cluster.wait_for("that it is told", |cluster| {
        let events = ["-n", OTHERS, "get", "events", "--field-selector=reason=FailedCreate", "-o"];
        Ok(cluster.kubectl(events.iter().chain(&["jsonpath={.items[*].message}"]))?.contains("pods.ringfence.dev"))
    })?;
    bring_back(cluster, release)?;
    cluster.kubectl(["-n", OTHERS, "rollout", "status", "deployment/waits", "--timeout=120s"])?;
    let labelled = ["-n", OTHERS, "get", "pods", "-l", HASH, "-o", "jsonpath={.items[*].metadata.labels.app}"];
    cluster.wait_for("its pod, labelled,", |cluster| Ok(cluster.kubectl(labelled)?.contains("waits")))?;
    cluster.kubectl(["-n", OTHERS, "delete", "deployment", "waits"]).map(drop)
}

/// An authority of a test's own.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Result<Self> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self(CertifiedIssuer::self_signed(parameters, KeyPair::generate()?)?))
    }

    /// A Secret with a certificate for the webhook.
    fn secret(&self) -> Result<String> {
        let mut parameters = CertificateParams::default();
        let name = format!("ringfence-webhook.{NAMESPACE}.svc");
        parameters.subject_alt_names.push(SanType::DnsName(name.try_into()?));
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &self.0)?;
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "given", "namespace": NAMESPACE},
            "stringData": {"tls.crt": certificate.pem(), "tls.key": key.serialize_pem()},
        });
        Ok(secret.to_string())
    }
}

/// A certificate that somebody else made works, and is replaced under load without a refused pod. That the new one is
/// served is certain: in the end, its authority alone is trusted.
fn given_certificate(cluster: &mut Cluster, release: &Release) -> Result<()> {
    let (old, new) = (Authority::new("old")?, Authority::new("new")?);
    let trust = |authorities: &[&Authority]| {
        let bundle: String = authorities.iter().map(|authority| authority.0.pem()).collect();
        format!("webhook.certificate.caBundle={}", BASE64_STANDARD.encode(bundle))
    };
    let with = |bundle: String| -> Vec<String> {
        let own = ["webhook.failurePolicy=Fail", "webhook.certificate.source=secret"];
        let values = VALUES.iter().chain(&own).chain(&["webhook.certificate.secretName=given"]);
        values.map(|&value| value.to_owned()).chain([bundle]).collect()
    };
    cluster.apply(&old.secret()?)?;
    let values = with(trust(&[&old, &new]));
    let values: Vec<_> = values.iter().map(String::as_str).collect();
    let Err(error) = release.upgrade(cluster, &values) else { bail!("the webhook's own bundle was given away") };
    ensure!(format!("{error:#}").contains("conflict with \"ringfence-webhook\""), "{error:#}");
    release.upgrade_by_force(cluster, &values)?;
    trusted(cluster)?;
    traffic::during(cluster, OTHERS, |cluster| {
        cluster.apply(&new.secret()?)?;
        cluster.wait_for("the new certificate in both replicas", |cluster| {
            // Of a folder: replicas that had an authority of their own may still be on their way out.
            let said = told::logs(cluster, NAMESPACE, "--selector=app.kubernetes.io/name=ringfence-webhook")?;
            let of_folder = |line: &&str| line.contains("new certificate") && line.contains("folder");
            Ok(said.lines().filter(of_folder).count() == 2)
        })?;
        let values = with(trust(&[&new]));
        release.upgrade(cluster, &values.iter().map(String::as_str).collect::<Vec<_>>())?;
        let bundle = "jsonpath={.webhooks[0].clientConfig.caBundle}";
        let told = cluster.kubectl(["get", "mutatingwebhookconfiguration", "ringfence", "-o", bundle])?;
        ensure!(trust(&[&new]).ends_with(&told), "the API server trusts others");
        for _ in 0..20 {
            ensure!(is_labelled(&make(cluster, OTHERS, "trusts", &["--dry-run=server"])?), "it is not labelled");
        }
        Ok(())
    })
}

/// What cert-manager needs besides its programs. It may do everything here; what it needs at least is its own affair.
const CERT_MANAGER: &str = include_str!("failure/cert-manager.yaml");
const CERT_MANAGER_IMAGE: &str = "localhost/cert-manager:1";

/// cert-manager makes the certificate, tells the API server whom to trust, and makes another one.
fn cert_manager(cluster: &mut Cluster, release: &Release) -> Result<()> {
    let manager = CertManager::ensure(&Interrupt::default())?;
    let image = Image::empty(CERT_MANAGER_IMAGE).file(&manager.programs.join("controller"), "/controller", 0o755).file(
        &manager.programs.join("cainjector"),
        "/cainjector",
        0o755,
    );
    cluster.import(&image)?;
    cluster.apply(&manager.definitions)?;
    cluster.kubectl(["wait", "--for=condition=Established", "--timeout=30s", "crd/certificates.cert-manager.io"])?;
    cluster.apply(CERT_MANAGER)?;
    for name in ["controller", "cainjector"] {
        let deployment = format!("deployment/{name}");
        cluster.kubectl(["-n", "cert-manager", "rollout", "status", &deployment, "--timeout=180s"])?;
    }
    // Ignore: until the bundle is written, new pods are not labelled.
    let values = [&VALUES[..], &["webhook.certificate.source=cert-manager"]].concat();
    release.upgrade(cluster, &values)?;
    trusted(cluster)?;
    let certificate = |cluster: &Cluster| {
        let path = "jsonpath={.data.tls\\.crt}";
        cluster.kubectl(["-n", NAMESPACE, "get", "secret", "ringfence-webhook-cert", "--ignore-not-found", "-o", path])
    };
    let first = certificate(cluster)?;
    ensure!(!first.is_empty(), "there is no certificate in the Secret");
    let bundle = "jsonpath={.webhooks[0].clientConfig.caBundle}";
    let trusts =
        |cluster: &Cluster| cluster.kubectl(["get", "mutatingwebhookconfiguration", "ringfence", "-o", bundle]);
    // It signs itself.
    cluster.wait_for("the bundle", |cluster| Ok(trusts(cluster)? == first))?;

    cluster.kubectl(["-n", NAMESPACE, "delete", "secret", "ringfence-webhook-cert"])?;
    cluster.wait_for("another certificate", |cluster| {
        let second = certificate(cluster)?;
        Ok(!second.is_empty() && second != first && trusts(cluster)? == second)
    })?;
    trusted(cluster)?;
    cluster.kubectl(["delete", "namespace", "cert-manager", "--timeout=180s"])?;
    cluster.kubectl(["delete", "clusterrolebinding", "cert-manager"]).map(drop)
}

fn removed(cluster: &mut Cluster, release: &Release) -> Result<()> {
    release.uninstall(cluster)?;
    cluster.kubectl(["delete", "namespace", OTHERS, NAMESPACE, "--timeout=120s"])?;
    // The definitions of cert-manager, and with them what was made of them.
    let all = cluster.kubectl(["get", "crd", "-o", "name"])?;
    let theirs: Vec<_> = all.lines().filter(|name| name.ends_with("cert-manager.io")).collect();
    if theirs.is_empty() { Ok(()) } else { cluster.kubectl(["delete"].iter().chain(&theirs)).map(drop) }
}
