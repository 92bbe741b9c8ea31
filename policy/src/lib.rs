//! Rules, rulesets, and what they compile to. Pure: no file, clock or network is touched here.
//!
//! One way through the crate: the [`Catalogue`] holds the managed [`Rule`]s, each with lines in a small declarative
//! language ([`mod@line`]). [`read`] turns YAML into [`Ruleset`]s or a list of [`Diagnostic`]s. [`resolve`] unites the
//! rulesets that select a pod. [`compile`] turns rules into [`Tables`], which hold what the kernel's maps hold.
//!
//! Two matchers keep the kernel honest: [`Tables::matches`] looks up the compiled tables as the kernel does,
//! [`Line::verdict`] reads the lines themselves. They are tested against each other, and, by means of
//! [`Observed::from_event`], against the kernel.

pub mod catalogue;
mod compile;
pub mod coverage;
mod diagnostic;
mod document;
mod evaluate;
mod fields;
mod index;
mod keys;
mod limits;
pub mod line;
mod matcher;
mod nearest;
mod observed;
mod policy;
mod resolve;
mod rule;
mod ruleset;
mod selector;
mod selectors;
mod tables;
mod vector;
pub mod yaml;

pub use catalogue::{Catalogue, CatalogueError};
pub use compile::{CompileError, compile, compile_with};
pub use coverage::{Coverage, Deed, RuleCoverage};
pub use diagnostic::{Diagnostic, Diagnostics};
pub use document::Source;
pub use evaluate::{Disagreement, Verdict, compare, confirm};
pub use index::{Entry, Index};
pub use limits::{Limit, Limits, Standing, TERMINATION_WINDOW};
pub use line::{Line, LineError, NotANetwork};
pub use nearest::nearest;
pub use observed::{Observed, UnknownOp, tokens};
pub use policy::{
    Enforced, Exception, Exempt, NamespacePattern, POLICY_KIND, PodFacts, Policy, TooManyPorts, effective, read_policy,
};
pub use resolve::{Asked, Decision, Effect, ResolvedRuleset, RulesetHash, Subject, resolve};
pub use ringfence_api::{API_VERSION, Mitigation, RULESET_NAME, UnknownMitigation};
pub use rule::{ATTACK_VERSION, Aliases, DecidedBy, NotARuleId, Rule, RuleId, Severity, TACTICS};
pub use ruleset::{ExceptionError, Exceptions, KIND, Rename, RuleException, Ruleset, Wish, read, renames};
pub use selector::{Labels, Operator, Requirement, Selector};
pub use tables::{Generational, LineOf, Prefix, Tables};
