//! The status of a node, section by section.

use std::fmt;

use ringfence_policy::{Coverage, coverage::in_words};

use super::paint::{BAD, FAINT, GOOD, Paint, STRONG};
use super::table::table;
use crate::{
    CandidatesStatus, ClassStatus, ContainerStatus, DatapathStatus, RuleStatus, RulesetsStatus, Status, printable,
};

/// What the enforcer of a node knows about itself; ends with a line feed.
pub fn status(status: &Status, paint: Paint) -> String {
    Page(status, paint).to_string()
}

struct Page<'a>(&'a Status, Paint);

impl fmt::Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(status, paint) = self;
        let Status {
            version,
            node,
            kernel,
            started_at,
            classes,
            rules,
            containers,
            datapaths,
            rulesets,
            candidates,
            warnings,
        } = status;
        let [version, node, kernel] = [version, node, kernel].map(|text| printable(text));
        writeln!(f, "enforcer {version} on {node}, kernel {kernel}, since {started_at:.0}")?;
        for warning in warnings {
            writeln!(f, "{}", paint.style(BAD, &format!("warning: {}", printable(warning))))?;
        }
        rulesets_in_force(f, rulesets, *paint)?;
        let CandidatesStatus { confirmed, refuted, undecided, lost } = candidates;
        writeln!(f, "long arguments: {confirmed} violations, {refuted} none, {undecided} undecided, {lost} lost")?;
        writeln!(f, "node datapaths: {}", none_or(join(datapaths.iter().map(datapath), ", ")))?;
        for (title, count, table) in [
            ("Event classes", classes.len(), class_table(classes)),
            ("Rules", rules.len(), rule_table(rules)),
            ("Containers", containers.len(), container_table(containers)),
        ] {
            let body = if count == 0 { paint.style(FAINT, "none") } else { table };
            writeln!(f, "\n{}\n{body}", paint.style(STRONG, title))?;
        }
        coverage_summary(f, rules, *paint)
    }
}

fn rulesets_in_force(f: &mut fmt::Formatter<'_>, rulesets: &RulesetsStatus, paint: Paint) -> fmt::Result {
    let RulesetsStatus { directory, policy, names, files, hash, loaded_at, rejected } = rulesets;
    let names = none_or(join(names.iter().map(|name| printable(name)), ", "));
    let hash: String = printable(hash).chars().take(12).collect();
    let loaded = loaded_at.map(|time| format!(", loaded {time:.0}")).unwrap_or_default();
    let origin = match (directory, policy) {
        (Some(directory), _) => format!("files in {directory}: {}", files.len()),
        (None, Some(policy)) => format!("policy {}", printable(policy)),
        (None, None) => "no policy is active".to_owned(),
    };
    writeln!(f, "rulesets: {names} ({origin}, hash {hash}{loaded})")?;
    if let Some(why) = rejected {
        let sentence = format!("a later change was rejected, the above stay in force: {why}");
        writeln!(f, "{}", paint.style(BAD, &sentence))?;
    }
    Ok(())
}

fn class_table(classes: &[ClassStatus]) -> String {
    let header = ["CLASS", "TIER", "SEEN", "VIOLATIONS", "LOST LOG", "LOST MITIGATING", "UNREADABLE"];
    table(
        &header,
        classes.iter().map(|class| {
            [
                printable(&class.class),
                class.tier.map_or_else(|| "not seen".to_owned(), |tier| tier.to_string()),
                class.seen.to_string(),
                class.violations.to_string(),
                class.lost_log.to_string(),
                class.lost_mitigating.to_string(),
                class.unreadable.to_string(),
            ]
        }),
    )
}

fn rule_table(rules: &[RuleStatus]) -> String {
    table(
        &["ID", "SEVERITY", "COVERAGE", "NAME", "NOTE"],
        rules.iter().map(|RuleStatus { id, name, severity, coverage, operations, note }| {
            // An older enforcer has told the word alone.
            let words = if operations.is_empty() { coverage.to_string() } else { printable(&in_words(operations)) };
            [id.to_string(), severity.to_string(), words, printable(name), printable(note)]
        }),
    )
}

fn container_table(containers: &[ContainerStatus]) -> String {
    table(
        &["CONTAINER", "NAMESPACE", "IMAGE", "RULESETS", "SLOT", "ISOLATED", "DATAPATHS", "DRIFT"],
        containers.iter().map(|container| {
            let id = container.id.as_str();
            let short: String = id.chars().take(12).collect();
            [
                container.name.as_ref().map_or_else(|| short.clone(), |name| format!("{name} ({short})")),
                container.runtime_namespace.to_string(),
                container.image.as_ref().map_or_else(String::new, ToString::to_string),
                join(container.rulesets.iter().map(|name| printable(name)), ","),
                container.slot.to_string(),
                isolated(container),
                datapaths_of(container),
                if container.drift_visible { "visible" } else { "not visible" }.to_owned(),
            ]
        }),
    )
}

fn isolated(container: &ContainerStatus) -> String {
    let Some(isolation) = &container.isolated else { return "no".to_owned() };
    let cause = match (&isolation.rule, &isolation.reason) {
        (Some(rule), _) => format!(" by {rule}"),
        (None, Some(reason)) => format!(" by hand: {reason}"),
        (None, None) => String::new(),
    };
    format!("since {:.0}{cause}, {} packets dropped", isolation.since, isolation.dropped_packets)
}

fn datapaths_of(container: &ContainerStatus) -> String {
    let datapaths = match (container.datapaths.as_slice(), &container.no_datapath) {
        ([], Some(why)) => return format!("none: {}", printable(why)),
        ([], None) => "none".to_owned(),
        (datapaths, _) => join(datapaths.iter().map(datapath), ", "),
    };
    let gaps = container.gaps.iter().map(|gap| format!("; packet sockets not covered: {gap}"));
    datapaths + &join(gaps, "")
}

fn datapath(DatapathStatus { kind, place }: &DatapathStatus) -> String {
    format!("{} {place}", printable(kind))
}

/// A rule counts as what can be done about the weakest of its operations.
fn coverage_summary(f: &mut fmt::Formatter<'_>, rules: &[RuleStatus], paint: Paint) -> fmt::Result {
    let counts = Coverage::ALL.map(|coverage| {
        let count = rules.iter().filter(|rule| rule.coverage == coverage).count();
        let words = format!("{count} {coverage}");
        match coverage {
            Coverage::Prevented => paint.style(GOOD, &words),
            Coverage::Blind => paint.style(if count == 0 { GOOD } else { BAD }, &words),
            Coverage::DetectedBefore | Coverage::DetectedAfter => words,
        }
    });
    writeln!(f, "\nof {} rules: {}", rules.len(), counts.join(", "))
}

fn none_or(text: String) -> String {
    if text.is_empty() { "none".to_owned() } else { text }
}

fn join(words: impl Iterator<Item = String>, separator: &str) -> String {
    words.collect::<Vec<_>>().join(separator)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::node;

    #[test]
    fn every_section_says_what_it_knows() {
        let text = status(&node(), Paint::Plain);
        for part in [
            "enforcer 0.1.0 on node-1, kernel 6.18.0, since 2026-11-25T03:00:00Z\n",
            "rulesets: web (files in /etc/ringfence: 1, hash abc, loaded 2026-11-25T03:00:00Z)\n",
            "rejected, the above stay in force: web.yaml:3:1: unknown rule\n",
            "exec     tracepoint  10",
            "network  not seen    0",
            "RF-901  critical  prevented: exec; detected before: open  Drift: new binary executed  seen as it happens\n",
            "since 2026-11-25T03:01:00Z by RF-901, 7 packets dropped  cgroup_skb /kubepods",
            "\nof 1 rules: 0 prevented, 1 detected before, 0 detected after, 0 blind\n",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
    }

    #[test]
    fn uncovered_container_says_why() {
        let mut node = node();
        node.containers[0].datapaths.clear();
        node.containers[0].no_datapath = Some("macvlan".to_owned());
        assert!(status(&node, Paint::Plain).contains("  none: macvlan  "));
    }

    #[test]
    fn a_way_past_the_datapaths_is_shown_beside_them() {
        let mut node = node();
        node.containers[0].gaps = vec!["net1 is a macvlan device".into()];
        let text = status(&node, Paint::Plain);
        assert!(text.contains("cgroup_skb /kubepods; packet sockets not covered: net1 is a macvlan device"), "{text}");
    }
}
