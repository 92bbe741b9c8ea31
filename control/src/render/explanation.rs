//! Why a container is governed as it is.

use std::fmt;

use super::paint::{FAINT, GOOD, Paint, STRONG};
use super::table::table;
use crate::{Explanation, ResolvedRule, printable};

/// The rulesets with their reasons, then what is done about each rule; ends with a line feed.
pub fn explanation(explanation: &Explanation, paint: Paint) -> String {
    Page(explanation, paint).to_string()
}

struct Page<'a>(&'a Explanation, Paint);

impl fmt::Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Explanation { container, labels, rulesets, rules, hash }, paint) = self;
        let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let labels = if labels.is_empty() { "no labels".to_owned() } else { labels.join(" ") };
        match container {
            Some(container) => writeln!(f, "{} ({labels})", paint.style(STRONG, container.as_str()))?,
            None => writeln!(f, "{}", paint.style(STRONG, &labels))?,
        }
        for ruleset in rulesets {
            let (style, verdict) = if ruleset.governs { (GOOD, "governs") } else { (FAINT, "does not govern") };
            writeln!(f, "\n{}: {}", printable(&ruleset.name), paint.style(style, verdict))?;
            for condition in &ruleset.because {
                writeln!(f, "  {}", printable(condition))?;
            }
        }
        if rules.is_empty() {
            return writeln!(f, "\nno ruleset governs it: nothing is detected or mitigated");
        }
        writeln!(f, "\n{}", table(&["RULE", "MITIGATION", "NAME", "ASKED BY"], rules.iter().map(row)))?;
        writeln!(f, "\nresolved ruleset {}", printable(hash))
    }
}

fn row(rule: &ResolvedRule) -> [String; 4] {
    let asked = rule.asked_by.iter().map(|(ruleset, mitigation)| match rule.exceptions.get(ruleset) {
        Some(excepted) => format!("{} ({mitigation}, except {})", printable(ruleset), printable(excepted)),
        None => format!("{} ({mitigation})", printable(ruleset)),
    });
    [rule.id.to_string(), rule.mitigation.to_string(), printable(&rule.name), asked.collect::<Vec<_>>().join(", ")]
}

#[cfg(test)]
mod tests {
    use ringfence_policy::{Mitigation, RuleId};

    use super::*;
    use crate::GoverningRuleset;

    #[test]
    fn reasons_first_then_rules() {
        let ruleset = GoverningRuleset {
            name: "web".to_owned(),
            governs: true,
            because: vec!["app = web: met, the label is 'web'".to_owned()],
        };
        let rule = ResolvedRule {
            id: RuleId::new(901).unwrap(),
            name: "Drift".to_owned(),
            mitigation: Mitigation::Isolate,
            asked_by: vec![("web".to_owned(), Mitigation::Isolate)],
            exceptions: [("web".to_owned(), "paths /tmp/tool".to_owned())].into(),
        };
        let mut asked = Explanation {
            container: Some("c1".into()),
            labels: [("app".into(), "web".into())].into(),
            rulesets: vec![ruleset],
            rules: vec![rule],
            hash: "abc".to_owned(),
        };
        assert_eq!(
            explanation(&asked, Paint::Plain),
            "c1 (app=web)\n\nweb: governs\n  app = web: met, the label is 'web'\n\n\
             RULE    MITIGATION  NAME   ASKED BY\nRF-901  isolate     Drift  web (isolate, except paths /tmp/tool)\n\nresolved ruleset abc\n"
        );
        asked.rules.clear();
        assert!(explanation(&asked, Paint::Plain).ends_with("nothing is detected or mitigated\n"));
    }
}
