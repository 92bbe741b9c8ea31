//! One violation in two lines.

use std::fmt::Write as _;

use ringfence_policy::Mitigation;

use super::paint::{BAD, FAINT, GOOD, Paint, STRONG, of_severity};
use crate::{Done, Escaped, Held, Violation};

/// Characters of a container id that tell it from others, as container tools show it.
const SHORT_ID: usize = 12;

/// A violation in two lines, without a line feed at the end:
///
/// ```text
/// 2026-11-25 03:50:47.000004Z critical RF-901 Drift: new binary executed [web 0123456789ab] isolate -> isolated in 4.2 us
///     exec /tmp/dropped by "./dropped --name 'a b'" (pid 4711, uid 0) < sh
/// ```
pub fn violation(violation: &Violation, paint: Paint) -> String {
    let time = violation.event_time.strftime("%F %T%.6fZ").to_string();
    let severity = paint.style(of_severity(violation.severity), &format!("{:<8}", violation.severity));
    let rule = paint.style(STRONG, &format!("{} {}", violation.rule_id, printable_name(&violation.rule_name)));
    let mut text = format!(
        "{} {severity} {rule} [{}] {}\n    {}",
        paint.style(FAINT, &time),
        container(violation),
        mitigation(violation, paint),
        deed(violation),
    );
    if violation.lost_before > 0 {
        let lost = format!(" ({} records lost before this one)", violation.lost_before);
        text.push_str(&paint.style(BAD, &lost));
    }
    text
}

/// A rule's name is ours, but this one may have come over a socket.
fn printable_name(name: &str) -> String {
    crate::printable(name)
}

/// Pod, or else the container's name, and the beginning of its id.
fn container(violation: &Violation) -> String {
    let id: String = violation.container_id.as_str().chars().take(SHORT_ID).collect();
    let pod = violation.k8s_pod_name.as_ref().map(|pod| match &violation.k8s_namespace {
        Some(namespace) => format!("{namespace}/{pod}"),
        None => pod.to_string(),
    });
    let names = pod.into_iter().chain(violation.container_name.as_ref().map(Escaped::to_string));
    let mut words: Vec<_> = names.collect();
    if words.last() != Some(&id) {
        words.push(id);
    }
    words.join(" ")
}

fn mitigation(violation: &Violation, paint: Paint) -> String {
    let mut text = violation.mitigation.to_string();
    if let Some(Held { mitigation, limit }) = violation.mitigation_held {
        write!(text, " ({mitigation} held back by {limit})").expect("writing to a string cannot fail");
    }
    if violation.mitigation != Mitigation::Log {
        let done: Vec<_> = violation.mitigation_done.iter().map(|done| Done::as_str(*done)).collect();
        let done = match done.as_slice() {
            [] => paint.style(BAD, "nothing done"),
            done => paint.style(GOOD, &done.join(", ")),
        };
        write!(text, " -> {done}").expect("writing to a string cannot fail");
    }
    if let Some(ns) = violation.latency_ns {
        write!(text, " in {}", microseconds(ns)).expect("writing to a string cannot fail");
    }
    for failure in &violation.mitigation_failed {
        text.push_str(&paint.style(BAD, &format!("; {}", crate::printable(failure))));
    }
    text
}

/// What was done by whom.
fn deed(violation: &Violation) -> String {
    let process = &violation.process;
    let mut text = crate::printable(&violation.operation);
    let mut push = |arguments: std::fmt::Arguments<'_>| {
        text.write_fmt(arguments).expect("writing to a string cannot fail");
    };
    if let Some(path) = &violation.object_file_path {
        push(format_args!(" {}", quoted(path)));
    }
    if let Some(address) = &violation.dst {
        push(format_args!(" {}", endpoint(address, violation.dpt)));
    }
    if let Some(protocol) = &violation.proto {
        push(format_args!(" {}", crate::printable(protocol)));
    }
    if let (None, Some(family)) = (&violation.dst, &violation.family) {
        push(format_args!(" {}", crate::printable(family)));
    }
    if let Some(number) = violation.number {
        push(format_args!(" {number}"));
    }
    push(format_args!(" by "));
    let words: Vec<_> = process.cmd.iter().map(quoted).collect();
    match (words.is_empty(), &process.exe) {
        (false, _) => push(format_args!("{}", words.join(" "))),
        (true, Some(exe)) => push(format_args!("{}", quoted(exe))),
        (true, None) => push(format_args!("{}", quoted(&process.name))),
    }
    let user = process.user.name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
    push(format_args!(" (pid {}, uid {}{user})", process.pid, process.user.uid));
    for parent in &violation.parents {
        push(format_args!(" < {}", quoted(&parent.name)));
    }
    text
}

fn endpoint(address: &str, port: Option<u16>) -> String {
    let address = crate::printable(address);
    match port {
        Some(port) if address.contains(':') => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
        None => address,
    }
}

/// Text with its ends marked where they would not be seen otherwise. A quotation mark within is doubled by a
/// backslash; a backslash that stands for itself is doubled already.
fn quoted(text: &Escaped) -> String {
    let plain = |character: char| !character.is_whitespace() && !matches!(character, '"' | '\'');
    if !text.is_empty() && text.as_str().chars().all(plain) {
        return text.to_string();
    }
    format!("\"{}\"", text.as_str().replace('"', "\\\""))
}

/// Nanoseconds as microseconds with one decimal.
fn microseconds(ns: u64) -> String {
    format!("{}.{} us", ns / 1_000, ns % 1_000 / 100)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ringfence_policy::Limit;

    use super::*;
    use crate::violation::tests::drift;

    #[test]
    fn two_compact_lines() {
        assert_eq!(
            violation(&drift(), Paint::Plain),
            "2026-11-25 03:50:47.000004Z critical RF-901 Drift: new binary executed [web 0123456789ab] isolate -> isolated in 4.2 us\n    \
             exec /tmp/dropped by ./dropped --name \"a b\" (pid 4711, uid 0) < sh"
        );
    }

    #[test]
    fn failed_mitigation_and_lost_records_are_said() {
        let mut failed = drift();
        failed.mitigation_done.clear();
        failed.latency_ns = None;
        failed.mitigation_failed = vec!["no datapath covers the container".to_owned()];
        failed.lost_before = 3;
        let text = violation(&failed, Paint::Plain);
        assert!(text.contains("isolate -> nothing done; no datapath covers the container\n"), "{text}");
        assert!(text.ends_with("(3 records lost before this one)"), "{text}");
    }

    #[test]
    fn what_was_held_back_is_said() {
        let mut held = drift();
        held.mitigation_held = Some(Held { mitigation: Mitigation::Terminate, limit: Limit::MinReadyReplicas });
        let text = violation(&held, Paint::Plain);
        assert!(text.contains(" isolate (terminate held back by minReadyReplicas) -> isolated in"), "{text}");
        let json = serde_json::to_value(&held).unwrap();
        assert_eq!(json["mitigationHeld"], serde_json::json!({"mitigation": "terminate", "limit": "minReadyReplicas"}));
    }

    #[test]
    fn destination_is_written_as_an_endpoint() {
        let mut contact = drift();
        contact.operation = "connect".into();
        contact.object_file_path = None;
        (contact.dst, contact.dpt, contact.proto) = (Some("fd00::1".into()), Some(80), Some("tcp".into()));
        assert!(violation(&contact, Paint::Plain).contains("\n    connect [fd00::1]:80 tcp by "));
    }

    #[test]
    fn colour_only_when_asked_for() {
        assert!(!violation(&drift(), Paint::Plain).contains('\x1b'));
        assert!(violation(&drift(), Paint::Coloured).contains("\x1b["));
    }

    proptest! {
        #[test]
        fn always_two_lines_without_control_characters(
            path in any::<Vec<u8>>(), argument in any::<String>(), failure in any::<String>(), address in any::<String>(),
        ) {
            let mut hostile = drift();
            hostile.object_file_path = Some(Escaped::from_bytes(&path));
            hostile.process.cmd.push(argument.into());
            hostile.mitigation_failed.push(failure);
            hostile.dst = Some(address);
            let text = violation(&hostile, Paint::Plain);
            prop_assert_eq!(text.matches(char::is_control).collect::<String>(), "\n");
        }

        #[test]
        fn quoting_keeps_arguments_apart(one in "[a \"'\\\\]{0,4}", other in "[a \"'\\\\]{0,4}") {
            prop_assume!(one != other);
            prop_assert_ne!(quoted(&Escaped::from(one)), quoted(&Escaped::from(other)));
        }
    }
}
