//! Requests and responses: each is one line of JSON.

use ringfence_policy::{RuleId, Severity};
use serde::{Deserialize, Serialize};

use crate::{ContainerStatus, Explanation, Status, Violation};

/// Longest request, in bytes, the line feed included.
pub const MAX_REQUEST: usize = 64 * 1024;

/// What a client may ask. A connection carries any number of requests, each answered before the next is read;
/// after [`Request::Events`] with `follow` no further request is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "camelCase", deny_unknown_fields)]
pub enum Request {
    /// Answered by [`Response::Status`].
    Status,
    /// Answered by [`Response::Containers`].
    Containers,
    /// Answered by [`Response::Event`]s, and [`Response::End`] unless they are followed.
    Events {
        /// Go on with events as they happen, until either side hangs up.
        #[serde(default)]
        follow: bool,
        /// Which events.
        #[serde(default)]
        filter: EventFilter,
    },
    /// Cuts a container off the network. Answered by [`Response::Done`].
    Isolate {
        /// Its id, the beginning of it, or its name.
        container: String,
        /// Why, for the record.
        #[serde(default)]
        reason: Option<String>,
    },
    /// Lifts an isolation. Answered by [`Response::Done`].
    Release {
        /// Its id, the beginning of it, or its name.
        container: String,
    },
    /// Which rulesets govern a container. Answered by [`Response::Explanation`].
    Explain {
        /// Its id, the beginning of it, or its name.
        container: String,
    },
}

/// What the enforcer answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Response {
    /// The state of the enforcer.
    Status(Box<Status>),
    /// The governed containers.
    Containers(Vec<ContainerStatus>),
    /// One violation.
    Event(Box<Violation>),
    /// That many events were left out here, because the client did not read fast enough.
    Lost(u64),
    /// All events that are still held have been sent.
    End,
    /// It was done: one sentence.
    Done(String),
    /// What governs a container.
    Explanation(Box<Explanation>),
    /// It was not done: one sentence that says why.
    Error(String),
}

/// Which events a client wants; what is absent does not restrict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EventFilter {
    /// Of this rule only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleId>,
    /// At least this bad.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// Of this container only: its id, the beginning of it, its name, or its pod's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
}

impl EventFilter {
    /// Whether the client wants this one.
    pub fn matches(&self, violation: &Violation) -> bool {
        let Self { rule, severity, container } = self;
        rule.is_none_or(|rule| violation.rule_id == rule)
            && severity.is_none_or(|severity| violation.severity >= severity)
            && container.as_deref().is_none_or(|container| is_of(violation, container))
    }
}

fn is_of(violation: &Violation, container: &str) -> bool {
    let names = [&violation.container_name, &violation.k8s_pod_name];
    violation.container_id.as_str().starts_with(container) || names.into_iter().flatten().any(|name| name == container)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::violation::tests::drift;

    #[test]
    fn requests_read_as_documented() {
        for (json, request) in [
            (r#"{"request":"status"}"#, Request::Status),
            (
                r#"{"request":"events","follow":true,"filter":{"rule":"RF-901","severity":"high"}}"#,
                Request::Events {
                    follow: true,
                    filter: EventFilter { rule: RuleId::new(901), severity: Some(Severity::High), container: None },
                },
            ),
            (r#"{"request":"release","container":"web"}"#, Request::Release { container: "web".into() }),
        ] {
            assert_eq!(serde_json::from_str::<Request>(json).unwrap(), request);
        }
    }

    #[test]
    fn an_error_is_an_object_with_one_sentence() {
        let json = serde_json::to_string(&Response::Error("no such container".into())).unwrap();
        assert_eq!(json, r#"{"error":"no such container"}"#);
    }

    #[test]
    fn filter_restricts_by_each_of_its_fields() {
        let violation = drift();
        let matches = |filter: EventFilter| filter.matches(&violation);
        assert!(matches(EventFilter::default()));
        assert!(matches(EventFilter { rule: RuleId::new(901), ..EventFilter::default() }));
        assert!(!matches(EventFilter { rule: RuleId::new(902), ..EventFilter::default() }));
        assert!(matches(EventFilter { severity: Some(Severity::High), ..EventFilter::default() }));
        for (container, expected) in [("web", true), ("we", false), ("01234567", true), ("1234", false)] {
            assert_eq!(matches(EventFilter { container: Some(container.into()), ..EventFilter::default() }), expected);
        }
        let mut milder = violation.clone();
        milder.severity = Severity::Low;
        assert!(!EventFilter { severity: Some(Severity::Medium), ..EventFilter::default() }.matches(&milder));
    }
}
