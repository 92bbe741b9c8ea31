//! Which rules govern a pod: the union of the rulesets that select it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::limits::Limit;
use crate::rule::RuleId;
use crate::ruleset::{Exceptions, Ruleset, Wish};
use crate::selector::Labels;
use ringfence_api::Mitigation;

/// One ruleset's wish for a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Asked {
    /// Name of the ruleset.
    pub ruleset: Arc<str>,
    /// What it asks for.
    pub mitigation: Mitigation,
    /// What it excepts.
    #[serde(skip_serializing_if = "Exceptions::is_empty")]
    pub exceptions: Exceptions,
}

/// What is done about one rule, and why.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Decision {
    /// The strictest that was asked for, unless the policy allows less.
    pub mitigation: Mitigation,
    /// Who asked, the strictest first, then by name. Never empty.
    pub asked_by: Vec<Asked>,
    /// What keeps it from being the strictest that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_by: Option<Limit>,
}

impl Decision {
    /// What is done about an event that violates the rule as those see it who except these; `None`: nobody excepts just
    /// these.
    pub fn mitigation_with(&self, exceptions: &Exceptions) -> Option<Mitigation> {
        let asked = self.asked_by.iter().filter(|asked| asked.exceptions == *exceptions);
        asked.map(|asked| asked.mitigation.min(self.mitigation)).max()
    }

    /// The decision about such an event, of those alone who except one of these. Usually that is everybody.
    pub fn of_those_with(&self, exceptions: &[&Exceptions]) -> Cow<'_, Self> {
        let concerned = |asked: &&Asked| exceptions.contains(&&asked.exceptions);
        if self.asked_by.iter().all(|asked| concerned(&asked)) {
            return Cow::Borrowed(self);
        }
        let asked_by = self.asked_by.iter().filter(concerned).cloned().collect();
        let mitigation = exceptions.iter().filter_map(|exceptions| self.mitigation_with(exceptions)).max();
        Cow::Owned(Self { mitigation: mitigation.unwrap_or(self.mitigation), asked_by, held_by: self.held_by })
    }

    /// What those who ask except, each once.
    pub fn exceptions(&self) -> BTreeSet<&Exceptions> {
        self.asked_by.iter().map(|asked| &asked.exceptions).collect()
    }

    /// The mitigation that is held back, and by which limit.
    pub fn held(&self) -> Option<(Mitigation, Limit)> {
        let strictest = self.asked_by.first()?.mitigation;
        Some((strictest, self.held_by?)).filter(|_| strictest > self.mitigation)
    }

    /// Names of the rulesets that asked for the strictest mitigation.
    pub fn decisive(&self) -> impl Iterator<Item = &Arc<str>> {
        let strictest = self.asked_by.first().map(|asked| asked.mitigation);
        self.asked_by.iter().filter(move |asked| Some(asked.mitigation) == strictest).map(|asked| &asked.ruleset)
    }
}

/// The union of all rulesets that select one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct ResolvedRuleset {
    /// Names of the rulesets, sorted.
    pub rulesets: Vec<String>,
    /// The rules.
    pub rules: BTreeMap<RuleId, Decision>,
}

impl ResolvedRuleset {
    /// What is done about a rule; nothing if it does not apply.
    pub fn mitigation(&self, rule: RuleId) -> Option<Mitigation> {
        self.rules.get(&rule).map(|decision| decision.mitigation)
    }

    /// No mitigation is stricter than `cap` from now on, because of that limit.
    pub fn cap(&mut self, cap: Mitigation, limit: Limit) {
        for decision in self.rules.values_mut().filter(|decision| decision.mitigation > cap) {
            decision.mitigation = cap;
            decision.held_by = Some(limit);
        }
    }

    /// What is enforced, whoever asked for it.
    pub fn effect(&self) -> Effect<'_> {
        let mut effect = Effect::default();
        for (rule, decision) in &self.rules {
            for asked in &decision.asked_by {
                effect.add(*rule, &asked.exceptions, asked.mitigation.min(decision.mitigation));
            }
        }
        effect
    }

    /// The same on every node and in every version that knows these rules: see [`Effect::hash`].
    pub fn hash(&self) -> RulesetHash {
        self.effect().hash()
    }
}

/// What is enforced on one pod: a [`ResolvedRuleset`] without who asked for it. That is what its hash tells, and it costs
/// much less where many rulesets select the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect<'a>(BTreeMap<RuleId, BTreeMap<&'a Exceptions, Mitigation>>);

impl<'a> Effect<'a> {
    /// Of the rulesets that select the pod.
    pub fn of(rulesets: impl IntoIterator<Item = &'a Ruleset>) -> Self {
        let mut effect = Self::default();
        for (&rule, Wish { mitigation, exceptions }) in rulesets.into_iter().flat_map(|ruleset| &ruleset.rules) {
            effect.add(rule, exceptions, *mitigation);
        }
        effect
    }

    fn add(&mut self, rule: RuleId, exceptions: &'a Exceptions, mitigation: Mitigation) {
        let strictest = self.0.entry(rule).or_default().entry(exceptions).or_insert(mitigation);
        *strictest = mitigation.max(*strictest);
    }

    /// No mitigation is stricter than `cap` from now on.
    pub fn cap(&mut self, cap: Mitigation) {
        for mitigation in self.0.values_mut().flat_map(BTreeMap::values_mut) {
            *mitigation = cap.min(*mitigation);
        }
    }

    /// Whether a rule's violation ends the pod.
    pub fn terminates(&self) -> bool {
        self.0.values().any(|wishes| wishes.values().any(|mitigation| *mitigation == Mitigation::Terminate))
    }

    /// SHA-256 over rules, exceptions and mitigations.
    pub fn hash(&self) -> RulesetHash {
        let mut text = String::new();
        for (rule, wishes) in &self.0 {
            for (exceptions, mitigation) in wishes {
                // Writing to a text does not fail.
                let _ = write!(text, "{rule} {mitigation}");
                if !exceptions.is_empty() {
                    let excepted = serde_json::to_string(exceptions).unwrap_or_default();
                    let _ = write!(text, " except {excepted}");
                }
                text.push('\n');
            }
        }
        RulesetHash(Sha256::digest(text).into())
    }
}

/// Hash of a resolved ruleset; shown in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RulesetHash(pub [u8; 32]);

impl RulesetHash {
    /// The first 32 hexadecimal digits: what fits the value of a label (63 characters), and is still beyond collision
    /// (128 bits).
    pub fn label(&self) -> String {
        let mut label = self.to_string();
        label.truncate(32);
        label
    }
}

impl fmt::Display for RulesetHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What selectors look at: a pod or container.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its labels.
    pub labels: &'a Labels,
    /// Labels of its namespace; none if it has no namespace.
    pub namespace_labels: &'a Labels,
}

impl<'a> Subject<'a> {
    /// Something that has no namespace.
    pub fn without_namespace(labels: &'a Labels) -> Self {
        static NONE: Labels = Labels::new();
        Self { labels, namespace_labels: &NONE }
    }
}

/// Resolves the rulesets that select the subject; for a rule in several the strictest mitigation wins. The order of the
/// rulesets does not matter.
pub fn resolve<'a>(rulesets: impl IntoIterator<Item = &'a Ruleset>, subject: Subject<'_>) -> ResolvedRuleset {
    let mut resolved = ResolvedRuleset::default();
    for ruleset in rulesets.into_iter().filter(|ruleset| ruleset.selects(subject)) {
        resolved.rulesets.push(ruleset.name.clone());
        let name: Arc<str> = ruleset.name.as_str().into();
        for (&rule, Wish { mitigation, exceptions }) in &ruleset.rules {
            let mitigation = *mitigation;
            let decision = resolved.rules.entry(rule).or_insert_with(|| Decision {
                mitigation,
                asked_by: Vec::new(),
                held_by: None,
            });
            decision.mitigation = decision.mitigation.max(mitigation);
            decision.asked_by.push(Asked { ruleset: name.clone(), mitigation, exceptions: exceptions.clone() });
        }
    }
    resolved.rulesets.sort();
    for decision in resolved.rules.values_mut() {
        decision.asked_by.sort_by(|a, b| b.mitigation.cmp(&a.mitigation).then_with(|| a.ruleset.cmp(&b.ruleset)));
    }
    resolved
}
