//! The demo's parts without a tracer.

use std::{
    io::{self, Write},
    sync::Arc,
};

use anyhow::Result;

use super::{
    SERVICE, WINDOWS,
    daemon::{self, Setup},
    fixture::{Collector, Fixture, SdkCalls},
    load::{self, Services},
    measure::Scrape,
    oracle,
    plan::{Plan, Step},
    report,
    tally::{Key, Tally},
};
use crate::{
    config::{Config, HookChoice},
    domain::{Counts, Event, Kind, Labels},
    join::{Join, JoinConfig, Reports},
};

const MAX_ID_LEN: usize = 128;

#[test]
fn the_truth_of_a_plan_is_what_an_oracle_sees_in_it() {
    for (seed, requests, max_id_len) in
        [(1, 1, 128), (2, 100, 128), (3, 1000, 128), (4, 1000, 64), (5, 5000, 255), (u64::MAX, 20_000, 128)]
    {
        let plan = Plan::new(seed, requests, max_id_len);
        assert_eq!(plan.truth, oracle::watch(&plan, max_id_len).tally(), "seed {seed}, {requests} requests");
    }
}

#[test]
fn the_join_judges_a_plan_as_its_truth_says() -> Result<()> {
    const EVENT_GAP_NS: u64 = 10_000;
    let plan = Plan::new(6, 5000, MAX_ID_LEN);
    let labels = Arc::new(Labels { service: SERVICE.into(), ..Labels::default() });
    let source: Arc<str> = "demo".into();
    let mut join = Join::new(JoinConfig {
        exposure_window_ns: u64::try_from(WINDOWS.exposure.as_nanos())?,
        click_window_ns: u64::try_from(WINDOWS.click.as_nanos())?,
        report_window_ns: u64::try_from(WINDOWS.report.as_nanos())?,
        reports: Reports::All,
        ..JoinConfig::default()
    });
    let (mut timestamp_ns, mut outcomes) = (1_700_000_000_000_000_000, Vec::new());
    for seen in oracle::watch(&plan, MAX_ID_LEN).seen {
        timestamp_ns += EVENT_GAP_NS;
        let event = Event {
            kind: seen.kind,
            timestamp_ns,
            source: Arc::clone(&source),
            pid: seen.target as u32,
            tid: seen.target as u32,
            labels: Arc::clone(&labels),
            request_id: seen.request_id.into(),
            item_id: seen.item_id.into(),
            peer: None,
        };
        join.push(event, &mut outcomes);
    }
    join.finish(&mut outcomes);
    let mut counts = Counts::default();
    outcomes.iter().for_each(|outcome| counts.apply(outcome));

    let (judged, truth) = (serde_json::to_value(counts)?, plan.truth.to_json());
    for part in ["events", "duplicate", "late", "edges", "requests", "broken_link_ratio"] {
        assert_eq!(judged[part], truth[part], "{part}");
    }
    Ok(())
}

#[test]
fn a_plan_has_every_outcome_that_a_demo_can_cause() {
    let never = ["unseen", "read_fault", "ring_full", "undecodable"];
    let truth = Plan::new(7, 1000, MAX_ID_LEN).truth;
    for key in Key::all() {
        let path = key.path();
        let expected = !matches!(key, Key::Late(_)) && !never.contains(&path[path.len() - 1]);
        let count = truth.get(&key);
        assert!(if expected { count >= 3 } else { count == 0 }, "{} is {count}", path.join("."));
    }
}

#[test]
fn a_plan_has_as_many_requests_as_asked_for() {
    for requests in [1000, 20_000] {
        let plan = Plan::new(8, requests, MAX_ID_LEN);
        let steps = plan.lanes.iter().flatten().flatten();
        let written = steps.filter(|step| matches!(step, Step::Recommend { .. })).count() as u64;
        assert!((requests..requests + 1).contains(&written), "{written} of {requests}");
        let clicks = plan.truth.get(&Key::Event(Kind::Click)) as f64 / requests as f64;
        assert!((0.25..0.45).contains(&clicks), "{clicks} clicks per request");
    }
}

#[test]
fn a_seed_repeats_its_plan() {
    let (first, again, other) =
        (Plan::new(9, 500, MAX_ID_LEN), Plan::new(9, 500, MAX_ID_LEN), Plan::new(10, 500, MAX_ID_LEN));
    assert_eq!(first.lanes, again.lanes);
    assert_ne!(first.lanes, other.lanes);
}

#[test]
fn the_daemon_takes_the_configuration_that_it_is_given() -> Result<()> {
    let fixture = Fixture::unpack()?;
    let listen = "127.0.0.1:9".parse()?;
    let setup = Setup {
        service: SERVICE,
        fixture: &fixture,
        collector: "127.0.0.1:7".parse()?,
        hooks: HookChoice::Tracepoint,
        listen,
        windows: WINDOWS,
        record: None,
        otlp: None,
        within: None,
    };
    let config = Config::parse(&setup.config(listen), "demo.yaml".as_ref())?;
    assert_eq!((config.listen, config.hooks), (listen, HookChoice::Tracepoint));
    assert_eq!(config.join.exposure_window, WINDOWS.exposure);
    assert_eq!(config.join.click_window, WINDOWS.click);
    assert_eq!(config.join.report_window, WINDOWS.report);
    let [service] = config.services.as_slice() else { anyhow::bail!("not one service: {config:?}") };
    let exe = service.processes.exe.as_ref().map(|exe| exe.matches(&fixture.service().to_string_lossy()));
    assert_eq!(exe, Some(true));
    Ok(())
}

#[track_caller]
fn check_load(requests: u64, send: &str) -> Result<()> {
    let plan = Plan::new(11, requests, MAX_ID_LEN);
    let fixture = Fixture::unpack()?;
    let collector = Collector::start()?;
    let services = Services::start(&fixture, collector.address(), send)?;
    let took = load::run(&plan, &services, None, |_| Ok(()))?;
    let calls = services.sdk_calls()?;
    load::verify(&plan.truth, calls, &collector)?;
    writeln!(io::stdout(), "{requests} requests by {send}: {took:?}, {calls:?}")?;
    Ok(())
}

#[test]
fn the_service_does_what_the_plan_says_with_every_way_to_send() -> Result<()> {
    for send in ["write", "writev", "sendto", "sendmsg", "sendmmsg"] {
        check_load(300, send)?;
    }
    Ok(())
}

#[test]
#[ignore = "takes seconds; prints how long the default demo's load takes without a tracer"]
fn the_default_load() -> Result<()> {
    check_load(20_000, "sendto")
}

#[test]
fn a_load_that_is_told_to_stop_ends_with_the_reason() -> Result<()> {
    let plan = Plan::new(12, 2000, MAX_ID_LEN);
    let fixture = Fixture::unpack()?;
    let root = fixture.root().to_owned();
    let collector = Collector::start()?;
    let services = Services::start(&fixture, collector.address(), "sendto")?;
    let error = load::run(&plan, &services, None, |_| anyhow::bail!("enough"))
        .expect_err("the load was told to stop");
    assert_eq!(error.to_string(), "enough");
    drop((services, fixture));
    assert!(!root.exists());
    Ok(())
}

#[test]
fn a_load_that_differs_from_its_plan_is_no_truth() -> Result<()> {
    let collector = Collector::start()?;
    let mut truth = Tally::default();
    load::verify(&truth, SdkCalls::default(), &collector)?;
    truth.add(Key::Event(Kind::Report), 1);
    assert!(load::verify(&truth, SdkCalls::default(), &collector).is_err());
    Ok(())
}

#[test]
fn what_is_published_for_a_truth_is_read_back_as_that_truth() -> Result<()> {
    let truth = Plan::new(13, 1000, MAX_ID_LEN).truth;
    let scrape = Scrape::parse(&publish(&truth))?;
    assert_eq!(scrape.tally("demo")?, truth);
    assert!(report::comparison(&truth, &scrape.tally("demo")?, &mut io::sink())?);
    assert_eq!(scrape.waiting()?, 0);
    Ok(())
}

/// The metrics of a daemon that counted exactly this, spread over two groups where there is one, beside
/// another service's.
fn publish(tally: &Tally) -> String {
    let mut text = String::from("# HELP linktracer_pending x\n# TYPE linktracer_pending gauge\n");
    for table in super::measure::WAITING_TABLES {
        text += &format!("linktracer_pending{{table=\"{table}\"}} 0\n");
    }
    for key in tally.keys() {
        let path = key.path();
        let (metric, labels) = match path[..] {
            ["events", kind] => ("events", format!("kind=\"{kind}\"")),
            ["edges", edge, outcome] => ("links", format!("edge=\"{edge}\",outcome=\"{outcome}\"")),
            ["requests", outcome] => ("requests", format!("outcome=\"{outcome}\"")),
            ["duplicate", kind] => ("duplicates", format!("kind=\"{kind}\"")),
            ["late", kind] => ("late_events", format!("kind=\"{kind}\"")),
            ["lost", reason] => ("lost_events", format!("reason=\"{reason}\"")),
            _ => unreachable!(),
        };
        let count = tally.get(key);
        if path.len() == 2 && !["events", "requests"].contains(&path[0]) {
            text += &format!("linktracer_{metric}_total{{{labels}}} {count}\n");
        } else {
            for (service, group, part) in
                [("demo", "control", count / 3), ("demo", "", count - count / 3), ("other", "", 5)]
            {
                text += &format!(
                    "linktracer_{metric}_total{{{labels},service=\"{service}\",release=\"demo\",group=\"{group}\"}} {part}\n"
                );
            }
        }
    }
    text
}

#[test]
fn counts_that_differ_are_marked_and_counted() -> Result<()> {
    let (mut truth, mut measured) = (Tally::default(), Tally::default());
    truth.add(Key::Event(Kind::Click), 10);
    measured.add(Key::Event(Kind::Click), 7);
    measured.add(Key::Lost("worn_out".into()), 3);
    let mut out = Vec::new();
    assert!(!report::comparison(&truth, &measured, &mut out)?);
    let out = String::from_utf8(out)?;
    assert!(out.contains("≠ -3") && out.contains("≠ +3") && out.contains("lost worn_out"), "{out}");
    let total = Key::all().count() + 1;
    assert!(out.ends_with(&format!("2 of {total} counts differ\n")), "{out}");
    Ok(())
}

#[test]
fn a_log_tail_is_the_end_of_the_log() -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    let lines: Vec<String> = (0..100).map(|line| line.to_string()).collect();
    std::fs::write(file.path(), lines.join("\n"))?;
    assert_eq!(daemon::log_tail(file.path()), lines[70..].join("\n"));
    assert_eq!(daemon::log_tail("/nonexistent".as_ref()), "");
    Ok(())
}
