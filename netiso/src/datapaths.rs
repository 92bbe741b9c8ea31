//! The programs on each slot's way to the network: put there ahead of time, kept there.

use crate::{
    Armed, Change, Coverage, Error, Gap, Hook, Netns, Switch, cgroup,
    classifier::{Classifier, Interface, Place, parse_pin},
    link::{self, Link},
    network::mapped,
    program,
    switch::{gone_or, map_error, take},
    veth::{self, Ways},
    watch::What,
};
use aya::{
    maps::{Array, HashMap, MapData},
    programs::{CgroupSkb, CgroupSkbAttachType, TcAttachType},
};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use ringfence_abi::SLOTS;
use rtnetlink::Handle;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

/// What is not the default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Attach to interfaces by this hook only. Else by tcx, or clsact where the kernel has no tcx.
    pub hook: Option<Hook>,
}

/// Keeps programs on the ways of all slots.
pub struct Datapaths {
    netlink: Handle,
    host: Netns,
    pins: PathBuf,
    options: Options,
    at_cgroup: [AtCgroup; 2],
    at_veth: [Classifier; 2],
    veths: HashMap<MapData, u32, u32>,
    node_addresses: HashMap<MapData, [u8; 16], u8>,
    attached: Array<MapData, u32>,
    cgroup: bool,
    slots: BTreeMap<u32, Slot>,
}

#[derive(Debug)]
struct AtCgroup {
    name: &'static str,
    pin: &'static str,
    direction: CgroupSkbAttachType,
    program: CgroupSkb,
}

#[derive(Debug)]
struct Slot {
    netns: Netns,
    /// Other namespaces that processes of it are in.
    others: Vec<Netns>,
    /// The node's id of the namespace.
    id: Option<i32>,
    coverage: Coverage,
}

/// Loads the programs of the datapath, takes its maps out of `ebpf`, and at once exchanges what an earlier enforcer
/// left at interfaces for these programs, each in one step. What it left at a cgroup goes on until
/// [`Datapaths::cover_cgroups`].
///
/// `pins` is an existing directory on a bpf file system, for this crate alone. The maps should be pinned too (by the
/// loader, elsewhere): the old and the new programs must look at the same ones.
///
/// Call it within a tokio runtime and in the node's network namespace.
pub async fn open(ebpf: &mut aya::Ebpf, pins: &Path, options: Options) -> Result<(Switch, Datapaths), Error> {
    if !matches!(statfs(pins), Ok(file_system) if file_system.filesystem_type() == BPF_FS_MAGIC) {
        return Err(Error::NoPins(pins.to_owned()));
    }
    let at_cgroup = [
        AtCgroup::load(ebpf, "cgroup_ingress", "cgroup-ingress", CgroupSkbAttachType::Ingress)?,
        AtCgroup::load(ebpf, "cgroup_egress", "cgroup-egress", CgroupSkbAttachType::Egress)?,
    ];
    let at_veth = [
        Classifier::load(ebpf, "veth_ingress", TcAttachType::Ingress)?,
        Classifier::load(ebpf, "veth_egress", TcAttachType::Egress)?,
    ];
    let mut datapaths = Datapaths {
        netlink: link::connect()?,
        host: Netns::current()?,
        pins: pins.to_owned(),
        options,
        at_cgroup,
        at_veth,
        veths: take(ebpf, "VETHS")?,
        node_addresses: take(ebpf, "NODE_ADDRESSES")?,
        attached: take(ebpf, "ATTACHED")?,
        cgroup: false,
        slots: BTreeMap::new(),
    };
    let switch = Switch::new(ebpf)?;
    datapaths.read_addresses().await?;
    datapaths.adopt().await?;
    Ok((switch, datapaths))
}

impl AtCgroup {
    fn load(
        ebpf: &mut aya::Ebpf,
        name: &'static str,
        pin: &'static str,
        direction: CgroupSkbAttachType,
    ) -> Result<Self, Error> {
        let program = program::load(ebpf, name, CgroupSkb::load, |loaded| {
            CgroupSkb::from_program_info(loaded.info()?, name.into(), Some(direction))
        })?;
        Ok(Self { name, pin, direction, program })
    }
}

impl Datapaths {
    /// Covers the sockets of a cgroup v2 and all below it. On a node without cgroup v2 do not call it; the veths are
    /// what covers its slots then.
    pub fn cover_cgroups(&mut self, cgroup: &Path) -> Result<(), Error> {
        for at in &mut self.at_cgroup {
            cgroup::attach(at.name, &mut at.program, at.direction, cgroup, &self.pins.join(at.pin))?;
        }
        self.attached.set(0, 1, 0).map_err(map_error("ATTACHED"))?;
        self.cgroup = true;
        for slot in self.slots.values_mut() {
            slot.coverage.cgroup = true;
        }
        Ok(())
    }

    /// Arms the ways of `slot`, which lives in `netns`. May be called again, for example when the namespace changed.
    ///
    /// That nothing covers a slot is no error: its [`Coverage`] says so.
    pub async fn arm(&mut self, slot: u32, netns: Netns) -> Result<&Coverage, Error> {
        if !(1..SLOTS).contains(&slot) {
            return Err(Error::Slot(slot));
        }
        let known = self.slots.get(&slot);
        let before = known.map(|known| known.coverage.veths.clone()).unwrap_or_default();
        let others = known.map(|known| known.others.clone()).unwrap_or_default();
        let stays = known.is_some_and(|known| known.netns.is(&netns));
        let armed: BTreeSet<u32> = before.iter().map(|veth| veth.index).collect();
        let ways = veth::discover(&self.netlink, &self.host, &netns, &others, &armed).await?;
        let mut coverage = Coverage { cgroup: self.cgroup, ..Coverage::default() };
        let mut id = None;
        match ways {
            Ways::Host => coverage.host_network = true,
            Ways::Own { mut veths, gaps, id: namespace, node } => {
                coverage.gaps = gaps;
                id = namespace;
                // The pod may have moved its end to where nobody looks: it is still the pod's.
                let moved = |link: &&Link| {
                    stays && armed.contains(&link.index) && !veths.iter().any(|veth| veth.index == link.index)
                };
                let moved: Vec<Link> = node.iter().filter(moved).cloned().collect();
                veths.extend(moved);
                for veth in veths {
                    match self.arm_veth(slot, &veth).await {
                        Ok(armed) => coverage.veths.push(armed),
                        Err(error) => coverage.gaps.push(Gap {
                            text: error.to_string(),
                            way: format!("unarmed {}", veth.index),
                            leads_out: false,
                        }),
                    }
                }
            }
        }
        let kept: BTreeSet<u32> = coverage.veths.iter().map(|veth| veth.index).collect();
        self.slots.insert(slot, Slot { netns, others, id, coverage });
        for veth in before.iter().filter(|veth| !kept.contains(&veth.index)) {
            self.let_go(slot, veth.index, &veth.interface).await?;
        }
        Ok(&self.slots[&slot].coverage)
    }

    /// Processes of the slot are in these network namespaces, which may be its own. From the next look on, ways out of
    /// them are its gaps as well. Nothing is armed there: they may be somebody else's.
    pub fn also_in(&mut self, slot: u32, namespaces: &[Netns]) {
        let of_others: Vec<Netns> =
            self.slots.iter().filter(|(number, _)| **number != slot).map(|(_, other)| other.netns.clone()).collect();
        let Some(known) = self.slots.get_mut(&slot).filter(|known| !known.coverage.host_network) else { return };
        if matches!(known.netns.open(), Err(Error::NetnsGone(_)))
            && let Some(same) = namespaces.iter().find(|namespace| namespace.is(&known.netns))
        {
            // The process that led there has gone elsewhere.
            known.netns = same.clone();
        }
        let is_another =
            |namespace: &&Netns| !namespace.is(&known.netns) && !of_others.iter().any(|other| other.is(namespace));
        known.others = namespaces.iter().filter(is_another).cloned().collect();
    }

    /// The slot is no more: lets its interfaces go, unless another slot is in the same namespace.
    pub async fn disarm(&mut self, slot: u32) -> Result<(), Error> {
        let Some(gone) = self.slots.remove(&slot) else { return Ok(()) };
        for veth in gone.coverage.veths {
            self.let_go(slot, veth.index, &veth.interface).await?;
        }
        Ok(())
    }

    /// What covers the slot; none: it was never armed.
    pub fn coverage(&self, slot: u32) -> Option<&Coverage> {
        self.slots.get(&slot).map(|slot| &slot.coverage)
    }

    /// All slots that were armed, and what covers them.
    pub fn coverages(&self) -> impl Iterator<Item = (u32, &Coverage)> {
        self.slots.iter().map(|(number, slot)| (*number, &slot.coverage))
    }

    /// Looks whether everything is where it was put, and puts back what is missing. Returns the slots whose coverage
    /// is another now.
    pub async fn verify(&mut self) -> Result<Vec<u32>, Error> {
        self.read_addresses().await?;
        self.rearm(|_, _| true).await
    }

    /// The same for some slots. Returns those whose coverage is another now.
    pub async fn look_at(&mut self, slots: &BTreeSet<u32>) -> Result<Vec<u32>, Error> {
        self.rearm(|number, _| slots.contains(&number)).await
    }

    /// Follows a change. Returns the slots whose coverage is another now.
    pub async fn apply(&mut self, change: Change) -> Result<Vec<u32>, Error> {
        match change.0 {
            What::Lost => self.verify().await,
            What::Addresses => self.read_addresses().await.map(|()| Vec::new()),
            What::Link(link) if link.kind != "veth" => Ok(Vec::new()),
            What::Link(link) => {
                let is_known = |slot: &Slot| slot.coverage.veths.iter().any(|v| is_same(v, &link));
                self.rearm(|_, slot| {
                    !slot.coverage.host_network
                        && !is_known(slot)
                        && (slot.id.is_none() || slot.id == link.peer_namespace || slot.has(link.index))
                })
                .await
            }
            What::LinkGone(index) => {
                gone_or(self.veths.remove(&index), "VETHS")?;
                for at in &mut self.at_veth {
                    at.detach(&self.netlink, &self.pins, Interface { index, name: "" }).await?;
                }
                let mut changed = Vec::new();
                for (number, slot) in &mut self.slots {
                    let before = slot.coverage.veths.len();
                    slot.coverage.veths.retain(|veth| veth.index != index);
                    if slot.coverage.veths.len() != before {
                        changed.push(*number);
                    }
                }
                Ok(changed)
            }
            What::Filters(index) => self.rearm(|_, slot| slot.has(index)).await,
        }
    }

    /// After a restart, once every living slot is armed again: lets go of what belonged to others.
    pub async fn prune(&mut self) -> Result<(), Error> {
        let links: BTreeMap<u32, String> =
            link::links(&self.netlink).await?.into_iter().map(|link| (link.index, link.name)).collect();
        let known: Vec<u32> = self.veths.keys().filter_map(Result::ok).collect();
        let stale: Vec<u32> =
            known.into_iter().filter(|index| !self.slots.values().any(|slot| slot.has(*index))).collect();
        for index in stale {
            let name = links.get(&index).map_or("", String::as_str);
            self.let_go(0, index, name).await?;
        }
        Ok(())
    }

    /// Arms anew the slots that `which` chooses. One that fails does not keep the others from it.
    async fn rearm(&mut self, which: impl Fn(u32, &Slot) -> bool) -> Result<Vec<u32>, Error> {
        let chosen: Vec<(u32, Netns, Coverage)> = self
            .slots
            .iter()
            .filter(|(number, slot)| which(**number, slot))
            .map(|(number, slot)| (*number, slot.netns.clone(), slot.coverage.clone()))
            .collect();
        let mut changed = Vec::new();
        let mut failed = None;
        for (slot, netns, before) in chosen {
            match self.arm(slot, netns).await {
                Ok(now) if *now != before => changed.push(slot),
                // Gone: it is ending; whoever armed it will disarm it.
                Ok(_) | Err(Error::NetnsGone(_)) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(changed), Err)
    }

    async fn arm_veth(&mut self, slot: u32, veth: &Link) -> Result<Armed, Error> {
        let interface = Interface { index: veth.index, name: &veth.name };
        // Of several slots in one namespace, the first one judges the frames.
        let judge = self
            .slots
            .iter()
            .filter(|(number, other)| **number < slot && other.has(veth.index))
            .map(|(number, _)| *number)
            .next();
        self.veths.insert(veth.index, judge.unwrap_or(slot), 0).map_err(map_error("VETHS"))?;
        let mut hook = Hook::Tcx;
        for at in &mut self.at_veth {
            let known = self.slots.values().flat_map(|s| &s.coverage.veths).find(|v| is_same(v, veth)).map(|v| v.hook);
            let place = match known {
                Some(hook) => at.place(&self.netlink, interface, hook).await?,
                None => Place::Missing,
            };
            hook = if let (Some(hook), Place::First) = (known, place) {
                hook
            } else {
                if known.is_some() {
                    tracing::warn!(interface = veth.name, program = at.name, ?place, "put back to where it was");
                }
                if let (Some(hook), Place::Behind) = (known, place) {
                    at.detach_at_once(&self.netlink, &self.pins, interface, hook).await?;
                }
                at.attach(&self.netlink, &self.pins, interface, self.options.hook).await?
            };
        }
        for (number, other) in &mut self.slots {
            if *number > slot && judge.is_none() {
                other
                    .coverage
                    .veths
                    .iter_mut()
                    .filter(|v| v.index == veth.index)
                    .for_each(|v| v.judged_by = Some(slot));
            }
        }
        Ok(Armed { interface: veth.name.clone(), index: veth.index, hook, judged_by: judge })
    }

    /// Gives an interface to the next slot in its namespace, or detaches from it.
    async fn let_go(&mut self, slot: u32, index: u32, name: &str) -> Result<(), Error> {
        let heir = self.slots.iter().find(|(number, other)| **number != slot && other.has(index)).map(|(n, _)| *n);
        if let Some(heir) = heir {
            self.veths.insert(index, heir, 0).map_err(map_error("VETHS"))?;
            for (number, other) in &mut self.slots {
                let judge = (*number != heir).then_some(heir);
                other.coverage.veths.iter_mut().filter(|v| v.index == index).for_each(|v| v.judged_by = judge);
            }
            return Ok(());
        }
        for at in &mut self.at_veth {
            at.detach(&self.netlink, &self.pins, Interface { index, name }).await?;
        }
        gone_or(self.veths.remove(&index), "VETHS")
    }

    /// Keeps the map of the node's own addresses in step.
    async fn read_addresses(&mut self) -> Result<(), Error> {
        let wanted: BTreeSet<[u8; 16]> =
            link::addresses(&self.netlink).await?.into_iter().map(|address: IpAddr| mapped(address)).collect();
        let present: BTreeSet<[u8; 16]> = self.node_addresses.keys().filter_map(Result::ok).collect();
        for address in wanted.difference(&present) {
            self.node_addresses.insert(address, 1, 0).map_err(map_error("NODE_ADDRESSES"))?;
        }
        for address in present.difference(&wanted) {
            gone_or(self.node_addresses.remove(address), "NODE_ADDRESSES")?;
        }
        Ok(())
    }

    /// Exchanges what an earlier enforcer left at interfaces for our programs.
    async fn adopt(&mut self) -> Result<(), Error> {
        let failed = |source: io::Error| Error::Pin { path: self.pins.clone(), source };
        let mut by_tcx = BTreeSet::new();
        for entry in fs::read_dir(&self.pins).map_err(failed)? {
            let pin = entry.map_err(failed)?.path();
            let Some((index, direction)) = pin.file_name().and_then(|name| parse_pin(name.to_str()?)) else { continue };
            for at in self.at_veth.iter_mut().filter(|at| at.direction == direction) {
                if at.adopt(&pin)? {
                    by_tcx.insert(index);
                }
            }
        }
        let links: BTreeMap<u32, String> =
            link::links(&self.netlink).await?.into_iter().map(|link| (link.index, link.name)).collect();
        let known: Vec<u32> = self.veths.keys().filter_map(Result::ok).collect();
        for index in known.into_iter().filter(|index| !by_tcx.contains(index)) {
            match links.get(&index) {
                Some(name) => {
                    let interface = Interface { index, name };
                    for at in &mut self.at_veth {
                        at.attach(&self.netlink, &self.pins, interface, self.options.hook).await?;
                    }
                }
                None => gone_or(self.veths.remove(&index), "VETHS")?,
            }
        }
        Ok(())
    }
}

impl Slot {
    fn has(&self, index: u32) -> bool {
        self.coverage.veths.iter().any(|veth| veth.index == index)
    }
}

fn is_same(armed: &Armed, link: &Link) -> bool {
    armed.index == link.index && armed.interface == link.name
}
