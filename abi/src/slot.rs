//! Slots: governed pods (standalone: containers), their resolved rulesets, and the ways to find them.

use crate::{BANKS, CLASSES, Class, Vector, layout::shared};

/// Governed pods (standalone: containers) per node. Slot 0 means "not governed" and is never given away.
pub const SLOTS: u32 = 4096;

/// Distinct resolved rulesets per node.
pub const RULESETS: u32 = 512;

shared! {
    /// What each line of one class asks for, in one resolved ruleset.
    ///
    /// A line is set in `enabled` and in at most one of the others; in none of them it means `log`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct RulesetVectors {
        /// Lines of enabled rules.
        pub enabled: Vector,
        /// Lines whose violation stops the operation or the process alone.
        pub block: Vector,
        /// Lines whose violation isolates the pod's network.
        pub isolate: Vector,
        /// Lines whose violation terminates the pod.
        pub terminate: Vector,
    }
}

/// Index into the map of [`RulesetVectors`].
pub const fn ruleset_index(generation: u32, ruleset: u32, class: Class) -> u32 {
    ((generation % BANKS as u32) * RULESETS + ruleset % RULESETS) * CLASSES as u32 + class as u32
}

/// Entries of the map of [`RulesetVectors`].
pub const RULESET_ENTRIES: u32 = BANKS as u32 * RULESETS * CLASSES as u32;

shared! {
    /// A governed pod.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Slot {
        /// Resolved ruleset for either bank of the tables.
        pub ruleset: [u32; BANKS],
        /// Bits of [`slot_flag`].
        pub flags: u32,
        /// Always 0.
        pub zero: u32,
    }
}

/// Bits of [`Slot::flags`].
pub mod slot_flag {
    /// The pod uses the node's own network namespace: its loopback is not its own.
    pub const HOST_NETWORK: u32 = 1 << 0;
    /// When isolated, drop also the node's probes and what the exceptions list.
    pub const STRICT: u32 = 1 << 1;
}

shared! {
    /// Whether and since when a slot is isolated.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Isolation {
        /// `CLOCK_MONOTONIC` in ns when the bit was set; 0: not isolated.
        pub since: u64,
        /// Packets dropped since then, both directions (a lower bound: added to without a lock).
        pub dropped: u64,
    }
}

/// A cgroup: the kernfs id, with [`V1_CGROUP`] set for the chosen v1 controller's hierarchy.
/// Ids of different hierarchies are not distinct.
pub type CgroupKey = u64;

/// Marks an id of the v1 hierarchy in a [`CgroupKey`]. Ids are counters and never get that far.
pub const V1_CGROUP: u64 = 1 << 63;

/// As a coming cgroup's whole name: any pod of the kubelet that is not announced by its own.
pub const ANY_POD: u8 = b'*';

/// Longest last part of a cgroup's path by which a coming container is recognised, in bytes.
pub const CGROUP_NAME: usize = 160;

shared! {
    /// The end of a cgroup's path, without a leading slash, padded with zeros: its last component, or its last two
    /// joined by a slash. User space announces a container under it before its cgroup exists.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct CgroupName {
        /// The name.
        pub name: [u8; CGROUP_NAME],
    }
}

shared! {
    /// A flow that the node itself opened to an isolated pod (a probe): its replies pass.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct FlowKey {
        /// The node's address; IPv4 as IPv4-mapped IPv6.
        pub peer: [u8; 16],
        /// The pod's slot.
        pub slot: u32,
        /// Port on the node, host byte order.
        pub peer_port: u16,
        /// Port in the pod, host byte order.
        pub local_port: u16,
    }
}

shared! {
    /// An address range that an isolated pod may still exchange packets with, as LPM data.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct ExceptionKey {
        /// Address in network byte order; IPv4 as IPv4-mapped IPv6.
        pub address: [u8; 16],
    }
}

/// Ranges of ports that an exception can have.
pub const EXCEPTION_PORTS: usize = 16;

shared! {
    /// Ports of one protocol, both ends included.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct PortRange {
        /// IP protocol number, as in the protocol field of an IP header.
        pub protocol: u16,
        /// Host byte order, as all of these.
        pub first: u16,
        /// Not less than `first`.
        pub last: u16,
    }
}

shared! {
    /// What an isolated pod may exchange with the peers of an exception.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ExceptionPorts {
        /// How many of `ranges` there are; 0: everything, whatever the protocol.
        pub count: u16,
        /// Ports of the peer. Those beyond `count` are zero, which no packet is.
        pub ranges: [PortRange; EXCEPTION_PORTS],
    }
}

impl ExceptionPorts {
    /// Everything.
    pub const ALL: Self = Self { count: 0, ranges: [PortRange { protocol: 0, first: 0, last: 0 }; EXCEPTION_PORTS] };

    /// These ports. `None`: none, or more than there is room for.
    pub fn new(ranges: &[PortRange]) -> Option<Self> {
        let count = u16::try_from(ranges.len()).ok().filter(|count| *count > 0)?;
        let mut ports = Self { count, ..Self::ALL };
        ports.ranges.get_mut(..ranges.len())?.copy_from_slice(ranges);
        Some(ports)
    }
}

/// Counters per event class and kind of record; the map is a per-CPU array indexed by
/// `class * COUNTERS + counter`.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Events of governed pods that were matched.
    Seen = 0,
    /// Violations.
    Violations = 1,
    /// Records of violations with `log` that found the ring buffer full.
    LostLog = 2,
    /// Records of mitigating violations that found their ring buffer full. The mitigation took place.
    LostMitigating = 3,
    /// Events that could not be judged: a kernel object, or a caller's string, could not be read.
    Unreadable = 4,
    /// Records of candidates that found their ring buffer full: nobody decides.
    LostCandidates = 5,
}

/// Number of counters per class.
pub const COUNTERS: usize = 6;
