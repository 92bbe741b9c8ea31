//! What is in the kernel while a sample is taken.

use anyhow::Result;

use super::floor::Floor;
use super::{Bench, Rules};

/// One of what is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setting {
    Nothing,
    Floor,
    OneRule,
    AllRules,
}

impl Setting {
    pub const fn title(self) -> &'static str {
        match self {
            Self::Nothing => "no enforcer",
            Self::Floor => "empty programs",
            Self::OneRule => "1 rule",
            Self::AllRules => "all rules",
        }
    }

    /// Those of the enforcer, if there is one.
    pub(super) const fn rules(self) -> Option<Rules> {
        match self {
            Self::Nothing | Self::Floor => None,
            Self::OneRule => Some(Rules::One("RF-901")),
            Self::AllRules => Some(Rules::All),
        }
    }
}

impl Bench {
    /// Empty programs, where they are the setting.
    pub(super) fn floor_of(&self, setting: Setting) -> Result<Option<Floor>> {
        (setting == Setting::Floor)
            .then(|| Floor::attach(&self.hooks, self.strongest, &self.cgroups.parent()))
            .transpose()
    }
}
