//! The selectors of many rulesets, so that a pod finds those that select it without asking all of them.
//!
//! Nearly every selector asks for a certain value of a label, of the pod or of its namespace, or at least for a label. It
//! is filed under one such condition, the one that the fewest others ask for too. A pod then asks those that are filed
//! under its labels, and the few that can't be filed.

use std::collections::HashMap;

use crate::resolve::Subject;
use crate::ruleset::Ruleset;
use crate::selector::{Labels, Operator, Selector};

/// Positions of rulesets, by what they ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selectors {
    of_pod: Filed,
    of_namespace: Filed,
    /// Those that ask for nothing, or only for what is not to be there.
    others: Vec<usize>,
}

/// By key.
type Filed = HashMap<String, Values>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Values {
    /// Those that do not mind the value.
    any: Vec<usize>,
    by_value: HashMap<String, Vec<usize>>,
}

/// Whose label.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Whose {
    Pod,
    Namespace,
}

/// A label that has to be there, with one of these values; without values: any.
struct Condition<'a> {
    whose: Whose,
    key: &'a str,
    values: Vec<&'a str>,
}

impl Condition<'_> {
    /// What it can be filed under.
    fn places(&self) -> impl Iterator<Item = (Whose, &str, Option<&str>)> {
        let any = self.values.is_empty().then_some(None);
        let (whose, key) = (self.whose, self.key);
        self.values.iter().map(|value| Some(*value)).chain(any).map(move |value| (whose, key, value))
    }
}

/// The conditions of a ruleset that ask for a label's presence.
fn conditions(ruleset: &Ruleset) -> impl Iterator<Item = Condition<'_>> {
    let of_pod = conditions_of(Whose::Pod, &ruleset.selector);
    of_pod.chain(conditions_of(Whose::Namespace, &ruleset.namespace_selector))
}

fn conditions_of(whose: Whose, selector: &Selector) -> impl Iterator<Item = Condition<'_>> {
    let labels = selector.match_labels.iter().map(move |(key, value)| Condition { whose, key, values: vec![value] });
    let expressions = selector.match_expressions.iter().filter_map(move |requirement| {
        let values = match &requirement.operator {
            Operator::In(values) => {
                let mut values: Vec<&str> = values.iter().map(String::as_str).collect();
                values.sort_unstable();
                values.dedup();
                // Nothing is one of none.
                Some(values).filter(|values| !values.is_empty())?
            }
            Operator::Exists => Vec::new(),
            Operator::NotIn(_) | Operator::DoesNotExist => return None,
        };
        Some(Condition { whose, key: &requirement.key, values })
    });
    labels.chain(expressions)
}

impl Selectors {
    /// Of these rulesets, which are told by their positions from then on.
    pub(crate) fn new<'a>(rulesets: impl Iterator<Item = (usize, &'a Ruleset)> + Clone) -> Self {
        let mut crowds: HashMap<(Whose, &str, Option<&str>), usize> = HashMap::new();
        let all: Vec<(usize, Vec<Condition<'_>>)> =
            rulesets.map(|(position, ruleset)| (position, conditions(ruleset).collect())).collect();
        for place in all.iter().flat_map(|(_, conditions)| conditions.iter().flat_map(Condition::places)) {
            *crowds.entry(place).or_default() += 1;
        }
        let crowd = |condition: &&Condition<'_>| condition.places().map(|place| crowds[&place]).sum::<usize>();
        let mut selectors = Self::default();
        for (position, conditions) in &all {
            match conditions.iter().min_by_key(crowd) {
                Some(condition) => condition.places().for_each(|place| selectors.file(place, *position)),
                None => selectors.others.push(*position),
            }
        }
        selectors
    }

    fn file(&mut self, (whose, key, value): (Whose, &str, Option<&str>), position: usize) {
        let filed = match whose {
            Whose::Pod => &mut self.of_pod,
            Whose::Namespace => &mut self.of_namespace,
        };
        let values = filed.entry(key.to_owned()).or_default();
        match value {
            Some(value) => values.by_value.entry(value.to_owned()).or_default().push(position),
            None => values.any.push(position),
        }
    }

    /// Positions of all that may select the subject, each once, in their order.
    pub(crate) fn candidates(&self, subject: Subject<'_>) -> Vec<usize> {
        let mut found = self.others.clone();
        gather(&self.of_pod, subject.labels, &mut found);
        gather(&self.of_namespace, subject.namespace_labels, &mut found);
        found.sort_unstable();
        found
    }
}

fn gather(filed: &Filed, labels: &Labels, found: &mut Vec<usize>) {
    if filed.is_empty() {
        return;
    }
    for (key, value) in labels {
        if let Some(values) = filed.get(key) {
            found.extend(&values.any);
            found.extend(values.by_value.get(value).into_iter().flatten());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::selector::Requirement;

    fn word() -> impl Strategy<Value = String> {
        select(vec!["a", "b", "c", ""]).prop_map(str::to_owned)
    }

    fn labels() -> impl Strategy<Value = Labels> {
        btree_map(word(), word(), 0..4)
    }

    fn selector() -> impl Strategy<Value = Selector> {
        let operator = prop_oneof![
            vec(word(), 0..4).prop_map(Operator::In),
            vec(word(), 0..3).prop_map(Operator::NotIn),
            Just(Operator::Exists),
            Just(Operator::DoesNotExist),
        ];
        let requirement = (word(), operator).prop_map(|(key, operator)| Requirement { key, operator });
        (btree_map(word(), word(), 0..3), vec(requirement, 0..3))
            .prop_map(|(match_labels, match_expressions)| Selector { match_labels, match_expressions })
    }

    fn ruleset() -> impl Strategy<Value = Ruleset> {
        (selector(), selector()).prop_map(|(selector, namespace_selector)| Ruleset {
            selector,
            namespace_selector,
            ..Ruleset::default()
        })
    }

    proptest! {
        /// Whatever is asked for: those that select are found, and none is asked twice.
        #[test]
        fn all_that_select_are_found(
            rulesets in vec(ruleset(), 0..24), labels in labels(), namespace_labels in labels(),
        ) {
            let subject = Subject { labels: &labels, namespace_labels: &namespace_labels };
            let candidates = Selectors::new(rulesets.iter().enumerate()).candidates(subject);
            let selects = |position: &usize| rulesets[*position].selects(subject);
            let found: Vec<_> = candidates.iter().copied().filter(selects).collect();
            let expected: Vec<_> = (0..rulesets.len()).filter(selects).collect();
            prop_assert_eq!(found, expected);
            prop_assert!(candidates.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }

    #[test]
    fn a_pod_asks_few() {
        let app = |i: usize| Ruleset {
            selector: Selector {
                match_labels: [("app".to_owned(), format!("app-{i}")), ("tier".to_owned(), "web".to_owned())].into(),
                match_expressions: Vec::new(),
            },
            ..Ruleset::default()
        };
        let mut rulesets: Vec<_> = (0..100).map(app).collect();
        rulesets.push(Ruleset::default());
        let labels = Labels::from([("app".to_owned(), "app-7".to_owned()), ("tier".to_owned(), "web".to_owned())]);
        let candidates = Selectors::new(rulesets.iter().enumerate()).candidates(Subject::without_namespace(&labels));
        assert_eq!(candidates, [7, 100], "what all ask for says little");
    }
}
