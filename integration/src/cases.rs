//! Which behaviour violates which rule, and what comes close without doing so.
//!
//! A command is split as a shell would split it and started in the container without a shell. `{gateway4}`,
//! `{gateway6}`, `{mac}`, `{peer}` and `{peer6}` stand for the node's addresses on the container's network, its
//! hardware address, and an address and port on which the node accepts TCP. `{long}`, `{longer}` and `{longest}` are
//! words of 600, 3,000 and 17,000 letters: within what the kernel looks at, beyond it, and beyond what a record holds.

mod credentials;
mod drift;
mod escape;
mod execution;
mod impact;
mod persistence;

/// A rule with what violates it and what does not.
pub struct Case {
    /// `RF-nnn`.
    pub rule: &'static str,
    /// What the container must have.
    pub needs: Needs,
    /// Ordinary forms of the behaviour: repeated with every mitigation.
    pub behaviours: &'static [Act],
    /// Forms that try to go unseen: they must be seen all the same.
    pub evasions: &'static [Act],
    /// Forms that the programs on system calls do not see, such as by `io_uring`: those on security hooks do.
    pub past_tracepoints: &'static [Act],
    /// Almost the behaviour: the rule must stay silent.
    pub near_misses: &'static [Act],
}

impl Case {
    const fn new(rule: &'static str) -> Self {
        Self { rule, needs: Needs::Nothing, behaviours: &[], evasions: &[], past_tracepoints: &[], near_misses: &[] }
    }
}

/// What a container must have for a behaviour to be possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Needs {
    /// An ordinary container.
    Nothing,
    /// A privileged one.
    Privileged,
}

/// Something that is done in a container.
#[derive(Clone, Copy, Debug)]
pub struct Act {
    /// Short, unique within its rule.
    pub name: &'static str,
    /// What is started.
    pub command: &'static str,
    /// With a terminal.
    pub tty: bool,
}

/// Without a terminal.
pub const fn act(name: &'static str, command: &'static str) -> Act {
    Act { name, command, tty: false }
}

const fn on_terminal(name: &'static str, command: &'static str) -> Act {
    Act { name, command, tty: true }
}

/// All cases, by rule.
pub fn all() -> impl Iterator<Item = &'static Case> {
    [execution::CASES, persistence::CASES, escape::CASES, credentials::CASES, impact::CASES, drift::CASES]
        .into_iter()
        .flatten()
}

/// Those of a rule that has some.
pub fn of(rule: &str) -> &'static Case {
    all().find(|case| case.rule == rule).expect("the rule has a case")
}

/// What the placeholders stand for.
pub struct Places {
    /// The node's IPv4 address on the network.
    pub gateway4: String,
    /// The node's IPv6 address on the network.
    pub gateway6: String,
    /// The node's hardware address on the network.
    pub mac: String,
    /// Port on which the node accepts TCP.
    pub port: u16,
}

impl Act {
    /// The arguments, with everything in its place.
    pub fn arguments(&self, places: &Places) -> Vec<String> {
        let Places { gateway4, gateway6, mac, port } = places;
        let command = self
            .command
            .replace("{peer}", &format!("{gateway4}:{port}"))
            .replace("{peer6}", &format!("[{gateway6}]:{port}"))
            .replace("{gateway4}", gateway4)
            .replace("{gateway6}", gateway6)
            .replace("{port}", &port.to_string())
            .replace("{mac}", mac)
            .replace("{longest}", &"x".repeat(17_000))
            .replace("{longer}", &"x".repeat(3_000))
            .replace("{long}", &"x".repeat(600));
        shlex::split(&command).unwrap_or_else(|| panic!("{}: quotes do not match: {command}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use ringfence_policy::Catalogue;

    use super::*;

    #[test]
    fn every_rule_of_the_catalogue_has_a_case_with_a_near_miss() {
        let mut cases: HashSet<_> = all().map(|case| case.rule).collect();
        for rule in Catalogue::builtin().rules() {
            assert!(cases.remove(rule.id.to_string().as_str()), "no case for {}", rule.id);
        }
        assert!(cases.is_empty(), "cases of rules that do not exist: {cases:?}");
        for case in all() {
            assert!(!case.behaviours.is_empty() && !case.near_misses.is_empty(), "{}", case.rule);
        }
    }

    #[test]
    fn names_are_unique_and_commands_can_be_split() {
        let places = Places {
            gateway4: "10.0.0.1".into(),
            gateway6: "fd00::1".into(),
            mac: "02:00:00:00:00:01".into(),
            port: 1,
        };
        let mut names = HashSet::new();
        for case in all() {
            for act in case.behaviours.iter().chain(case.evasions).chain(case.past_tracepoints).chain(case.near_misses)
            {
                assert!(names.insert((case.rule, act.name)), "{} {} twice", case.rule, act.name);
                assert!(!act.arguments(&places).join(" ").contains('{'), "{}: {}", case.rule, act.command);
            }
        }
    }
}
