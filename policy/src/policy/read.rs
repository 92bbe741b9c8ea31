//! A policy from YAML or JSON, judged whole.

use std::ops::RangeInclusive;

use ringfence_abi::PortRange;
use ringfence_api::{Mitigation, RULESET_NAME};

use super::exception::{Exception, effective};
use super::{NamespacePattern, POLICY_KIND, Policy};
use crate::diagnostic::Diagnostics;
use crate::document::{self, Expected, Source};
use crate::fields::{Fields, Report};
use crate::limits::Limits;
use crate::selector;
use crate::yaml::{Node, Place, Value};

const EXPECTED: Expected = Expected {
    kind: POLICY_KIND,
    what: "a policy",
    name: 253,
    spec: &["rulesets", "maxMitigation", "excludedNamespaces", "limits", "isolation"],
};

const LIMITS: [&str; 5] =
    ["suspend", "governStaticPods", "maxTerminations", "terminationWindowSeconds", "minReadyReplicas"];

/// Reads one policy. What it does not say is as the API server would fill it in.
pub fn read_policy(source: &Source) -> Result<Policy, Diagnostics> {
    let mut policies = Vec::new();
    let mut diagnostics = document::each(source, |node, report| {
        policies.extend(policy(node, report));
        if policies.len() > 1 {
            report.add(node.place, "one policy a file");
        }
    });
    if policies.is_empty() && diagnostics.is_empty() {
        let mut report = Report { file: &source.name, found: Vec::new() };
        report.add(Place { line: 1, column: 1 }, "no policy in it");
        diagnostics = report.found;
    }
    if diagnostics.is_empty() { Ok(policies.remove(0)) } else { Err(Diagnostics(diagnostics)) }
}

fn policy(node: &Node, report: &mut Report<'_>) -> Option<Policy> {
    let object = document::object(node, &EXPECTED, report)?;
    let mut policy = Policy {
        name: object.name,
        generation: object.generation,
        rulesets: Vec::new(),
        max_mitigation: Mitigation::Terminate,
        excluded_namespaces: vec![NamespacePattern("kube-system".to_owned())],
        govern_static_pods: Vec::new(),
        suspend: false,
        limits: Limits::default(),
        strict: false,
        exceptions: Vec::new(),
    };
    let spec = object.spec?;
    if let Some(node) = spec.need("rulesets", "'spec'", report) {
        policy.rulesets = names(node, "'rulesets'", report, |name| selector::dns_fault(name, RULESET_NAME));
        policy.rulesets.sort();
    }
    if let Some((_, node)) = spec.get("maxMitigation")
        && let Some(text) = report.text(node, "'maxMitigation'")
    {
        match text.parse() {
            Ok(mitigation) => policy.max_mitigation = mitigation,
            Err(_) => report.unknown(node.place, "mitigation", text, &Mitigation::ALL.map(Mitigation::name)),
        }
    }
    if let Some((_, node)) = spec.get("excludedNamespaces") {
        let excluded = names(node, "'excludedNamespaces'", report, |name| {
            // A label's syntax; the part before a star may end as it likes.
            let checked = name.strip_suffix('*').map_or_else(|| name.to_owned(), |start| format!("{start}x"));
            if checked.contains('.') { Some("a namespace has no '.'") } else { selector::dns_fault(&checked, 63) }
        });
        policy.excluded_namespaces = excluded.into_iter().map(NamespacePattern).collect();
    }
    if let Some(limits) = map(spec, "limits", &LIMITS, report) {
        policy.suspend = truth(limits, "suspend", report);
        if let Some((_, node)) = limits.get("governStaticPods") {
            policy.govern_static_pods = names(node, "'governStaticPods'", report, |name| {
                let good = name.split_once('/').is_some_and(|(namespace, name)| {
                    selector::dns_fault(namespace, 63).is_none() && selector::dns_fault(name, 253).is_none()
                });
                (!good).then_some("use namespace/name")
            });
        }
        policy.limits.max_terminations = number(limits, "maxTerminations", "pods", 1..=1_000, report);
        if let Some(window) = number(limits, "terminationWindowSeconds", "seconds", 1..=86_400, report) {
            policy.limits.window = window;
        }
        if let Some(replicas) = number(limits, "minReadyReplicas", "pods", 0..=1_000, report) {
            policy.limits.min_ready_replicas = replicas;
        }
    }
    if let Some(isolation) = map(spec, "isolation", &["strict", "exceptions"], report) {
        policy.strict = truth(isolation, "strict", report);
        if let Some((_, node)) = isolation.get("exceptions") {
            let nodes = report.list(node, "'exceptions'").unwrap_or_default();
            policy.exceptions = nodes.iter().filter_map(|node| exception(node, report)).collect();
            if let Err(error) = effective(&policy.exceptions) {
                report.add(node.place, error.to_string());
            }
        }
    }
    Some(policy)
}

fn map<'n>(spec: Fields<'n>, name: &str, known: &[&str], report: &mut Report<'_>) -> Option<Fields<'n>> {
    let (_, node) = spec.get(name)?;
    report.fields(node, &format!("'{name}'"), known)
}

fn truth(fields: Fields<'_>, name: &str, report: &mut Report<'_>) -> bool {
    let Some((_, node)) = fields.get(name) else { return false };
    match &node.value {
        Value::Other(text) if text == "true" => return true,
        Value::Other(text) if text == "false" => {}
        _ => report.add(node.place, format!("'{name}' must be true or false")),
    }
    false
}

/// A whole number within bounds, both included.
fn number(
    fields: Fields<'_>,
    name: &str,
    unit: &str,
    bounds: RangeInclusive<u32>,
    report: &mut Report<'_>,
) -> Option<u32> {
    let (_, node) = fields.get(name)?;
    let (least, most) = (bounds.start(), bounds.end());
    let shown = match &node.value {
        Value::Other(text) => text.clone(),
        Value::Text(text) => format!("'{text}'"),
        _ => node.kind().to_owned(),
    };
    let right = node.number().filter(|number| bounds.contains(number));
    if right.is_none() {
        report.add(node.place, format!("{shown} can't be '{name}': use a whole number of {unit}, {least} to {most}"));
    }
    right
}

/// Texts that are right and come once.
fn names(
    node: &Node,
    what: &str,
    report: &mut Report<'_>,
    fault: impl Fn(&str) -> Option<&'static str>,
) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for node in report.list(node, what).unwrap_or_default() {
        let Some(name) = report.text(node, &format!("an entry of {what}")) else { continue };
        if let Some(fault) = fault(name) {
            report.add(node.place, format!("'{name}' can't be in {what}: {fault}"));
        } else if names.iter().any(|other| other == name) {
            report.add(node.place, format!("'{name}' is there twice in {what}"));
        } else {
            names.push(name.to_owned());
        }
    }
    names
}

fn exception(node: &Node, report: &mut Report<'_>) -> Option<Exception> {
    let what = "an entry of 'exceptions'";
    let fields = report.fields(node, what, &["cidr", "ports"])?;
    let ports = fields.get("ports").map(|(_, node)| ports(node, report));
    let node = fields.need("cidr", what, report)?;
    let text = report.text(node, "'cidr'")?;
    match text.parse::<Exception>() {
        Ok(exception) => Some(Exception { ports: ports.unwrap_or_default(), ..exception }),
        Err(error) => {
            report.add(node.place, error.to_string());
            None
        }
    }
}

/// As in a `NetworkPolicy`: `port`, `endPort`, `protocol`.
fn ports(node: &Node, report: &mut Report<'_>) -> Vec<PortRange> {
    let what = "an entry of 'ports'";
    let nodes = report.list(node, "'ports'").unwrap_or_default();
    if nodes.is_empty() {
        report.add(node.place, "'ports' is empty: leave it out for everything".to_owned());
    }
    let mut ranges = Vec::new();
    for node in nodes {
        let Some(fields) = report.fields(node, what, &["port", "endPort", "protocol"]) else { continue };
        let first = fields.need("port", what, report).and_then(|node| report.port(node, "'port'"));
        let last = fields.get("endPort").map(|(_, node)| (report.port(node, "'endPort'"), node.place));
        let protocol = match fields.get("protocol") {
            None => Some(TCP),
            Some((_, node)) => report.text(node, "'protocol'").and_then(|text| {
                let known = PROTOCOLS.iter().find(|(name, _)| *name == text);
                if known.is_none() {
                    report.unknown(node.place, "protocol", text, &PROTOCOLS.map(|(name, _)| name));
                }
                known.map(|(_, number)| *number)
            }),
        };
        let (Some(first), Some(protocol)) = (first, protocol) else { continue };
        let last = match last {
            None => first,
            Some((None, _)) => continue,
            Some((Some(last), place)) => {
                if last < first {
                    report.add(place, format!("'endPort' {last} is less than 'port' {first}"));
                }
                last
            }
        };
        ranges.push(PortRange { protocol, first, last });
    }
    ranges
}

const TCP: u16 = 6;

/// Names of protocols as Kubernetes spells them, and their numbers.
const PROTOCOLS: [(&str, u16); 3] = [("TCP", TCP), ("UDP", 17), ("SCTP", 132)];
