//! The webhook's time and processor time for a pod among 1,000 rulesets, over TLS.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hyper::StatusCode;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde_json::{Value, json};

use super::load::{self, Ask, Connection, Protocol};
use super::objects;
use super::site::{NAMESPACE, Site};
use super::webhook::{self, Webhook};
use super::{meter, pinned};
use crate::bench::{Targets, machine};

/// Rulesets of the cluster.
const RULESETS: usize = 1_000;
/// Those that select every pod.
const EVERYWHERE: usize = 5;
/// Those that select the pods of which many are to be selected by many.
const MANY: usize = 95;
/// Pods that are reviewed, in each way of asking.
const PODS: usize = 10_000;
/// All ways of asking take turns: what else the machine does hits all of them alike.
const ROUNDS: usize = 20;
/// Requests at a time, where the throughput is measured.
const AT_ONCE: usize = 32;
/// Limit for the webhook's own start.
const SETTLING: Duration = Duration::from_mins(5);
/// The namespace of most pods, and one that the policy excludes.
const GOVERNED: &str = "shop";
const EXCLUDED: &str = "kube-system";

/// Ways of asking.
const WAYS: [(&str, &str); 5] = [
    ("few", "a pod that 6 or 7 rulesets select, mutate"),
    ("many", "a pod that 101 or 102 rulesets select, mutate"),
    ("validate", "a pod that 6 or 7 rulesets select, validate"),
    ("excluded", "a pod of an excluded namespace, mutate"),
    ("nothing", "as many bytes that are no review: TLS and HTTP alone"),
];

/// What came of one way.
#[derive(Default)]
struct Measured {
    /// Of each request, when there is one at a time.
    alone: Vec<Duration>,
    /// The same by HTTP/1.1.
    alone_1: Vec<Duration>,
    /// When there are many.
    crowded: Vec<Duration>,
    /// Of each round with many at a time: a second, and a second of the webhook's processor time.
    rates: Vec<(f64, f64)>,
}

/// Measures; returns Markdown and the numbers.
pub fn run(site: &mut Site) -> Result<(String, Value)> {
    let heading = machine()?;
    let admin = site.admin.clone();
    let bodies = site.block_on(async {
        objects::namespaces(&admin, &[GOVERNED.to_owned()]).await?;
        objects::rulesets(&admin, rulesets()).await?;
        let pod = objects::pod(GOVERNED, "app-1", 1, &json!({}), None);
        objects::completed(&admin, &pod).await
    })?;
    let asks = WAYS.map(|(way, _)| asks(way, &bodies));
    let bytes = asks[0][0].body.len();
    // One processor for the webhook, the other ones for whoever asks.
    let webhook = Webhook::start(site, Some("0"), &[])?;
    webhook::trusted(site)?;
    // Each ruleset gets its first status.
    webhook.settled(SETTLING)?;
    let authorities = site.block_on(authorities(&admin))?;
    let pid = webhook.pid();
    let measured = pinned(1, || measure(&asks, &authorities, pid))??;
    let memory = meter::Memory::of(pid)?;
    Ok(report(&heading, bytes, &measured, memory))
}

fn rulesets() -> Vec<Value> {
    let one = |i: usize| {
        let application = format!("app-{i}");
        let selector = match i {
            _ if i < EVERYWHERE => json!({}),
            _ if i < EVERYWHERE + MANY => json!({"matchLabels": {"tier": "many"}}),
            _ if i.is_multiple_of(2) => json!({"matchLabels": {"app": application}}),
            _ => json!({"matchExpressions": [
                {"key": "app", "operator": "In", "values": [application, format!("{application}-canary")]},
                {"key": "unmanaged", "operator": "DoesNotExist"},
            ]}),
        };
        objects::ruleset(&format!("set-{i:04}"), &selector)
    };
    (0..RULESETS).map(one).collect()
}

/// Reviews of pods, each of another application and name.
fn asks(way: &str, completed: &Value) -> Vec<Ask> {
    let one = |i: usize| {
        let mut pod = completed.clone();
        let namespace = if way == "excluded" { EXCLUDED } else { GOVERNED };
        let application = format!("app-{}", EVERYWHERE + MANY + i % (RULESETS - EVERYWHERE - MANY));
        pod["metadata"]["name"] = json!(format!("{application}-7d4b9c5f6-{i:05}"));
        pod["metadata"]["namespace"] = json!(namespace);
        pod["metadata"]["labels"]["app"] = json!(application);
        if way == "many" {
            pod["metadata"]["labels"]["tier"] = json!("many");
        }
        let review = json!({
            "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
            "request": {
                "uid": format!("705ab4f5-6393-11e8-b7cc-{i:012}"),
                "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
                "requestResource": {"group": "", "version": "v1", "resource": "pods"},
                "name": pod["metadata"]["name"], "namespace": namespace, "operation": "CREATE",
                "userInfo": {
                    "username": "system:serviceaccount:kube-system:replicaset-controller",
                    "uid": "a7e0ab33-5f29-11e8-8a3c-36e6bb280816",
                    "groups": ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"],
                },
                "object": pod, "oldObject": null, "dryRun": false,
                "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
            },
        });
        Ask {
            path: if way == "validate" { "/validate" } else { "/mutate" },
            body: if way == "nothing" { format!("no {review}") } else { review.to_string() }.into(),
        }
    };
    (0..PODS).map(one).collect()
}

/// What the webhook's certificate is signed by.
async fn authorities(client: &kube::Client) -> Result<Vec<u8>> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    let secret = secrets.get("ringfence-webhook-tls").await?;
    let bundle = secret.data.and_then(|mut data| data.remove("ca.crt"));
    Ok(bundle.context("the webhook has no authority")?.0)
}

fn measure(asks: &[Vec<Ask>; WAYS.len()], authorities: &[u8], pid: u32) -> Result<[Measured; WAYS.len()]> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut two = Connection::open(Protocol::Two, authorities).await?;
        let mut one = Connection::open(Protocol::One, authorities).await?;
        let mut measured = std::array::from_fn(|_| Measured::default());
        for (round, start) in (0..PODS).step_by(PODS / ROUNDS).enumerate() {
            eprintln!("admission: round {} of {ROUNDS}", round + 1);
            for ((way, asks), measured) in WAYS.iter().zip(asks).zip(&mut measured) {
                let expected = if way.0 == "nothing" { StatusCode::BAD_REQUEST } else { StatusCode::OK };
                let asks = &asks[start..start + PODS / ROUNDS];
                if round == 0 {
                    check(way.0, &two.ask(&asks[0]).await?.1)?;
                }
                measured.alone.extend(load::in_turn(&mut two, asks, expected).await?);
                measured.alone_1.extend(load::in_turn(&mut one, asks, expected).await?);
                // Often enough that the ticks by which processor time is counted do not matter.
                let before = meter::processor(pid)?;
                let mut all = Duration::ZERO;
                let mut count = 0.0;
                while all < Duration::from_secs(1) {
                    let (times, elapsed) = load::at_once(&two, asks, AT_ONCE, expected).await?;
                    count += f64::from(u32::try_from(times.len())?);
                    all += elapsed;
                    measured.crowded.extend(times);
                }
                let used = meter::processor(pid)?.saturating_sub(before);
                measured.rates.push((count / all.as_secs_f64(), count / used.as_secs_f64()));
            }
        }
        Ok(measured)
    })
}

/// It is the answer that this way is about.
fn check(way: &str, answer: &[u8]) -> Result<()> {
    if way == "nothing" {
        return Ok(());
    }
    let answer: Value = serde_json::from_slice(answer).context("the webhook's answer")?;
    let patched = answer["response"]["patch"].is_string();
    let expected = matches!(way, "few" | "many");
    ensure!(patched == expected && answer["response"]["allowed"] == true, "{way}: {answer}");
    Ok(())
}

fn percentile(times: &[Duration], percent: usize) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e6)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    crate::bench::median(&values.collect::<Vec<_>>())
}

fn report(heading: &str, bytes: usize, measured: &[Measured; WAYS.len()], memory: meter::Memory) -> (String, Value) {
    let numbers = |measured: &Measured| {
        let of = |times: &[Duration]| json!({"p50_us": percentile(times, 50), "p99_us": percentile(times, 99), "requests": times.len()});
        json!({
            "h2": of(&measured.alone), "http1": of(&measured.alone_1), "h2_32_at_once": of(&measured.crowded),
            "per_second": median(measured.rates.iter().map(|rate| rate.0)),
            "per_processor_second": median(measured.rates.iter().map(|rate| rate.1)),
        })
    };
    let all: serde_json::Map<String, Value> =
        WAYS.iter().zip(measured).map(|((way, _), measured)| ((*way).to_owned(), numbers(measured))).collect();
    let all = Value::Object(all);
    let number = |way: &str, path: &str| all[way].pointer(path).and_then(Value::as_f64).unwrap_or_default();
    let mut targets = Targets::default();
    let what = "a pod among 1,000 rulesets";
    targets.at_most(&format!("{what}, median"), 150.0, number("few", "/h2/p50_us"), "us");
    targets.at_most(&format!("{what}, p99"), 1_000.0, number("few", "/h2/p99_us"), "us");
    targets.at_least(&format!("{what}, on one processor"), 5_000.0, number("few", "/per_second"), "/s");
    let mut text = format!("{heading}{}", targets.table());
    text +=
        "\n## Requests\n\n| | median | p99 | median, HTTP/1.1 | p99 | a second | of nothing's | a processor second |\n";
    text += "|---|---|---|---|---|---|---|---|\n";
    for (way, what) in WAYS {
        let of = |path| number(way, path);
        let _ = writeln!(
            text,
            "| {what} | {:.0} us | {:.0} us | {:.0} us | {:.0} us | {:.0} | {:.0} % | {:.0} |",
            of("/h2/p50_us"),
            of("/h2/p99_us"),
            of("/http1/p50_us"),
            of("/http1/p99_us"),
            of("/per_second"),
            of("/per_second") / number("nothing", "/per_second") * 100.0,
            of("/per_processor_second"),
        );
    }
    let _ = write!(
        text,
        "\nThe webhook as it is shipped, on one processor, whoever asks on another; etcd and the API server that it \
         watches are idle. {RULESETS} rulesets, {PODS} pods of {} applications, reviews of {bytes} bytes as the API \
         server sends them, over one TLS connection that stays. Median and p99 of {PODS} requests, one at a time \
         (HTTP/2, which API servers speak, and HTTP/1.1); a second: {AT_ONCE} at a time over one connection, the median \
         of {ROUNDS} rounds. All ways take turns. Afterwards the webhook has {:.0} MiB resident.\n",
        RULESETS - EVERYWHERE - MANY,
        memory.resident,
    );
    let numbers = json!({"admission": all, "review_bytes": bytes, "webhook_resident_mib": memory.resident});
    (text, numbers)
}
