//! `aya::Pod` for everything that goes through a map.

macro_rules! pod {
    ($($t:ty),* $(,)?) => {
        // SAFETY: `repr(C)`, `Copy`, without padding (tests/layout.rs), and any bit pattern is a valid value.
        $(unsafe impl aya::Pod for $t {})*
    };
}

pod!(
    crate::CgroupName,
    crate::DestinationKey,
    crate::Entry,
    crate::ExceptionKey,
    crate::FacetDefault,
    crate::FlowKey,
    crate::Isolation,
    crate::NameKey,
    crate::Node,
    crate::NumberKey,
    crate::Offsets,
    crate::PathKey,
    crate::PathPrefixKey,
    crate::RulesetVectors,
    crate::Slot,
);
