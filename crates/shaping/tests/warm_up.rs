//! Stages, holds, providers and moves of a warm-up.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use relaypool_api::sending_ip::{WarmUp as Spec, WarmUpStatus};
use relaypool_bounce::{Action, Category, Verdict};
use relaypool_shaping::site::Site;
use relaypool_shaping::warm_up::{
    DayEnd, Destination, Plan, Record, Refused, Room, STANDARD_SCHEDULE, Settled, WARM, WarmUp,
};
use serde_json::{Value, json};

const DAY: Duration = Duration::from_secs(24 * 3_600);
/// 2026-11-20, noon in UTC.
const NOON: Duration = Duration::from_secs(1_795_176_000);

fn plan(spec: Value) -> Plan {
    let spec: Spec = serde_json::from_value(spec).unwrap();
    Plan::of(Some(&spec)).unwrap()
}

fn to(host: &str) -> Destination {
    let hosts = vec![host.parse().unwrap()];
    Destination {
        site: Site::of(&hosts),
        hosts,
    }
}

fn verdict(category: Category) -> Verdict {
    Verdict::of(category, Action::Retry)
}

/// A warm-up whose records are on disk at once.
struct Bench {
    warm_up: WarmUp,
    now: Duration,
    disk: Option<Record>,
}

impl Bench {
    fn new(spec: Value) -> Self {
        Self::going_on(spec, None)
    }

    fn going_on(spec: Value, known: Option<Record>) -> Self {
        let mut bench = Self {
            warm_up: WarmUp::new(plan(spec), known, NOON),
            now: NOON,
            disk: None,
        };
        bench.pass(Duration::ZERO);
        bench
    }

    /// Time goes on.
    fn pass(&mut self, by: Duration) -> Option<DayEnd> {
        self.now += by;
        self.warm_up.pass(self.now)
    }

    fn write(&mut self, wanted: bool) {
        if let Some(record) = self.warm_up.reservation(wanted) {
            self.warm_up.recorded((&record).into());
            self.disk = Some(record);
        }
    }

    /// Sends up to so many messages, and says how many left.
    fn send(&mut self, destination: &Destination, wanted: u64, settled: Settled) -> u64 {
        for sent in 0..wanted {
            if self.warm_up.room(destination) == Room::Reserving {
                self.write(true);
            }
            if !matches!(self.warm_up.room(destination), Room::Free(_)) {
                return sent;
            }
            let taken = self.warm_up.take(destination).unwrap();
            self.warm_up.settle(taken, settled);
            self.write(false);
        }
        wanted
    }

    fn refuse(&mut self, destination: &Destination, category: Category, waiting: u64) -> bool {
        let verdict = verdict(category);
        let refused = Refused {
            verdict: &verdict,
            reply: "421 4.7.28 our system has detected an unusual rate",
            waiting,
        };
        self.warm_up.refused(destination, refused, self.now)
    }

    fn status(&self) -> WarmUpStatus {
        self.warm_up.status()
    }
}

#[test]
fn the_standard_schedule_leads_to_warm() {
    let mut bench = Bench::new(json!({}));
    let one = to("mx.one.example");
    for (stage, volume) in (1..).zip(STANDARD_SCHEDULE) {
        assert_eq!(bench.status().progress, format!("{stage}/29"));
        assert_eq!(bench.warm_up.limit(), Some(volume));
        // Sent one by one only where that is quick; the rest is what a record says.
        if volume <= 10_000 {
            assert_eq!(bench.send(&one, volume + 1, Settled::Delivered), volume);
        } else {
            let status = WarmUpStatus {
                sent: volume,
                delivered: volume,
                ..bench.status()
            };
            bench.warm_up = WarmUp::new(plan(json!({})), Record::from_status(&status), bench.now);
        }
        let end = bench.pass(DAY);
        let expected = if stage == 29 {
            DayEnd::Warm
        } else {
            DayEnd::Advanced(stage + 1)
        };
        assert_eq!(end, Some(expected));
    }
    assert_eq!(bench.warm_up.room(&one), Room::Unlimited);
    assert_eq!(bench.warm_up.take(&one), None);
    let status = bench.status();
    assert_eq!(
        (status.progress.as_str(), status.stage, status.limit),
        (WARM, None, None)
    );
    assert_eq!(bench.pass(DAY), None);
}

#[test]
fn more_than_nine_tenths_must_be_delivered() {
    for (volume, delivered, passes) in [
        (200, 180, false),
        (200, 181, true),
        (10, 9, false),
        (10, 10, true),
        (1, 1, true),
    ] {
        let mut bench = Bench::new(json!({ "schedule": [volume, 1_000] }));
        let one = to("mx.one.example");
        bench.send(&one, delivered, Settled::Delivered);
        bench.send(&one, volume, Settled::Used);
        assert_eq!(bench.status().sent, volume);
        let expected = if passes { DayEnd::Advanced(2) } else { DayEnd::TooFew };
        assert_eq!(bench.pass(DAY), Some(expected), "{delivered} of {volume}");
        let status = bench.status();
        assert_eq!((status.sent, status.delivered), (0, 0));
        let text = format!("2026-11-20: {delivered} of {volume} delivered, stage 1 ");
        assert!(status.last_day.unwrap().starts_with(&text));
    }
}

#[test]
fn a_day_without_mail_repeats_the_stage_and_several_are_one() {
    let mut bench = Bench::new(json!({ "schedule": [10, 20] }));
    bench.send(&to("mx.one.example"), 10, Settled::Delivered);
    assert_eq!(bench.pass(5 * DAY), Some(DayEnd::Advanced(2)));
    assert_eq!(bench.status().day.unwrap(), "2026-11-25");
    assert_eq!(bench.pass(DAY), Some(DayEnd::TooFew));
    assert_eq!(bench.status().progress, "2/2");
}

#[test]
fn what_was_not_sent_gives_its_room_back() {
    let mut bench = Bench::new(json!({ "schedule": [10] }));
    let one = to("mx.one.example");
    assert_eq!(bench.send(&one, 50, Settled::NotSent), 50);
    assert_eq!(bench.status().sent, 0);
    assert_eq!(bench.send(&one, 50, Settled::Used), 10);
    assert_eq!(bench.warm_up.room(&one), Room::Until(bench.warm_up.day_ends().unwrap()));
}

#[test]
fn a_message_under_way_at_midnight_counts_for_both_days() {
    let mut bench = Bench::new(json!({ "schedule": [10] }));
    let one = to("mx.one.example");
    bench.send(&one, 4, Settled::Delivered);
    bench.write(true);
    let under_way: Vec<_> = (0..3).map(|_| bench.warm_up.take(&one).unwrap()).collect();
    bench.pass(DAY);
    assert_eq!(bench.status().sent, 3);
    for taken in under_way {
        bench.warm_up.settle(taken, Settled::Delivered);
    }
    assert_eq!(bench.send(&one, 10, Settled::Delivered), 7);
    assert_eq!((bench.status().sent, bench.status().delivered), (10, 10));
}

#[test]
fn after_a_crash_what_was_reserved_counts_as_sent() {
    let spec = json!({ "schedule": [1_000] });
    let mut bench = Bench::new(spec.clone());
    let one = to("mx.one.example");
    assert_eq!(bench.warm_up.room(&one), Room::Reserving);
    bench.send(&one, 55, Settled::Delivered);
    let mut after = Bench::going_on(spec.clone(), bench.disk);
    let status = after.status();
    assert!((55..=75).contains(&status.sent), "{}", status.sent);
    assert!((55..=75).contains(&status.providers[0].sent));
    assert_eq!(status.delivered, 55);
    assert_eq!(after.send(&one, 1_000, Settled::Used), 1_000 - status.sent);

    // One that ended in order knows exactly.
    let mut bench = Bench::new(spec.clone());
    bench.send(&one, 55, Settled::Delivered);
    let record = bench.warm_up.released();
    assert_eq!(Bench::going_on(spec, Some(record)).status().sent, 55);
}

#[test]
fn a_reservation_that_was_taken_back_brings_no_room() {
    let mut bench = Bench::new(json!({ "schedule": [100] }));
    let one = to("mx.one.example");
    let slow = bench.warm_up.reservation(true).unwrap();
    let _last = bench.warm_up.released();
    assert!(!bench.warm_up.recorded((&slow).into()));
    assert_eq!(bench.warm_up.room(&one), Room::Reserving);
    // Nor does one of another day.
    let slow = bench.warm_up.reservation(true).unwrap();
    bench.pass(DAY);
    assert!(!bench.warm_up.recorded((&slow).into()));
    assert_eq!(bench.warm_up.room(&one), Room::Reserving);
    bench.write(true);
    assert_eq!(bench.warm_up.room(&one), Room::Free(10));
}

#[test]
fn an_idle_address_reserves_nothing() {
    let mut bench = Bench::new(json!({ "schedule": [20] }));
    for _ in 0..10 {
        bench.write(false);
        bench = Bench::going_on(json!({ "schedule": [20] }), bench.disk);
    }
    assert_eq!(bench.send(&to("mx.one.example"), 30, Settled::Delivered), 20);
}

#[test]
fn a_refusal_for_reputation_holds_the_stage_until_a_day_without() {
    for category in [
        Category::ReputationBlock,
        Category::ReputationDeferral,
        Category::MailBlock,
    ] {
        let mut bench = Bench::new(json!({ "schedule": [10, 20, 30] }));
        let one = to("mx.one.example");
        bench.send(&one, 10, Settled::Delivered);
        assert!(bench.refuse(&one, category, 0));
        assert!(!bench.refuse(&one, category, 0), "one hold a day");
        let held = bench.status().held.unwrap();
        assert!(held.starts_with("one.example refused mail ("), "{held}");
        assert!(
            held.contains(category.as_str()) && held.contains("421 4.7.28"),
            "{held}"
        );

        assert!(matches!(bench.pass(DAY), Some(DayEnd::Held(message)) if message == held));
        assert_eq!(bench.status().progress, "1/3");
        assert_eq!(bench.status().held, Some(held), "until a day without is over");
        bench.send(&one, 10, Settled::Delivered);
        assert_eq!(bench.pass(DAY), Some(DayEnd::Advanced(2)));
        assert_eq!(bench.status().held, None);
    }
}

#[test]
fn a_hold_goes_on_with_each_refusal() {
    let mut bench = Bench::new(json!({ "schedule": [10, 20] }));
    let one = to("mx.one.example");
    let since = {
        bench.refuse(&one, Category::MailBlock, 0);
        bench.status().held_since
    };
    bench.pass(DAY);
    assert!(!bench.refuse(&one, Category::MailBlock, 0), "it does not begin anew");
    assert!(matches!(bench.pass(DAY), Some(DayEnd::Held(_))));
    assert_eq!(bench.status().held_since, since);
}

#[test]
fn what_is_not_about_the_address_holds_nothing() {
    let mut bench = Bench::new(json!({ "schedule": [10_000] }));
    let (large, tiny) = (to("mx.large.example"), to("mx.tiny.example"));
    bench.send(&large, 1_000, Settled::Delivered);
    for category in [
        Category::InvalidRecipient,
        Category::Greylisted,
        Category::SpamContent,
        Category::Transient,
    ] {
        assert!(!bench.refuse(&large, category, 1_000), "{category}");
    }
    // A block list of a tiny host, unless much waits for it.
    assert!(!bench.refuse(&tiny, Category::ReputationBlock, 20));
    assert!(bench.refuse(&tiny, Category::ReputationBlock, 100));
}

#[test]
fn a_share_of_rate_refusals_holds() {
    let mut bench = Bench::new(json!({ "schedule": [10_000] }));
    let one = to("mx.one.example");
    bench.send(&one, 900, Settled::Delivered);
    for refusal in 1..=100 {
        assert!(!bench.refuse(&one, Category::RateLimited, 0), "{refusal} of 900");
    }
    assert!(bench.refuse(&one, Category::RateLimited, 0));
    // Few are how limits are found.
    let mut bench = Bench::new(json!({ "schedule": [200] }));
    for _ in 0..9 {
        assert!(!bench.refuse(&one, Category::RateLimited, 0));
    }
    assert!(bench.refuse(&one, Category::RateLimited, 0));
}

#[test]
fn one_provider_alone_may_have_all_of_the_standard_schedule() {
    // 90.5 % accepted at every stage: the least that passes.
    let one = to("mx.one.example");
    let mut status = Bench::new(json!({})).status();
    for (stage, volume) in (1..).zip(STANDARD_SCHEDULE) {
        status.stage = Some(stage);
        status.limit = Some(volume);
        status.sent = 0;
        status.reserved = Some(0);
        let warm_up = WarmUp::new(plan(json!({})), Record::from_status(&status), NOON);
        let limit = warm_up
            .status()
            .providers
            .first()
            .map_or(volume, |provider| provider.limit);
        assert_eq!(limit, volume, "stage {stage}");
        let accepted = volume * 905 / 1_000;
        let provider = json!([{ "site": "one.example", "bestDay": accepted }]);
        status.providers = serde_json::from_value(provider).unwrap();
        assert!(matches!(warm_up.room(&one), Room::Reserving));
    }
}

#[test]
fn a_provider_new_in_the_mix_has_a_ramp_of_its_own() {
    let spec = json!({ "schedule": [200, 40_000, 100_000] });
    let mut status = Bench::new(spec.clone()).status();
    (status.stage, status.limit, status.reserved) = (Some(3), Some(100_000), Some(0));
    status.providers = serde_json::from_value(json!([{ "site": "known.example", "bestDay": 90_000 }])).unwrap();
    let mut bench = Bench::going_on(spec, Record::from_status(&status));
    let new = to("mx.new.example");
    for allowed in [10_000, 30_000, 90_000] {
        assert_eq!(bench.send(&new, 100_000, Settled::Delivered), allowed);
        assert!(matches!(bench.warm_up.room(&new), Room::Until(_)));
        assert_eq!(
            bench.warm_up.room(&to("mx.known.example")),
            Room::Reserving,
            "there is room for others"
        );
        bench.pass(DAY);
    }
}

#[test]
fn limits_of_providers_hold_for_all_their_sites() {
    let mut bench = Bench::new(json!({
        "schedule": [1_000],
        "providers": [
            { "mxHosts": ["*.google.com", "*.googlemail.com"], "maxPercent": 40 },
            { "mxHosts": ["*.yahoodns.net"], "maxPercent": 90, "maxMessages": 50 },
        ],
    }));
    let (gmail, other) = (to("gmail-smtp-in.l.google.com"), to("mx.googlemail.com"));
    assert_ne!(gmail.site, other.site);
    assert_eq!(bench.send(&gmail, 300, Settled::Delivered), 300);
    assert_eq!(bench.send(&other, 300, Settled::Delivered), 100);
    assert_eq!(bench.send(&to("mta5.am0.yahoodns.net"), 300, Settled::Delivered), 50);
    assert_eq!(bench.send(&to("mx.one.example"), 1_000, Settled::Delivered), 550);
    let names: Vec<_> = bench
        .status()
        .providers
        .into_iter()
        .map(|provider| (provider.site, provider.limit))
        .collect();
    assert!(
        names.contains(&("*.google.com,*.googlemail.com".to_owned(), 400)),
        "{names:?}"
    );
}

#[test]
fn a_new_limit_of_a_provider_counts_what_it_got_before() {
    let mut bench = Bench::new(json!({ "schedule": [1_000] }));
    let gmail = to("gmail-smtp-in.l.google.com");
    bench.send(&gmail, 300, Settled::Delivered);
    let limited = json!({ "schedule": [1_000], "providers": [{ "mxHosts": ["*.google.com"], "maxPercent": 40 }] });
    bench.warm_up.set_plan(plan(limited));
    assert_eq!(bench.send(&gmail, 300, Settled::Delivered), 100);
}

#[test]
fn an_address_that_moves_goes_on_where_it_was() {
    let spec = json!({ "schedule": [100, 200, 300] });
    let mut bench = Bench::new(spec.clone());
    let one = to("mx.one.example");
    bench.send(&one, 100, Settled::Delivered);
    bench.pass(DAY);
    bench.send(&one, 20, Settled::Delivered);
    // As it goes through the API server.
    let status: WarmUpStatus = serde_json::from_value(serde_json::to_value(bench.status()).unwrap()).unwrap();
    assert_eq!((status.sent, status.reserved, status.limit), (20, Some(200), Some(200)));

    let mut moved = Bench::going_on(spec.clone(), Record::from_status(&status));
    moved.now = bench.now;
    assert_eq!(moved.status().progress, "2/3");
    assert_eq!(
        moved.send(&one, 1, Settled::Delivered),
        0,
        "the owner before may have sent all of today's"
    );
    assert_eq!(moved.pass(DAY), Some(DayEnd::TooFew));
    assert_eq!(moved.send(&one, 500, Settled::Delivered), 200);

    // Back where it was, with an older record in the spool.
    let status = Record::from_status(&moved.status()).unwrap();
    let back = WarmUp::new(plan(spec), Some(bench.disk.unwrap().later(status)), moved.now);
    assert_eq!(back.status().day, moved.status().day);
    assert_eq!(back.status().sent, 200);
}

#[test]
fn a_warm_address_never_begins_again() {
    let spec = json!({ "schedule": [1] });
    let mut bench = Bench::new(spec.clone());
    let one = to("mx.one.example");
    bench.send(&one, 1, Settled::Delivered);
    let before = bench.disk.clone().unwrap();
    assert_eq!(bench.pass(DAY), Some(DayEnd::Warm));
    let status = bench.status();
    assert!(status.warm_since.is_some());
    let record = Record::from_status(&status).unwrap();
    for known in [
        record.clone(),
        before.clone().later(record.clone()),
        record.later(before),
    ] {
        let moved = WarmUp::new(plan(json!({})), Some(known), bench.now + 400 * DAY);
        assert_eq!(moved.room(&one), Room::Unlimited);
    }
    let warm: Spec = serde_json::from_value(json!({ "alreadyWarm": true })).unwrap();
    assert!(Plan::of(Some(&warm)).is_none());
    assert!(Plan::of(None).is_none());
    // What says nothing of a warm-up is none.
    assert_eq!(Record::from_status(&WarmUpStatus::default()), None);
}

#[test]
fn another_schedule_goes_on_at_the_same_volume() {
    let mut status = Bench::new(json!({})).status();
    (status.stage, status.limit) = (Some(9), Some(50_000));
    for (schedule, progress) in [
        (json!(null), "9/29"),
        (json!([1_000, 30_000, 50_000, 60_000]), "3/4"),
        (json!([1_000, 30_000, 60_000]), "2/3"),
        (json!([1_000]), "1/1"),
        (json!([100_000, 200_000]), "1/2"),
    ] {
        let spec = json!({ "schedule": schedule });
        let warm_up = WarmUp::new(plan(spec.clone()), Record::from_status(&status), NOON);
        assert_eq!(warm_up.status().progress, progress, "{schedule}");
        let mut warm_up = WarmUp::new(plan(json!({})), Record::from_status(&status), NOON);
        warm_up.set_plan(plan(spec));
        assert_eq!(warm_up.status().progress, progress, "{schedule}");
    }
}

#[test]
fn a_clock_that_jumps_brings_no_room_and_holds_nothing_up() {
    let spec = json!({ "schedule": [10] });
    let one = to("mx.one.example");
    let mut bench = Bench::new(spec);
    bench.send(&one, 7, Settled::Used);
    // Back by hours, over midnight: the day goes on.
    bench.now -= Duration::from_secs(20 * 3_600);
    assert_eq!(bench.pass(Duration::ZERO), None);
    assert_eq!(bench.status().sent, 7);
    // A year ahead, and back again.
    bench.pass(365 * DAY);
    bench.send(&one, 7, Settled::Used);
    bench.now -= 365 * DAY;
    assert_eq!(bench.pass(Duration::ZERO), None);
    assert_eq!(bench.send(&one, 10, Settled::Used), 3);
    assert_eq!(bench.pass(DAY), Some(DayEnd::TooFew));
    assert_eq!(bench.send(&one, 20, Settled::Used), 10);
}

#[test]
fn the_record_stays_small() {
    let mut bench = Bench::new(json!({ "schedule": [5_000] }));
    for number in 0..5_000 {
        bench.send(&to(&format!("mx.domain{number}.example")), 1, Settled::Delivered);
    }
    let record = bench.warm_up.released();
    assert!(serde_json::to_vec(&record).unwrap().len() < 8_000);
    assert_eq!(bench.status().providers.len(), 30);
    // One that is not listed counts as if it had got as much as the largest that is not.
    let after = Bench::going_on(json!({ "schedule": [5_000] }), Some(record));
    assert_eq!(after.status().sent, 5_000);
}
