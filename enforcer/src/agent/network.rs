//! The datapaths, kept by a thread of their own.
//!
//! Whoever changes an interface waits for the one lock that the kernel has for all of them (rtnl), and every network that
//! is made or removed holds it for tens of milliseconds. Neither a container that is announced meanwhile nor a violation
//! waits for that: the agent asks, goes on, and hears what came of it.

use super::Command;
use anyhow::Context as _;
use ringfence_netiso::{Coverage, Datapaths, Error, Netns, Watch};
use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
};
use tokio::{runtime::Handle, sync::mpsc};

/// What is asked for. One after the other, in the order in which it was asked for.
pub(super) enum Wish {
    /// The ways of a slot that lives in this network namespace.
    Arm(u32, Netns),
    /// Processes of the slot are in these, too.
    AlsoIn(u32, Vec<Netns>),
    /// The slot is no more.
    Disarm(u32),
    /// Whether all is where it was put, for these slots.
    LookAt(BTreeSet<u32>),
    /// The same for all slots.
    Verify,
    /// Every slot that lives is armed: what belongs to others goes.
    Prune,
    /// Nothing. Who commands this learns of what was asked for before it.
    Answer(Command),
}

/// What came of it, or by itself.
pub(super) enum News {
    /// That was done, or not.
    Done(Wish, Result<(), Error>),
    /// The node's interfaces or addresses have changed, and the datapaths followed, or not.
    Changed {
        /// Whether an interface came or went.
        is_of_interfaces: bool,
        outcome: Result<(), Error>,
    },
}

/// Slots whose coverage is another one now; none: it is not armed any more.
type Covered = Vec<(u32, Option<Coverage>)>;

/// The agent's end.
pub(super) struct Network {
    /// None: nothing more will be asked for.
    wishes: Option<mpsc::UnboundedSender<Wish>>,
    news: mpsc::UnboundedReceiver<(News, Covered)>,
    coverage: BTreeMap<u32, Coverage>,
    under_way: usize,
    verifying: bool,
    /// How often each slot is to be armed yet.
    arming: BTreeMap<u32, usize>,
}

impl Network {
    /// Call it within a tokio runtime and in the node's network namespace.
    pub fn start(datapaths: Datapaths) -> anyhow::Result<Self> {
        let watch = Watch::start()?;
        let (wishes, asked) = mpsc::unbounded_channel();
        let (send, news) = mpsc::unbounded_channel();
        let keeper = Keeper { datapaths, watch, told: BTreeMap::new() };
        let runtime = Handle::current();
        thread::Builder::new()
            .name("network".to_owned())
            .spawn(move || runtime.block_on(keeper.keep(asked, send)))
            .context("the thread that keeps the datapaths can't be started")?;
        Ok(Self {
            wishes: Some(wishes),
            news,
            coverage: BTreeMap::new(),
            under_way: 0,
            verifying: false,
            arming: BTreeMap::new(),
        })
    }

    pub fn ask(&mut self, wish: Wish) {
        let Some(wishes) = &self.wishes else { return };
        match wish {
            Wish::Arm(slot, _) => *self.arming.entry(slot).or_default() += 1,
            Wish::Verify => self.verifying = true,
            _ => {}
        }
        if wishes.send(wish).is_ok() {
            self.under_way += 1;
        }
    }

    /// The next. None: there will be no more.
    pub async fn news(&mut self) -> Option<News> {
        let (news, covered) = self.news.recv().await?;
        for (slot, coverage) in covered {
            match coverage {
                Some(coverage) => drop(self.coverage.insert(slot, coverage)),
                None => drop(self.coverage.remove(&slot)),
            }
        }
        if let News::Done(wish, _) = &news {
            self.under_way -= 1;
            match wish {
                Wish::Arm(slot, _) => match self.arming.get_mut(slot) {
                    Some(times) if *times > 1 => *times -= 1,
                    _ => drop(self.arming.remove(slot)),
                },
                Wish::Verify => self.verifying = false,
                _ => {}
            }
        }
        Some(news)
    }

    /// What covers the slot, as far as that was told; none: it is not armed.
    pub fn coverage(&self, slot: u32) -> Option<&Coverage> {
        self.coverage.get(&slot)
    }

    /// Whether that may be another thing soon.
    pub fn is_arming(&self, slot: u32) -> bool {
        self.arming.contains_key(&slot)
    }

    /// Whether all that was asked for was done.
    pub fn is_idle(&self) -> bool {
        self.under_way == 0
    }

    /// Whether all slots are to be looked at anyway.
    pub fn is_verifying(&self) -> bool {
        self.verifying
    }

    /// What was asked for is still done, and nothing after it.
    pub fn close(&mut self) {
        self.wishes = None;
    }
}

/// The thread's end.
struct Keeper {
    datapaths: Datapaths,
    watch: Watch,
    told: BTreeMap<u32, Coverage>,
}

impl Keeper {
    async fn keep(mut self, mut asked: mpsc::UnboundedReceiver<Wish>, send: mpsc::UnboundedSender<(News, Covered)>) {
        loop {
            let news = tokio::select! {
                wish = asked.recv() => {
                    let Some(wish) = wish else { return };
                    let outcome = self.fulfil(&wish).await;
                    News::Done(wish, outcome)
                }
                Some(change) = self.watch.next() => {
                    let is_of_interfaces = change.is_of_interfaces();
                    News::Changed { is_of_interfaces, outcome: self.datapaths.apply(change).await.map(drop) }
                }
            };
            if send.send((news, self.covered())).is_err() {
                return;
            }
        }
    }

    async fn fulfil(&mut self, wish: &Wish) -> Result<(), Error> {
        match wish {
            Wish::Arm(slot, netns) => self.datapaths.arm(*slot, netns.clone()).await.map(drop),
            Wish::AlsoIn(slot, namespaces) => {
                self.datapaths.also_in(*slot, namespaces);
                Ok(())
            }
            Wish::Disarm(slot) => self.datapaths.disarm(*slot).await,
            Wish::LookAt(slots) => self.datapaths.look_at(slots).await.map(drop),
            Wish::Verify => self.datapaths.verify().await.map(drop),
            Wish::Prune => self.datapaths.prune().await,
            Wish::Answer(_) => Ok(()),
        }
    }

    /// What was not told yet.
    fn covered(&mut self) -> Covered {
        let now: BTreeMap<u32, &Coverage> = self.datapaths.coverages().collect();
        let gone = self.told.keys().filter(|slot| !now.contains_key(slot)).map(|slot| (*slot, None));
        let changed = now.iter().filter(|(slot, coverage)| self.told.get(slot) != Some(coverage));
        let covered: Covered = gone.chain(changed.map(|(slot, coverage)| (*slot, Some((*coverage).clone())))).collect();
        for (slot, coverage) in &covered {
            match coverage {
                Some(coverage) => drop(self.told.insert(*slot, coverage.clone())),
                None => drop(self.told.remove(slot)),
            }
        }
        covered
    }
}
