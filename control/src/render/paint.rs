//! Whether output is coloured.

use std::io::IsTerminal;

use anstyle::{AnsiColor, Style};
use ringfence_policy::Severity;

/// Whether output is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// Not at all.
    Plain,
    /// With ANSI colours.
    Coloured,
}

impl Paint {
    /// Coloured if the output is a terminal and `NO_COLOR` is unset or empty (<https://no-color.org>).
    pub fn auto(output: &impl IsTerminal) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if output.is_terminal() && !refused { Self::Coloured } else { Self::Plain }
    }

    /// The text in a style.
    pub(super) fn style(self, style: Style, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Coloured => format!("{style}{text}{style:#}"),
        }
    }
}

/// Emphasis that grows with the severity.
pub(super) fn of_severity(severity: Severity) -> Style {
    match severity {
        Severity::Low => Style::new(),
        Severity::Medium => AnsiColor::Yellow.on_default(),
        Severity::High => AnsiColor::Red.on_default(),
        Severity::Critical => AnsiColor::Red.on_default().bold(),
    }
}

pub(super) const STRONG: Style = Style::new().bold();
pub(super) const FAINT: Style = Style::new().dimmed();
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
pub(super) const BAD: Style = AnsiColor::Red.on_default();
