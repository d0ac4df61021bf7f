//! The control loop of each site: the product's [`ControlLoop`], one message at a time. Mailboxes lie
//! between it and the shards, and each is read whenever its reader gets to it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, mpsc};

use crate::letters::left_by;
use crate::link::{Counted, Engine, Link, Nodeless};
use crate::oracle::{self, Promise};
use crate::order;
use crate::plan::{Dest, Fault};
use crate::rng::Rng;
use crate::site::Site;
use crate::trace::tell;
use crate::wire::Wire;
use crate::world::{LANES, SHARDS, World, lane_of, place_of};
use longship::config::{DcConfig, DcNamespaceConfig, ItemError, XdrConfig};
use longship::engine::{
    Asker, Beginning, Command, ControlLoop, ControlStart, DcEngine, DcSeed, Dcs, Follower, Hold,
    Left, Letter, LetterBox, Notice, Order, Phase, StoreFacts,
};
use longship::host::{CheckpointStore, Hole, Mark, Marks, NamespaceSettings, StoreError};
use longship::model::{DcIndex, Digest, Lut, NamespaceId, ShardIndex, SrcId, Tick};

/// Shards that follow orders. The world lives on the first; the others have nothing to ship, and
/// answer when they like.
const FOLLOWERS: usize = 3;

/// One in so many times the shard learns that positions are durable after it has told the next.
const LATE_READS: u64 = 2;

/// The name of a link's DC.
pub(crate) fn name_of(link: usize) -> String {
    format!("dc{link}")
}

/// The name of a namespace.
pub(crate) fn namespace_of(n: usize) -> String {
    format!("ns{n}")
}

/// The number behind a name.
fn number(name: &str) -> usize {
    let digits = name.trim_start_matches(char::is_alphabetic);
    digits.parse().expect("names here end with their number")
}

/// Items of namespaces: every value is a change.
#[derive(Debug)]
struct AnyItem;

impl NamespaceSettings for AnyItem {
    fn set(&mut self, _: NamespaceId, _: &str, _: &str) -> Result<bool, ItemError> {
        Ok(true)
    }
}

/// Links and namespaces that a site ships.
type Shipped = BTreeSet<(usize, usize)>;

/// What a control loop has done, in order.
enum Did {
    /// A shard was given an order.
    Told(ShardIndex, Order),
    /// Marks are in their file.
    Stored(Marks),
}

/// A file of marks that takes them at once.
struct Shelf(mpsc::Sender<Did>);

impl CheckpointStore for Shelf {
    fn load(&mut self) -> Result<Option<Marks>, StoreError> {
        Ok(None)
    }

    fn store(&mut self, marks: &Marks) -> Result<(), StoreError> {
        self.0.send(Did::Stored(marks.clone())).expect("the world outlives its control loops");
        Ok(())
    }
}

/// The control loop of a process, and what lies between it and its shards.
pub(crate) struct Loop {
    pub(crate) looped: ControlLoop,
    did: mpsc::Receiver<Did>,
    /// What each shard is told, and has not read.
    pub(crate) orders: [VecDeque<Order>; FOLLOWERS],
    /// What each shard has told; those of several shards are heard in any order.
    pub(crate) notices: [VecDeque<Notice>; FOLLOWERS],
    /// What shards have done for the command that is under way.
    pub(crate) promises: Vec<Promise>,
    /// Every DC begins at its marks.
    is_starting: bool,
}

impl Loop {
    /// Whether nobody waits for anybody.
    fn is_idle(&self) -> bool {
        self.orders.iter().all(VecDeque::is_empty) && self.notices.iter().all(VecDeque::is_empty)
    }
}

impl World {
    /// The control loop of a site starts: every DC there is begins at its marks, before the site
    /// takes requests.
    pub(crate) fn start_control(&mut self, site: usize) {
        let of_site = || (0..self.links.len()).filter(|&link| self.links[link].from == site);
        // Settings stay in the file when a namespace is detached or a DC deleted.
        let whole = |link: usize| DcConfig {
            namespaces: self.links[link].settings.iter().flatten().cloned().collect(),
            ..self.dc_config(link)
        };
        let src_id = self.sites[site].src_id.0;
        let is_empty = self.sites[site].store.keys().next().is_none();
        let namespaces = (0..self.plan.namespaces).map(namespace_of);
        let exists = |link: &usize| self.links[*link].exists;
        let start = ControlStart {
            xdr: XdrConfig {
                src_id,
                dcs: of_site().filter(exists).map(|link| self.dc_config(link)).collect(),
            },
            file: XdrConfig { src_id, dcs: of_site().map(whole).collect() },
            namespaces: namespaces.collect(),
            settings: Box::new(AnyItem),
            stores: vec![
                StoreFacts { id: 1, is_empty, ..StoreFacts::default() };
                self.plan.namespaces
            ],
            lost_start: None,
            marks: self.sites[site].durable.file.clone(),
            has_lost_letters: false,
            shard_count: FOLLOWERS,
        };
        let (does, did) = mpsc::channel();
        let store = Box::new(Shelf(does.clone()));
        let tell = move |shard, order| {
            does.send(Did::Told(shard, order)).expect("the world outlives its control loops");
        };
        let letters = LetterBox::over(Box::new(self.sites[site].durable.letters.clone()));
        let wall = self.sites[site].wall(self.now_us);
        let mut looped = ControlLoop::over(start, store, letters, wall, Arc::new(tell));
        looped.act();
        self.loops[site] = Some(Loop {
            looped,
            did,
            orders: Default::default(),
            notices: Default::default(),
            promises: Vec::new(),
            is_starting: true,
        });
        let shipped = self.shipped(site);
        self.note_done(site, &shipped);
        self.settle_control(site);
        if let Some(place) = &mut self.loops[site] {
            place.is_starting = false;
        }
    }

    fn dc_config(&self, link: usize) -> DcConfig {
        let place = &self.links[link];
        DcConfig {
            paused: place.paused,
            seeds: vec![("there".to_owned(), 3000)],
            max_recoveries_interleaved: self.plan.limits.recoveries_interleaved,
            namespaces: place.configs.iter().flatten().cloned().collect(),
            ..DcConfig::named(&name_of(link))
        }
    }

    /// An operator gives a command, at the port of any shard.
    pub(crate) fn command(&mut self, site: usize, command: Command) {
        let asker: Asker = (ShardIndex(self.now_us as u16 % FOLLOWERS as u16), 0);
        self.command_at(site, asker, command);
    }

    /// The same at that port.
    pub(crate) fn command_at(&mut self, site: usize, (shard, ticket): Asker, command: Command) {
        tell(None, || format!("site {site} is told: {command:?}"));
        self.hear(site, Notice::Command { shard, ticket, command });
    }

    /// Settings of a link's DC change, unless a command is under way. Says whether they do.
    pub(crate) fn edit(&mut self, link: usize, change: impl FnOnce(&mut DcConfig)) -> bool {
        let site = self.links[link].from;
        let wall = self.sites[site].wall(self.now_us);
        let Some(Loop { looped, .. }) = &mut self.loops[site] else { return false };
        let is_taken = looped.edit(&name_of(link), change, wall);
        let shipped = self.shipped(site);
        self.note_done(site, &shipped);
        is_taken
    }

    /// Stops a site's process in good order.
    pub(crate) fn stop_control(&mut self, site: usize) {
        self.hear(site, Notice::Stop);
        self.settle_control(site);
        let ended = self.loops[site].as_ref().is_none_or(|place| place.looped.control().is_ended());
        assert!(ended, "a stop that hangs");
    }

    /// The control loop and the shards of a site go on until nobody waits for anybody.
    pub(crate) fn settle_control(&mut self, site: usize) {
        let mut rng = Rng::at(self.plan.seed, self.now_us);
        while self.pass_message(site, &mut rng) {}
    }

    /// One message is read, at either end. False: there is none.
    pub(crate) fn pass_message(&mut self, site: usize, rng: &mut Rng) -> bool {
        let Some(place) = &self.loops[site] else { return false };
        if place.is_idle() {
            return false;
        }
        let first = rng.below(2 * FOLLOWERS as u64) as usize;
        for at in (0..2 * FOLLOWERS).map(|at| (first + at) % (2 * FOLLOWERS)) {
            let Some(place) = &mut self.loops[site] else { break };
            if at < FOLLOWERS {
                if let Some(order) = place.orders[at].pop_front() {
                    self.obey(site, at, order);
                    return true;
                }
            } else if !place.notices[at - FOLLOWERS].is_empty() {
                let mut waiting = std::mem::take(&mut place.notices[at - FOLLOWERS]);
                self.before_letters(site, &waiting[0], rng);
                self.hear_next(site, &mut waiting);
                let Some(place) = &mut self.loops[site] else { return true };
                let later = std::mem::replace(&mut place.notices[at - FOLLOWERS], waiting);
                place.notices[at - FOLLOWERS].extend(later);
                return true;
            }
        }
        false
    }

    /// A shard tells the control loop something.
    pub(crate) fn notify(&mut self, site: usize, shard: usize, notice: Notice) {
        if let Some(place) = &mut self.loops[site] {
            place.notices[shard].push_back(notice);
        }
    }

    fn hear(&mut self, site: usize, notice: Notice) {
        self.hear_next(site, &mut VecDeque::from([notice]));
    }

    fn hear_next(&mut self, site: usize, waiting: &mut VecDeque<Notice>) {
        let wall = self.sites[site].wall(self.now_us);
        let notice = &waiting[0];
        let left = left_by(notice);
        // When marks are stored, what comes after has not been applied.
        let stores = matches!(
            notice,
            Notice::Command { .. }
                | Notice::Followed { .. }
                | Notice::Marks { .. }
                | Notice::Stopped { .. }
        );
        let shipped = if stores { self.shipped(site) } else { Shipped::new() };
        let Some(Loop { looped, .. }) = &mut self.loops[site] else { return };
        looped.hear_next(waiting, wall);
        if let Some((dc, namespace, digests)) = left {
            self.note_left(site, &dc, &namespace, &digests);
        }
        self.note_done(site, &shipped);
    }

    /// What a site ships, as far as commands have been applied.
    fn shipped(&self, site: usize) -> Shipped {
        let Some(Loop { looped, .. }) = &self.loops[site] else { return Shipped::new() };
        let all = (0..self.links.len()).filter(|&link| self.links[link].from == site);
        let all = all.flat_map(|link| (0..self.plan.namespaces).map(move |n| (link, n)));
        all.filter(|(link, n)| looped.control().ships(&name_of(*link), &namespace_of(*n))).collect()
    }

    /// Looks at what the control loop has done.
    fn note_done(&mut self, site: usize, shipped: &Shipped) {
        while let Some(did) = self.loops[site].as_ref().and_then(|place| place.did.try_recv().ok())
        {
            match did {
                Did::Told(shard, order) => {
                    if matches!(order, Order::Answer { result: Ok(_), .. }) {
                        oracle::what_is_answered_is_done(self, site);
                    }
                    if let Order::Buried { dc, slots, .. } = &order {
                        oracle::a_letter_that_is_kept_is_on_file(self, site, *dc, slots);
                    }
                    if let Order::Dc { starts, .. } = &order {
                        let is_lost =
                            starts.iter().any(|(_, start)| matches!(start, Beginning::Oldest));
                        assert!(!is_lost, "site {site} has lost its positions");
                    }
                    self.order(site, shard.0.into(), order);
                }
                Did::Stored(marks) => self.store(site, marks, shipped),
            }
        }
    }

    fn order(&mut self, site: usize, shard: usize, order: Order) {
        if let Some(place) = &mut self.loops[site] {
            place.orders[shard].push_back(order);
        }
    }

    /// Marks are in their file.
    fn store(&mut self, site: usize, marks: Marks, shipped: &Shipped) {
        tell(None, || format!("marks of site {site} are durable"));
        // Followed, and its mark is still the one from before that.
        let promises = self.loops[site].as_ref().map_or(&[][..], |place| &place.promises);
        let is_to_move = |of: usize, lane, lst| {
            let begins = |promise: &Promise| match promise {
                Promise::Begun { link, at, .. } => *link == of && at.get(&lane) > Some(&Lut::ZERO),
                Promise::Gone { .. } => false,
            };
            lst == Lut::ZERO && promises.iter().any(begins)
        };
        let durable = &mut self.sites[site].durable;
        durable.marks.clear();
        durable.orphans.clear();
        // Lanes elsewhere never tell where they begin, and stand where they were attached.
        let is_here = |mark: &&Mark| {
            let partition = mark.lane.partition;
            partition.shard(SHARDS) == ShardIndex(0) && lane_of(partition) < LANES
        };
        for Mark { lane, lst } in marks.lanes.iter().filter(is_here) {
            let (link, place) = (number(&marks.dcs[lane.dc.index()]), place_of(lane));
            durable.marks.entry(link).or_default().insert(place, *lst);
            // Detached, or to be attached when its shard follows.
            let is_begun = self.links[link].configs[place.0].is_some();
            let is_begun = is_begun && !is_to_move(link, place, *lst);
            if !shipped.contains(&(link, place.0)) || !is_begun {
                durable.orphans.insert((link, place.0));
            }
        }
        durable.file = Some(marks);
    }

    /// A shard follows an order.
    fn obey(&mut self, site: usize, shard: usize, order: Order) {
        if shard > 0 {
            self.obey_elsewhere(site, shard, order);
            return;
        }
        match &order {
            Order::Answer { result: Err(refusal), .. } => {
                tell(None, || format!("site {site} refuses a command: {refusal}"));
            }
            Order::MarksStored(round) if round.is_multiple_of(LATE_READS) => {
                self.tell_the_next_marks(site);
            }
            _ => {}
        }
        let is_stored = matches!(order, Order::MarksStored(_));
        let now = self.now(site);
        let obeyed = self.with_follower(site, |follower, dcs| {
            let phase = follower.phase();
            let notice = follower.obey(order, dcs, now);
            (notice, Some(follower.phase()).filter(|now| *now > phase))
        });
        let Some((notice, entered)) = obeyed else { panic!("an order for a site that is down") };
        notice.into_iter().for_each(|notice| self.notify(site, shard, notice));
        if is_stored {
            self.raid_before_the_next_marks(site);
        }
        match entered {
            Some(Phase::Stopping) => self.notify(site, shard, Notice::Quiet),
            Some(Phase::Finishing) => {
                let last = self.with_follower(site, |follower, dcs| follower.last_words(dcs));
                self.flush(site);
                let last = last.expect("a shard that is up");
                self.notify(site, shard, last.notice(&[]));
            }
            Some(Phase::Starting | Phase::Serving) | None => {}
        }
    }

    /// Does something with what a site's shard knows of its orders, and its DCs; nothing while it is
    /// down.
    pub(crate) fn with_follower<R>(
        &mut self,
        site: usize,
        f: impl FnOnce(&mut Follower, &mut SiteDcs<'_>) -> R,
    ) -> Option<R> {
        let mut follower = self.followers[site].take()?;
        let done = f(&mut follower, &mut SiteDcs { world: self, site, is_new: false });
        self.followers[site] = Some(follower);
        Some(done)
    }

    /// A shard that has nothing to ship follows an order.
    fn obey_elsewhere(&mut self, site: usize, shard: usize, order: Order) {
        let (marks, gaps) = (Vec::new(), Vec::new());
        let notice = match order {
            Order::Dc { serial, .. }
            | Order::Namespace { serial, .. }
            | Order::Replay { serial, .. } => Notice::Followed { serial, marks, gaps },
            Order::Stop => Notice::Quiet,
            Order::Finish => Notice::Stopped { marks, letters: Vec::new(), durable: true },
            _ => return,
        };
        self.notify(site, shard, notice);
    }

    /// Positions are taken anew, flushed and told.
    fn tell_the_next_marks(&mut self, site: usize) {
        self.links_from(site).into_iter().for_each(|link| _ = self.sweep(link));
        self.checkpoint(site);
        self.flush(site);
        self.checkpoint(site);
    }

    /// The shard has told newer positions, and the file does not have them.
    fn raid_before_the_next_marks(&mut self, site: usize) {
        let Some(place) = &self.loops[site] else { return };
        let told = place.notices[0].iter().any(|notice| matches!(notice, Notice::Marks { .. }));
        if told && self.plan.has(Fault::Raid) {
            self.sites[site].raid = None;
            (0..3).for_each(|_| self.raid(site));
        }
    }

    /// A DC becomes as configured; it `is_new` when it was made for this.
    fn follow(
        &mut self,
        link: usize,
        config: &Arc<DcConfig>,
        starts: &[(NamespaceId, Beginning)],
        is_new: bool,
    ) {
        let site = self.links[link].from;
        self.links[link].exists = true;
        self.take_settings(link, config);
        let is_starting = self.loops[site].as_ref().is_some_and(|place| place.is_starting);
        if !is_starting && !starts.is_empty() {
            // Often enough a raid is under way when a DC begins in the past.
            if self.plan.has(Fault::Raid) && Rng::at(self.plan.seed, !self.now_us).percent(60) {
                self.raid_halfway(site);
            }
        }
        self.configure(link, config, starts);
        if is_new {
            self.tell_facts(link);
            self.links[link].counted = Counted::default();
            self.links[link].seen.clear();
        }
        if !is_starting {
            starts.iter().for_each(|(namespace, start)| self.note_start(link, *namespace, start));
        }
        tell(None, || {
            let begun = starts.iter().map(|(namespace, start)| match start {
                Beginning::At(lanes) => format!("{namespace:?} at {:?}", lanes[0]),
                start => format!("{namespace:?} {start:?}"),
            });
            let begun: Vec<String> = begun.collect();
            format!("DC {link} is at {:?} after {begun:?}", self.marks(link))
        });
    }

    /// What a DC ships is as configured from now on.
    fn take_settings(&mut self, link: usize, config: &DcConfig) {
        let site = &self.sites[self.links[link].from];
        let last = site.last.get().max(site.store.highest());
        let place = &mut self.links[link];
        place.nodeless = Nodeless::No;
        place.paused = config.paused;
        let now: Vec<Option<DcNamespaceConfig>> =
            (0..place.configs.len()).map(|n| config.namespace(&namespace_of(n)).cloned()).collect();
        let is_refiltered =
            place.configs.iter().flatten().zip(now.iter().flatten()).any(|(old, new)| {
                let same_pace = DcNamespaceConfig {
                    hot_key_ms: old.hot_key_ms,
                    delay_ms: old.delay_ms,
                    max_throughput: old.max_throughput,
                    transaction_queue_limit: old.transaction_queue_limit,
                    ..new.clone()
                };
                same_pace != *old
            });
        if is_refiltered {
            place.ledger.refiltered = Some(last);
        }
        oracle::note_refilter(self, link);
        for (n, config) in now.into_iter().enumerate() {
            let place = &mut self.links[link];
            if let Some(settings) = &config {
                place.set(n, settings.clone());
            }
            let was = std::mem::replace(&mut place.configs[n], config);
            if was.is_some() && place.configs[n].is_none() {
                self.note_detached(link, n);
            }
        }
        oracle::note_refilter(self, link);
        self.note_delays(link);
    }

    /// What changes have to wait for is as configured from now on. Who is paused forgets what waited.
    pub(crate) fn note_delays(&mut self, link: usize) {
        for n in 0..self.plan.namespaces {
            let keys = self.keys_of(NamespaceId(n as u8));
            let place = &mut self.links[link];
            let config = place.configs[n].as_ref();
            if place.paused || config.is_some_and(|config| config.max_throughput == 0) {
                place.waits.release(keys);
            }
        }
        let place = &mut self.links[link];
        place.waits.configure(&place.configs, Tick(self.now_us));
    }

    /// Nothing of a namespace is owed any more.
    fn note_detached(&mut self, link: usize, n: usize) {
        tell(None, || format!("DC {link} ships namespace {n} no more"));
        let keys = self.plan.keys;
        let keep = |key: crate::store::Key| usize::from(key / keys) != n;
        let Self { sites, links, stragglers, .. } = self;
        for straggler in stragglers.iter_mut().filter(|of| of.link == link) {
            straggler.is_left |= !keep(straggler.request.key);
        }
        let place = &mut links[link];
        place.seen.retain(|(of, _), _| *of != n);
        place.ledger.forget(keep);
        place.waits.forget(keep);
        place.discard(&sites[place.from], keep);
        self.note_laps(link, n);
        self.promise(link, Promise::Gone { link, n: Some(n) });
    }

    /// A namespace begins, or is moved back.
    fn note_start(&mut self, link: usize, namespace: NamespaceId, start: &Beginning) {
        let n = namespace.index();
        let place = &mut self.links[link];
        place.seen.retain(|(of, _), _| *of != n);
        place.ledger.begun = self.sites[place.from].last.get();
        if let Beginning::At(lanes) = start {
            let from = lanes[0].unwrap_or(Lut::ZERO);
            oracle::note_rewind(self, link, Some(namespace), from);
        }
        let at = self.marks(link).into_iter().filter(|((of, _), _)| *of == n).collect();
        self.promise(link, Promise::Begun { link, n, at });
    }

    /// Laps over a namespace begin anew, if there are any.
    fn note_laps(&mut self, link: usize, n: usize) {
        [false, true].into_iter().for_each(|is_find| order::begins(self, link, n, is_find));
    }

    fn promise(&mut self, link: usize, promise: Promise) {
        if let Some(place) = &mut self.loops[self.links[link].from] {
            place.promises.push(promise);
        }
    }

    fn start_engine(&mut self, link: usize, index: DcIndex, src_id: SrcId, hold: Hold) {
        let place = &self.links[link];
        let (owner, nodes) = match place.to {
            Dest::Site(_) => (vec![Some(0); LANES], 1),
            Dest::Foreign(foreign) => {
                (self.foreigns[foreign].owner.clone(), self.foreigns[foreign].up.len())
            }
        };
        let engine = DcEngine::new(DcSeed {
            index,
            name: name_of(link),
            namespaces: (0..place.configs.len()).map(namespace_of).collect(),
            shard: 0,
            shard_count: SHARDS,
            limits: self.plan.limits,
            src_id,
            hold,
            shippers: Default::default(),
            destination: Wire::new(owner, nodes, self.node_window()),
        });
        self.links[link].told.clear();
        self.links[link].nodeless = Nodeless::No;
        self.links[link].index = index;
        self.links[link].engine = Some(engine);
        (0..self.plan.namespaces).for_each(|n| self.note_laps(link, n));
    }

    fn configure(&mut self, link: usize, config: &DcConfig, starts: &[(NamespaceId, Beginning)]) {
        let now = self.now(self.links[link].from);
        let Self { sites, links, plan, .. } = self;
        let place = &mut links[link];
        // Of a process with so many shards.
        let whole = |config: &DcNamespaceConfig| DcNamespaceConfig {
            max_throughput: config.max_throughput * u32::from(SHARDS),
            ..config.clone()
        };
        let config = DcConfig {
            max_recoveries_interleaved: plan.limits.recoveries_interleaved,
            namespaces: config.namespaces.iter().map(whole).collect(),
            ..config.clone()
        };
        let Some(engine) = &mut place.engine else { return };
        engine.configure(&sites[place.from], &config, starts, now);
        place.woken = true;
        if std::mem::take(&mut engine.destination_mut().is_outdated) {
            let mut rng = Rng::at(plan.seed, self.now_us);
            place.return_encoded(|_| true);
            (0..self.links[link].conns().len()).for_each(|node| self.reset(link, node, &mut rng));
        }
    }

    /// The DC of that index, if it is there.
    pub(crate) fn link_of(&self, site: usize, dc: DcIndex) -> Option<usize> {
        self.links_from(site).into_iter().find(|&link| self.links[link].index == dc)
    }

    /// A DC is gone.
    fn end_dc(&mut self, link: usize) {
        let mut rng = Rng::at(self.plan.seed, self.now_us);
        (0..self.links[link].conns().len()).for_each(|node| self.reset(link, node, &mut rng));
        self.forget(link);
        self.links[link].exists = false;
        // One that is made again is not, and ships nothing yet.
        self.links[link].paused = false;
        self.links[link].configs.fill(None);
        self.links[link].ledger = Default::default();
        tell(None, || format!("DC {link} is deleted"));
        self.promise(link, Promise::Gone { link, n: None });
    }

    /// The process dies, and nobody answers its operators.
    pub(crate) fn lose_control(&mut self, site: usize) {
        let Some(Loop { looped, promises, .. }) = self.loops[site].take() else { return };
        let control = looped.control();
        let (keys, newest) = (self.plan.keys, self.sites[site].store.highest());
        let links = self.links.iter_mut().enumerate();
        for (at, link) in links.filter(|(_, link)| link.from == site) {
            for n in 0..link.configs.len() {
                // What nobody was told `ok` for is not promised; nor is what was to end.
                let is_begun = |promise: &Promise| matches!(promise, Promise::Begun { link, n: of, .. } if (*link, *of) == (at, n));
                let ends =
                    link.configs[n].is_some() && !control.ships(&name_of(at), &namespace_of(n));
                if ends || promises.iter().any(is_begun) {
                    link.ledger.forget(|key| usize::from(key / keys) != n);
                    link.ledger.begun = newest;
                }
            }
        }
    }
}

/// The DCs of a site, as its shard's orders change them.
pub(crate) struct SiteDcs<'a> {
    world: &'a mut World,
    site: usize,
    /// One has just been made.
    is_new: bool,
}

impl SiteDcs<'_> {
    fn link(&self, dc: DcIndex) -> usize {
        self.world.link_of(self.site, dc).expect("asked of those there are")
    }

    fn engine(&mut self, dc: DcIndex) -> &mut Engine {
        let link = self.link(dc);
        self.world.links[link].engine.as_mut().expect("it is there")
    }
}

impl Dcs for SiteDcs<'_> {
    type Host = Site;

    fn with_host<R>(&mut self, f: impl FnOnce(&mut Site) -> R) -> R {
        f(&mut self.world.sites[self.site])
    }

    fn all(&self) -> Vec<DcIndex> {
        let links = self.world.links_from(self.site).into_iter();
        links.map(|link| self.world.links[link].index).collect()
    }

    fn has(&self, dc: DcIndex) -> bool {
        self.world.link_of(self.site, dc).is_some()
    }

    fn make(&mut self, dc: DcIndex, config: &Arc<DcConfig>, src_id: SrcId, hold: Hold) {
        self.world.start_engine(number(&config.name), dc, src_id, hold);
        self.is_new = true;
    }

    fn configure(
        &mut self,
        dc: DcIndex,
        config: Arc<DcConfig>,
        src_id: SrcId,
        starts: &[(NamespaceId, Beginning)],
    ) {
        self.engine(dc).set_src_id(src_id);
        self.world.follow(self.link(dc), &config, starts, self.is_new);
    }

    fn sweep(&mut self, dc: DcIndex) {
        self.world.sweep(self.link(dc));
    }

    fn marks(&self, dc: DcIndex, out: &mut Vec<Mark>) {
        out.extend(self.world.positions(self.link(dc)));
    }

    fn take_left(&mut self, dc: DcIndex, namespace: NamespaceId) {
        let link = self.link(dc);
        self.engine(dc).take_left(namespace);
        self.world.tell_news(link);
    }

    fn left(&self, dc: DcIndex, namespace: NamespaceId) -> Option<Left> {
        self.world.links[self.link(dc)].engine.as_ref()?.left(namespace)
    }

    fn end(&mut self, dc: DcIndex) {
        self.world.end_dc(self.link(dc));
    }

    fn buried(&mut self, dc: DcIndex, slots: &[(u32, bool)], refusal: Option<String>) {
        self.world.take_buried(self.link(dc), slots, refusal);
    }

    fn letters_kept(&mut self, dc: DcIndex, namespace: NamespaceId, records: &[(Digest, Lut)]) {
        self.engine(dc).letters_kept(namespace, records);
    }

    fn replay(&mut self, dc: DcIndex, namespace: NamespaceId, letters: &[Letter]) {
        let (link, now) = (self.link(dc), self.world.now(self.site));
        let World { sites, links, .. } = &mut *self.world;
        if let Link { engine: Some(engine), woken, .. } = &mut links[link] {
            engine.replay(&sites[self.site], namespace, letters, now);
            *woken = true;
        }
        self.world.tell_news(link);
    }

    fn set_holes(&mut self, dc: DcIndex, holes: Arc<[(NamespaceId, Hole)]>) {
        panic!("site {} is told that DC {dc:?} lacks something: {holes:?}", self.site);
    }
}
