//! From a message to its lane: recipient domain → route and site → sending IP → lane.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use relaypool_api::{Domain, EmailAddress};
use relaypool_shaping::policy::{EffectivePolicy, PolicySet};
use relaypool_shaping::retry::RetrySchedule;
use relaypool_shaping::site::{Site, best_preference};
use relaypool_shaping::warm_up::Destination;
use relaypool_spool::{MessageKey, SliceNumber};

use super::attempt::Attempt;
use super::ip_choice::{Outlook, Seeker, choose};
use super::lane::LaneId;
use super::run::{Hold, RunId};
use super::slice::{DomainId, Place, Slot};
use super::source_ip::SourceIp;
use super::{Dispatcher, Effect};
use crate::ledger::{Millis, StoredRow, decode};
use crate::resolver::{Route, RouteError};

/// A recipient domain.
pub(crate) struct DomainEntry {
    pub(crate) name: Domain,
    route: RouteState,
    /// Messages that wait for the look-up.
    waiting: Vec<MessageKey>,
}

enum RouteState {
    Unknown,
    LookingUp,
    Known(KnownRoute),
}

/// Where a domain's mail goes, under the policies of now.
#[derive(Clone)]
struct KnownRoute {
    route: Arc<Route>,
    policy: Arc<EffectivePolicy>,
    lane_name: String,
    /// What warm-ups tell the provider apart by.
    destination: Arc<Destination>,
    site: Site,
}

impl Dispatcher {
    /// Brings a message to its lane, or to where it waits for what it lacks.
    pub(crate) fn route(&mut self, key: MessageKey, now: Millis) {
        if !self.is_at(key, Place::Unrouted) {
            return;
        }
        let run = self.slices[&key.slice].run;
        if let Some(hold) = self.run(run).hold(now) {
            return self.park(run, key, &hold);
        }
        if self.ips.is_empty() {
            // A sender that has just started may not know its name servers yet either: to ask others about the domain
            // could end the message.
            return self.park(run, key, &Hold::NoSendingIp);
        }
        let domain = match self.domain_of(key) {
            Ok(domain) => domain,
            Err(reason) => return self.ignore(key, &reason, now),
        };
        match &self.domains[domain.0 as usize].route {
            RouteState::Known(known) if known.route.valid_until > Instant::now() => {
                let known = known.clone();
                self.route_by(&known, run, domain, key, now);
            }
            RouteState::LookingUp => self.wait_for_route(domain, key),
            RouteState::Unknown | RouteState::Known(_) => {
                self.wait_for_route(domain, key);
                self.domains[domain.0 as usize].route = RouteState::LookingUp;
                let name = self.domains[domain.0 as usize].name.clone();
                self.effects.push(Effect::LookUp(domain, name));
            }
        }
    }

    /// A look-up came back.
    pub(crate) fn route_found(&mut self, domain: DomainId, found: Result<Route, RouteError>, now: Millis) {
        let waiting = std::mem::take(&mut self.domains[domain.0 as usize].waiting);
        match found {
            Ok(route) => {
                let known = self.known_route(domain, Arc::new(route));
                self.domains[domain.0 as usize].route = RouteState::Known(known);
                for key in waiting {
                    if self.is_at(key, Place::Routing) {
                        self.requeue(key);
                    }
                }
            }
            Err(error) => {
                self.domains[domain.0 as usize].route = RouteState::Unknown;
                let attempt = Attempt::no_route(error);
                for key in waiting {
                    if self.is_at(key, Place::Routing) {
                        self.decide(key, None, None, None, &attempt, now);
                    }
                }
            }
        }
    }

    /// Replaces the policies. Lanes have their new limits at once; messages whose lane is another now move there.
    pub(crate) fn set_policies(&mut self, policies: PolicySet, now: Millis) {
        self.policies = Arc::new(policies);
        let mut lane_policies: BTreeMap<String, (Arc<EffectivePolicy>, Site)> = BTreeMap::new();
        for index in 0..self.domains.len() {
            let id = DomainId(u32::try_from(index).expect("domains are fewer than 2^32"));
            if let RouteState::Known(known) = &self.domains[index].route {
                let renewed = self.known_route(id, Arc::clone(&known.route));
                let policy = (Arc::clone(&renewed.policy), renewed.site.clone());
                lane_policies.insert(renewed.lane_name.clone(), policy);
                self.domains[index].route = RouteState::Known(renewed);
            }
        }
        for index in 0..self.lanes.len() {
            let lane = LaneId(u32::try_from(index).expect("lanes are fewer than 2^32"));
            match lane_policies.get(&self.lanes[index].site) {
                Some((policy, site)) => {
                    self.lanes[index].limits = self.lane_limits(policy, site, now);
                    let changed = self.lane_mut(lane);
                    changed.policy = Arc::clone(policy);
                    changed.rules.rules_changed(&policy.reply_rules);
                    self.renew_limits(lane, now);
                }
                None => self.empty_lane(lane),
            }
        }
        self.recount_pool_limits(now);
        for index in 0..self.lanes.len() {
            self.work(LaneId(u32::try_from(index).expect("lanes are fewer than 2^32")), now);
        }
    }

    /// Replaces the sending IPs of this sender. Messages of an IP that is gone find another.
    pub(crate) fn set_ips(&mut self, ips: Vec<SourceIp>, now: Millis) {
        self.recall_lanes(&ips, now);
        self.ips = ips.into_iter().map(|ip| (ip.name.clone(), ip)).collect();
        self.set_warm_ups(now);
        for index in 0..self.lanes.len() {
            let lane = LaneId(u32::try_from(index).expect("lanes are fewer than 2^32"));
            if self.ips.contains_key(&self.lanes[index].ip) {
                self.work(lane, now);
            } else {
                self.empty_lane(lane);
            }
        }
        self.move_all_blocked(now);
        for index in 0..self.runs.len() {
            self.release_parked(RunId(u32::try_from(index).expect("runs are fewer than 2^32")));
        }
    }

    pub(crate) fn empty_lane(&mut self, lane: LaneId) {
        for (_, key) in self.lane_mut(lane).queue.drain() {
            if self.is_at(key, Place::Lane) {
                self.requeue(key);
            }
        }
    }

    fn route_by(&mut self, known: &KnownRoute, run: RunId, domain: DomainId, key: MessageKey, now: Millis) {
        let content = Arc::clone(&self.run(run).content);
        let tried = self.slot_mut(key).and_then(|slot| slot.tried.take());
        let seeker = Seeker {
            key,
            affinity: content.snapshot.ip_affinity.as_ref(),
            tried: tried.as_ref().map(|tried| tried.ip.as_str()),
            moves: self.moves_when_blocked(run),
        };
        let outlook = |ip: &SourceIp| Outlook {
            path: self.path_state(&ip.name, &known.lane_name, now),
            has_room: self.has_room(&ip.name, &known.destination, now),
        };
        let chosen = choose(self.ips.values(), &seeker, &known.route, outlook).map(|ip| ip.name.clone());
        if let Some(slot) = self.slot_mut(key) {
            slot.tried = tried;
        }
        let Some(ip) = chosen else {
            return self.park(run, key, &Hold::NoSendingIp);
        };
        let lane = self.lane_for(&ip, known, now);
        self.enqueue(lane, run, domain, key, now);
    }

    /// The lane of an IP and a site, if there has been one.
    pub(crate) fn lane_id(&self, ip: &str, site: &str) -> Option<LaneId> {
        self.lane_ids.get(site)?.get(ip).copied()
    }

    fn lane_for(&mut self, ip: &str, known: &KnownRoute, now: Millis) -> LaneId {
        if let Some(id) = self.lane_id(ip, &known.lane_name) {
            // The freshest look-up serves the whole lane.
            self.lane_mut(id).route = Arc::clone(&known.route);
            return id;
        }
        let id = LaneId(u32::try_from(self.lanes.len()).expect("lanes are fewer than 2^32"));
        let name = (ip.to_owned(), known.lane_name.clone());
        let mut lane = self.new_lane(name, &known.policy, &known.route, now);
        lane.limits = self.lane_limits(&known.policy, &known.site, now);
        self.lanes.push(lane);
        let of_site = self.lane_ids.entry(known.lane_name.clone()).or_default();
        of_site.insert(ip.to_owned(), id);
        id
    }

    fn known_route(&self, domain: DomainId, route: Arc<Route>) -> KnownRoute {
        let name = &self.domains[domain.0 as usize].name;
        let hosts = best_preference(route.hosts.iter().map(|host| (host.preference, &host.name)));
        let site = Site::of(&hosts);
        let policy = Arc::new(self.policies.resolve(&self.settings.pool, name, &hosts));
        let lane_name = policy.lane_name(&site);
        KnownRoute {
            route,
            policy,
            lane_name,
            destination: Arc::new(Destination {
                site: site.clone(),
                hosts,
            }),
            site,
        }
    }

    /// Retry intervals for a message: what the policies say of its own domain, which may share its lane with others. Where
    /// the hosts of the domain are not known, those of the lane or else what masks over domains say.
    pub(crate) fn retry_of(&self, slot: &Slot, lane: Option<LaneId>) -> RetrySchedule {
        let domain = slot
            .domain()
            .expect("a message is tried again only after its domain was looked up");
        match (&self.domains[domain.0 as usize].route, lane) {
            (RouteState::Known(known), _) => known.policy.retry(),
            (RouteState::Unknown | RouteState::LookingUp, Some(lane)) => self.lanes[lane.0 as usize].policy.retry(),
            (RouteState::Unknown | RouteState::LookingUp, None) => self
                .policies
                .resolve(&self.settings.pool, self.domain_name(domain), &[])
                .retry(),
        }
    }

    /// Name of a domain.
    pub(crate) fn domain_name(&self, domain: DomainId) -> &Domain {
        &self.domains[domain.0 as usize].name
    }

    fn wait_for_route(&mut self, domain: DomainId, key: MessageKey) {
        self.set_place(key, Place::Routing);
        self.domains[domain.0 as usize].waiting.push(key);
    }

    /// The domain of a message's recipient; read from the spool once.
    fn domain_of(&mut self, key: MessageKey) -> Result<DomainId, String> {
        let known = self.slot_mut(key).and_then(|slot| slot.domain());
        if let Some(domain) = known {
            return Ok(domain);
        }
        let address: EmailAddress = self
            .row(key)?
            .address
            .parse()
            .map_err(|error| format!("Malformed address: {error}"))?;
        let domain = self.domain_id(address.domain());
        if let Some(slot) = self.slot_mut(key) {
            slot.set_domain(domain);
        }
        Ok(domain)
    }

    /// Finds the domains of messages that came to their end without being routed by this process: before it started, or
    /// before their turn. All rows of the slice are read in one go, and only where such a message is.
    pub(crate) fn learn_domains(&mut self, number: SliceNumber) {
        let is_unknown = |slot: &Slot| slot.place == Place::Done && slot.domain().is_none();
        let Some(slice) = self.slices.get(&number) else { return };
        if !slice.slots.iter().any(is_unknown) {
            return;
        }
        let rows = match self.spool.rows(number) {
            Ok(rows) => rows,
            Err(error) => return tracing::warn!(slice = %slice.name, error = %error, "cannot read the rows"),
        };
        for (key, bytes) in rows.flatten() {
            if !self.slot_mut(key).is_some_and(|slot| is_unknown(slot)) {
                continue;
            }
            // What cannot be read or is no address has no domain: it stays among the others.
            let address = decode::<StoredRow>("row", &bytes).map(|row| row.address.parse::<EmailAddress>());
            if let Ok(Ok(address)) = address {
                let domain = self.domain_id(address.domain());
                if let Some(slot) = self.slot_mut(key) {
                    slot.set_domain(domain);
                }
            }
        }
    }

    fn domain_id(&mut self, name: &Domain) -> DomainId {
        if let Some(id) = self.domain_ids.get(name) {
            return *id;
        }
        let id = DomainId(u32::try_from(self.domains.len()).expect("domains are fewer than 2^32"));
        self.domains.push(DomainEntry {
            name: name.clone(),
            route: RouteState::Unknown,
            waiting: Vec::new(),
        });
        self.domain_ids.insert(name.clone(), id);
        id
    }
}
