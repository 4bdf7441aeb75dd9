//! Reply rules: what users (and the built-in profiles) want done when a provider answers certain words.
//!
//! ```text
//!   refusal ──► first rule that fits ──► its trigger counts ──► it acts ──► Effects for this message
//!                                                                  │
//!                                                                  └──► RuleCaps for the lane, for an hour
//! ```
//!
//! A rule is compiled once for each policy set. Whether it has been triggered is counted for each lane.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use relaypool_api::Rate;
use relaypool_api::mx_policy::{MAX_TRIGGER_COUNT, ReplyRule};
use relaypool_bounce::Category;

use crate::pacer::PacerLimits;
use crate::policy::{Origin, Setting};

/// How long a throttle and a reduction hold after their rule last acted. Providers change their limits, so nothing that was
/// said once may bind for ever; a provider that still means it says it again.
pub const CAPS_HOLD: Duration = Duration::from_secs(3_600);

/// The longest that one act of a rule suspends a lane. Then a single message asks whether the provider still means it.
pub const LONGEST_SUSPENSION: Duration = Duration::from_secs(86_400);

/// A reply rule, ready to be compared with refusals.
#[derive(Debug, Clone)]
pub struct CompiledRule {
    rule: ReplyRule,
    /// What has to stand in the text, in this order.
    pieces: Vec<String>,
    /// None: the rule names no category. `Some(None)`: it names one that does not exist, and so fits nothing.
    category: Option<Option<Category>>,
    reclassify: Option<Category>,
}

impl CompiledRule {
    /// Compiles a rule. A category that does not exist, which the schema refuses, fits no reply and changes none.
    pub fn new(rule: ReplyRule) -> Self {
        let text = folded(rule.text.as_deref().unwrap_or_default());
        Self {
            pieces: text
                .split('*')
                .filter(|piece| !piece.is_empty())
                .map(str::to_owned)
                .collect(),
            category: rule.category.as_ref().map(|name| name.parse().ok()),
            reclassify: rule.action.reclassify.as_ref().and_then(|name| name.parse().ok()),
            rule,
        }
    }

    /// The rule as it was written.
    pub fn rule(&self) -> &ReplyRule {
        &self.rule
    }

    /// True when everything that the rule names is so of the refusal.
    pub fn fits(&self, refusal: &Refusal) -> bool {
        self.category.is_none_or(|category| category == Some(refusal.category))
            && self.rule.code.is_none_or(|code| refusal.code == Some(code))
            && self.text_fits(&refusal.text)
    }

    fn text_fits(&self, text: &str) -> bool {
        let mut rest = text;
        self.pieces.iter().all(|piece| match rest.find(piece.as_str()) {
            Some(at) => {
                rest = &rest[at + piece.len()..];
                true
            }
            None => false,
        })
    }
}

impl PartialEq for CompiledRule {
    fn eq(&self, other: &Self) -> bool {
        self.rule == other.rule
    }
}

/// A refusal, as rules see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    code: Option<u16>,
    text: String,
    category: Category,
}

impl Refusal {
    /// `code` is none for a failure without a reply, and `text` then says what went wrong. The text of a reply is that of all
    /// its lines, the enhanced status code in front. `category` is what the reply means without any rule.
    pub fn new(code: Option<u16>, text: &str, category: Category) -> Self {
        Self {
            code,
            text: folded(text),
            category,
        }
    }
}

/// Lower case, with one space where there is any white space: what people mean by "the same words".
fn folded(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut folded = words.join(" ").to_lowercase();
    // White space at the ends of a pattern separates it from other words: "limit " is not to fit "limits".
    if text.starts_with(char::is_whitespace) {
        folded.insert(0, ' ');
    }
    if !words.is_empty() && text.ends_with(char::is_whitespace) {
        folded.push(' ');
    }
    folded
}

/// Caps that reply rules have put on a lane. None: no cap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RuleCaps {
    /// Messages per unit of time.
    pub rate: Option<Rate>,
    /// Connections, at least 1.
    pub connections: Option<u32>,
    /// Messages on one connection, at least 1.
    pub messages_per_connection: Option<u32>,
}

impl RuleCaps {
    /// Lowers what a policy allows to the caps. What is lower already stays.
    pub fn lower(self, limits: &mut PacerLimits) {
        limits.rate = slower(limits.rate, self.rate);
        limits.connections = at_most(limits.connections, self.connections);
        limits.messages_per_connection = at_most(limits.messages_per_connection, self.messages_per_connection);
    }

    fn and(self, other: Self) -> Self {
        Self {
            rate: slower(self.rate, other.rate),
            connections: fewer(self.connections, other.connections),
            messages_per_connection: fewer(self.messages_per_connection, other.messages_per_connection),
        }
    }
}

fn slower(one: Option<Rate>, other: Option<Rate>) -> Option<Rate> {
    let rates = one.into_iter().chain(other);
    rates.min_by(|one, other| one.per_second().total_cmp(&other.per_second()))
}

fn fewer(one: Option<u32>, other: Option<u32>) -> Option<u32> {
    one.into_iter().chain(other).min()
}

fn at_most(limit: u32, cap: Option<u32>) -> u32 {
    cap.map_or(limit, |cap| limit.min(cap))
}

/// How a lane stands when a refusal comes: what reductions start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Connections open, or being opened.
    pub connections: u32,
    /// Messages that one connection may carry.
    pub messages_per_connection: u32,
}

/// What a rule does beside capping its lane.
#[derive(Debug, Clone, PartialEq)]
pub struct Effects {
    /// Whose rule it is.
    pub from: Origin,
    /// What the refusal means, before anything else sees it.
    pub reclassify: Option<Category>,
    /// Send nothing on the lane for this time, at most [`LONGEST_SUSPENSION`].
    pub suspend_for: Option<Duration>,
    /// The message is tried again, and not before this time has passed: even where the reply alone would have ended it.
    pub retry_after: Option<Duration>,
    /// The lane's [`caps`](LaneRules::caps) are others than before.
    pub caps_changed: bool,
}

/// The reply rules of one lane, and how far each is.
#[derive(Debug, Clone, Default)]
pub struct LaneRules(Vec<Tracked>);

#[derive(Debug, Clone)]
struct Tracked {
    rule: Setting<Arc<CompiledRule>>,
    /// When replies fitted that still count; fewer than the trigger's count.
    replies: VecDeque<Duration>,
    acted: Option<Acted>,
}

#[derive(Debug, Clone)]
struct Acted {
    at: Duration,
    caps: RuleCaps,
}

impl LaneRules {
    /// Rules in order of precedence, of which none has counted anything yet.
    pub fn new(rules: &[Setting<Arc<CompiledRule>>]) -> Self {
        Self(rules.iter().map(Tracked::new).collect())
    }

    /// Other rules from now on. A rule that stays keeps its count and its caps; the caps of one that is gone go with it.
    pub fn rules_changed(&mut self, rules: &[Setting<Arc<CompiledRule>>]) {
        let mut before = std::mem::take(&mut self.0);
        self.0 = rules
            .iter()
            .map(|rule| match before.iter().position(|tracked| tracked.rule == *rule) {
                Some(at) => before.swap_remove(at),
                None => Tracked::new(rule),
            })
            .collect();
    }

    /// A message, or the connection for it, was refused or failed. The first rule that fits counts it; where that makes the
    /// rule act, what it does beside capping the lane is the answer.
    pub fn refused(&mut self, now: Duration, refusal: &Refusal, standing: Standing) -> Option<Effects> {
        let before = self.caps(now);
        let tracked = self.0.iter_mut().find(|tracked| tracked.rule.value.fits(refusal))?;
        if !tracked.is_triggered(now) {
            return None;
        }
        tracked.act(now, before, standing);
        let rule = &tracked.rule.value;
        let action = &rule.rule.action;
        let time = |duration: Option<relaypool_api::Duration>| duration.map(relaypool_api::Duration::get);
        let effects = Effects {
            from: tracked.rule.from.clone(),
            reclassify: rule.reclassify,
            suspend_for: time(action.suspend_for).map(|time| time.min(LONGEST_SUSPENSION)),
            retry_after: time(action.retry_after),
            caps_changed: false,
        };
        Some(Effects {
            caps_changed: self.caps(now) != before,
            ..effects
        })
    }

    /// The caps in force. Each is gone [`CAPS_HOLD`] after its rule last acted.
    pub fn caps(&self, now: Duration) -> RuleCaps {
        self.in_force(now)
            .fold(RuleCaps::default(), |caps, acted| caps.and(acted.caps))
    }

    /// When the next of the caps in force goes; none while there is none.
    pub fn next_change(&self, now: Duration) -> Option<Duration> {
        self.in_force(now)
            .filter(|acted| acted.caps != RuleCaps::default())
            // A moment after now is from before the clock was set back.
            .map(|acted| acted.at.min(now) + CAPS_HOLD)
            .min()
    }

    fn in_force(&self, now: Duration) -> impl Iterator<Item = &Acted> {
        self.0
            .iter()
            .filter_map(|tracked| tracked.acted.as_ref())
            .filter(move |acted| now.saturating_sub(acted.at) < CAPS_HOLD)
    }
}

impl Tracked {
    fn new(rule: &Setting<Arc<CompiledRule>>) -> Self {
        Self {
            rule: rule.clone(),
            replies: VecDeque::new(),
            acted: None,
        }
    }

    /// Counts a reply. True when it is the last that the trigger asks for: the count then starts anew.
    fn is_triggered(&mut self, now: Duration) -> bool {
        let Some(trigger) = &self.rule.value.rule.trigger else {
            return true;
        };
        let within = trigger.within.get();
        self.replies.retain(|at| *at <= now && now.saturating_sub(*at) < within);
        // The schema bounds the count; this bounds the memory whatever the schema was.
        let count = trigger.count.clamp(1, MAX_TRIGGER_COUNT) as usize;
        if self.replies.len() + 1 < count {
            self.replies.push_back(now);
            return false;
        }
        self.replies.clear();
        true
    }

    /// Notes the caps of the rule's action. A reduction starts from what is lower, the lane or the caps in force: of twenty
    /// connections refused at once, each reply takes its share off.
    fn act(&mut self, now: Duration, in_force: RuleCaps, standing: Standing) {
        let action = &self.rule.value.rule.action;
        let reduced = |standing: u32, cap: Option<u32>, by: Option<u32>| {
            by.map(|by| at_most(standing, cap).saturating_sub(by).max(1))
        };
        let caps = RuleCaps {
            rate: action.throttle,
            connections: reduced(standing.connections, in_force.connections, action.reduce_connections),
            messages_per_connection: reduced(
                standing.messages_per_connection,
                in_force.messages_per_connection,
                action.reduce_messages_per_connection,
            ),
        };
        self.acted = Some(Acted { at: now, caps });
    }
}
