//! The daemon is killed, stopped, upgraded and handed damaged files, while a service goes on working.
//!
//! Nothing is approximate here: what was made and what was counted are compared number by number.
#![expect(clippy::print_stdout, reason = "the numbers, for who asks with --nocapture")]

mod load;
mod site;

use std::{
    fs::{self, OpenOptions},
    time::Duration,
};

use load::Load;
use rustix::process::Signal;
use site::{LIMIT, Site, random};
use tests::wait_for;

#[test]
fn killed_twenty_times_under_load_it_counts_everything_exactly_once() {
    let site = Site::new("ring_buffer_size: 64MiB\n");
    let mut random = random(7);
    let mut daemon = site.start();
    let load = Load::start(&site);
    for kill in 0..20 {
        if kill % 4 == 3 {
            // While it starts: before, during or after it takes over what the one before left.
            daemon.signal(Signal::KILL);
            let unready = site.start_without_waiting();
            std::thread::sleep(Duration::from_millis(random() % 150));
            drop(unready);
        } else {
            std::thread::sleep(Duration::from_millis(random() % 300));
            let before = daemon.scrape();
            daemon.signal(Signal::KILL);
            std::thread::sleep(Duration::from_millis(random() % 100));
            daemon = site.start();
            let after = daemon.scrape();
            site::assert_no_counter_fell(&before, &after);
            load.note_counted(site::requests_counted(&after));
            continue;
        }
        daemon = site.start();
        load.note_counted(site::requests_counted(&daemon.scrape()));
    }
    let made = load.finish();
    site::settle(&daemon, &made);
    site::assert_exact(&daemon, &made);
    assert_eq!(daemon.metric("linktracer_lost_events_total", &[]), 0.0, "{}", daemon.log());
    assert_eq!(daemon.metric("linktracer_coverage_horizon_moves_total", &[]), 0.0, "{}", daemon.log());
    println!("20 kills: {made:?}, each counted once");
    daemon.finish();
}

#[test]
fn where_the_ring_overflowed_while_nobody_ran_the_loss_is_counted_and_breaks_nothing() {
    let site = Site::new("ring_buffer_size: 64KiB\n");
    let daemon = site.start();
    let mut load = Load::new(&site);
    // Few enough for the small ring each time, and judged before the daemon goes.
    for _ in 0..10 {
        load.work(5);
        site::wait_for_events(&daemon, load.made());
    }
    site::settle_tables(&daemon);
    daemon.signal(Signal::KILL);
    load.work_intact(300);
    let daemon = site.start();
    let lost = |probe: &str| {
        daemon.metric("linktracer_kernel_hits_total", &[("probe", probe), ("outcome", "ring_full")])
    };
    assert!(lost("exposure") > 0.0, "the ring was too large for this test");
    // What has no partner now may have had it in the gap; so there are no faults here.
    load.work_intact(50);
    let made = load.made().clone();
    // These two hooks see this service alone; the others see whatever starts on the machine.
    for (kind, made) in [("exposure", made.exposures), ("click", made.clicks)] {
        site::expect(&daemon, "linktracer_events_total", &[("kind", kind)], made as f64 - lost(kind));
    }
    println!("made {made:?}; lost {} exposures and {} clicks", lost("exposure"), lost("click"));
    let scrape = daemon.scrape();
    let full = |labels: &[(&str, &str)]| tests::daemon::sum(&scrape, "linktracer_kernel_hits_total", labels);
    let of_processes: f64 = ["exec", "fork", "exit"]
        .map(|probe| full(&[("probe", probe), ("outcome", "ring_full")]))
        .iter()
        .sum();
    let stated = tests::daemon::sum(&scrape, "linktracer_lost_events_total", &[("reason", "ring_full")]);
    assert_eq!(stated, full(&[("outcome", "ring_full")]) - of_processes);
    assert!(
        daemon.metric("linktracer_coverage_horizon_moves_total", &[("reason", "lost_while_down")]) >= 1.0
    );
    site::settle_tables(&daemon);
    // The load has no faults where the loss was, so every orphan would be a false one.
    for (edge, outcome, count) in site::broken_links(&made) {
        site::expect(&daemon, "linktracer_links_total", &[("edge", edge), ("outcome", outcome)], count);
    }
    daemon.finish();
}

#[test]
fn a_record_in_the_journal_and_on_the_ring_counts_once_and_a_torn_journal_loses_nothing() {
    let site = Site::new("ring_buffer_size: 64MiB\ncheckpoint_interval: 1h\n");
    let mut load = None;
    for cut in [0, 1, 300, 5000] {
        let daemon = site.start();
        let load = load.get_or_insert_with(|| Load::new(&site));
        load.work(100);
        site::wait_for_events(&daemon, load.made());
        daemon.signal(Signal::KILL);
        drop(daemon);
        // As if it had been killed before it gave the kernel anything back, while it wrote the journal.
        let journal = site.journals().pop().expect("there is a journal");
        let len = fs::metadata(&journal).expect("is there").len();
        let file = OpenOptions::new().write(true).open(&journal).expect("is ours");
        file.set_len(len.saturating_sub(cut)).expect("is ours");
        site.ring().release(0);
    }
    let daemon = site.start();
    let mut load = load.expect("is made in the first round");
    load.work(100);
    site::settle(&daemon, load.made());
    site::assert_exact(&daemon, load.made());
    assert_eq!(daemon.metric("linktracer_lost_events_total", &[]), 0.0, "{}", daemon.log());
    daemon.finish();
}

#[test]
fn killed_after_a_hit_that_came_to_nothing_it_goes_on_without_a_gap() {
    let site = Site::new("");
    let daemon = site.start();
    let mut load = Load::new(&site);
    load.work(20);
    let shown = load.show_what_cannot_be_captured();
    site::wait_for_events(&daemon, load.made());
    let too_long = [("probe", "exposure"), ("outcome", "id_too_long")];
    site::expect(&daemon, "linktracer_kernel_hits_total", &too_long, shown as f64);
    // An answer comes between two turns: in the turn before this one, the ring was emptied.
    daemon.scrape();
    daemon.signal(Signal::KILL);
    load.work(20);
    let daemon = site.start();
    site::settle(&daemon, load.made());
    site::assert_exact(&daemon, load.made());
    assert_eq!(daemon.metric("linktracer_coverage_horizon_moves_total", &[]), 0.0, "{}", daemon.log());
    assert!(daemon.log().contains("going on where the last run ended"), "{}", daemon.log());
    daemon.finish();
}

#[test]
fn a_kernel_side_whose_capture_was_switched_off_is_not_gone_on_with() {
    let site = Site::new("");
    let daemon = site.start();
    let mut load = Load::new(&site);
    load.work(20);
    site::settle(&daemon, load.made());
    daemon.finish();
    // As far as a `detach` comes that is killed before it takes anything away.
    for set in site.pinned() {
        set.stop().expect("it has counters");
    }
    let daemon = site.start();
    assert!(daemon.log().contains("capture was switched off"), "{}", daemon.log());
    let gaps = daemon.metric("linktracer_coverage_horizon_moves_total", &[("reason", "restart_gap")]);
    assert_eq!(gaps, 1.0, "{}", daemon.log());
    load.work_intact(20);
    site::settle(&daemon, load.made());
    site::assert_accounts_balance(&daemon);
    daemon.finish();
}

#[test]
fn however_often_a_start_is_killed_what_is_thrown_away_is_counted_once() {
    let mut site = Site::new("");
    let mut random = random(11);
    let daemon = site.start();
    let mut load = Load::new(&site);
    load.work(20);
    site::settle(&daemon, load.made());
    daemon.finish();
    let before = load.made().clone();
    load.work_intact(20);
    let missed = load.made().since(&before);
    site.settings = "ring_buffer_size: 32MiB\n".to_owned();
    for _ in 0..10 {
        let unready = site.start_without_waiting();
        std::thread::sleep(Duration::from_millis(random() % 200));
        unready.signal(Signal::KILL);
    }
    let daemon = site.start();
    for (probe, missed) in [("exposure", missed.exposures), ("click", missed.clicks)] {
        let labels = [("probe", probe), ("outcome", "discarded")];
        let discarded = daemon.metric("linktracer_received_records_total", &labels);
        assert_eq!(discarded, missed as f64, "{}", daemon.log());
    }
    site::assert_accounts_balance(&daemon);
    daemon.finish();
    assert_eq!(site.pinned().len(), 1, "one kernel side is left");
}

#[test]
fn when_the_machine_went_down_counts_begin_at_0_and_what_is_remembered_goes_on() {
    let site = Site::new("checkpoint_interval: 1s\n");
    let daemon = site.start();
    let mut load = Load::new(&site);
    load.work_intact(20);
    site::settle(&daemon, load.made());
    let in_checkpoint = daemon.metric("linktracer_checkpoint_timestamp_seconds", &[]);
    wait_for("another checkpoint is on the disk", LIMIT, || {
        (daemon.metric("linktracer_checkpoint_timestamp_seconds", &[]) > in_checkpoint).then_some(())
    });
    daemon.signal(Signal::KILL);
    drop(daemon);
    site.lose_kernel_side();
    let before = load.made().clone();
    let daemon = site.start();
    assert!(daemon.log().contains("they begin at 0"), "{}", daemon.log());
    assert_eq!(daemon.metric("linktracer_links_total", &[]), 0.0, "{}", daemon.log());
    // Shown before, and clicked after.
    load.click_on(0);
    load.work_intact(20);
    let made = load.made().since(&before);
    site::settle(&daemon, &made);
    let linked = [("edge", "exposure_click"), ("outcome", "linked")];
    site::expect(&daemon, "linktracer_links_total", &linked, (made.clicks - 1) as f64);
    assert_eq!(daemon.metric("linktracer_duplicates_total", &[("kind", "click")]), 1.0);
    site::assert_accounts_balance(&daemon);
    daemon.finish();
}

#[test]
fn with_a_full_disk_it_starts_and_keeps_its_state_once_there_is_room() {
    let site = Site::on_small_disk("checkpoint_interval: 1s\n", 512 * 1024);
    site.start().finish();
    site.fill_disk();
    let daemon = site.start();
    let mut load = Load::new(&site);
    load.work(50);
    site::settle(&daemon, load.made());
    assert!(daemon.metric("linktracer_checkpoint_failures_total", &[]) > 0.0, "{}", daemon.log());
    let before = daemon.metric("linktracer_checkpoint_timestamp_seconds", &[]);
    site.empty_disk();
    wait_for("a checkpoint is on the disk", LIMIT, || {
        (daemon.metric("linktracer_checkpoint_timestamp_seconds", &[]) > before).then_some(())
    });
    load.work(50);
    site::wait_for_events(&daemon, load.made());
    daemon.signal(Signal::KILL);
    load.work(50);
    let daemon = site.start();
    site::settle(&daemon, load.made());
    site::assert_exact(&daemon, load.made());
    assert!(daemon.log().contains("going on where the last run ended"), "{}", daemon.log());
    daemon.finish();
}

#[test]
fn a_clean_stop_leaves_the_probes_and_the_next_one_goes_on() {
    let site = Site::new("");
    let daemon = site.start();
    let mut load = Load::new(&site);
    load.work(20);
    daemon.finish();
    load.work(20);
    let daemon = site.start();
    load.work(20);
    site::settle(&daemon, load.made());
    site::assert_exact(&daemon, load.made());
    assert_eq!(daemon.metric("linktracer_coverage_horizon_moves_total", &[]), 0.0, "{}", daemon.log());
    assert!(daemon.log().contains("going on where the last run ended"), "{}", daemon.log());
    daemon.finish();
    assert!(site.detach().contains("detached"));
    assert!(site.detach().contains("nothing is pinned"));
}

#[test]
fn another_configuration_states_what_it_throws_away_and_calls_nothing_broken() {
    let mut site = Site::new("");
    let daemon = site.start();
    let mut load = Load::new(&site);
    load.work(20);
    site::settle(&daemon, load.made());
    daemon.finish();
    let before = load.made().clone();
    load.work_intact(20);
    let missed = load.made().since(&before);
    site.settings = "ring_buffer_size: 32MiB\n".to_owned();
    let daemon = site.start();
    let discarded = |probe: &str| {
        daemon.metric("linktracer_received_records_total", &[("probe", probe), ("outcome", "discarded")])
    };
    assert_eq!(discarded("exposure"), missed.exposures as f64, "{}", daemon.log());
    assert_eq!(discarded("click"), missed.clicks as f64, "{}", daemon.log());
    let stated = daemon.metric("linktracer_lost_events_total", &[("reason", "discarded")]);
    assert!(stated >= (missed.requests + missed.exposures + 3 * missed.clicks) as f64, "{stated}");
    let horizon = [("reason", "restart_gap")];
    assert_eq!(daemon.metric("linktracer_coverage_horizon_moves_total", &horizon), 1.0);
    // What has no partner now may have had it in the gap; so there are no faults here.
    load.work_intact(20);
    let counted = load.made().since(&missed);
    site::wait_for_events(&daemon, &counted);
    site::settle_tables(&daemon);
    for (edge, outcome, count) in site::broken_links(&counted) {
        site::expect(&daemon, "linktracer_links_total", &[("edge", edge), ("outcome", outcome)], count);
    }
    site::assert_accounts_balance(&daemon);
    daemon.finish();
}

#[test]
fn another_configuration_is_taken_at_sighup_under_load_and_nothing_is_lost() {
    const BEGINS_ANEW: &str = "going on where the last run ended";
    let mut site = Site::new("ring_buffer_size: 64MiB\n");
    let daemon = site.start();
    let load = Load::start(&site);
    for number in 1..=5 {
        let before = daemon.scrape();
        let settings = format!("ring_buffer_size: 64MiB\ncheckpoint_interval: {number}s\n");
        site.reload(&daemon, &settings, BEGINS_ANEW);
        let after = daemon.scrape();
        site::assert_no_counter_fell(&before, &after);
        load.note_counted(site::requests_counted(&after));
    }
    let made = load.finish();
    site::settle(&daemon, &made);
    site::assert_exact(&daemon, &made);
    assert_eq!(daemon.metric("linktracer_lost_events_total", &[]), 0.0, "{}", daemon.log());
    assert_eq!(daemon.metric("linktracer_coverage_horizon_moves_total", &[]), 0.0, "{}", daemon.log());
    let log = daemon.finish();
    assert_eq!(log.matches("changed=\"checkpoint_interval\"").count(), 5, "{log}");
}

#[test]
fn a_configuration_that_cannot_be_traced_by_is_refused_at_sighup_and_nothing_changes() {
    let mut site = Site::new("");
    let daemon = site.start();
    let mut load = Load::new(&site);
    load.work(20);
    let elsewhere = std::net::TcpListener::bind((daemon.address().ip(), 0)).expect("there is a port");
    let port_in_use = elsewhere.local_addr().expect("is bound");
    site.reload_listening(&daemon, port_in_use, "stop what uses the port");
    assert_eq!(daemon.metric("linktracer_config_last_reload_successful", &[]), 0.0);
    site.reload(&daemon, "source: another\n", "what is kept would be left behind");
    assert_eq!(daemon.metric("linktracer_config_last_reload_successful", &[]), 1.0);
    load.work(20);
    site::settle(&daemon, load.made());
    site::assert_exact(&daemon, load.made());
    daemon.finish();
}

#[test]
fn a_file_that_cannot_be_used_is_named_and_kept_aside() {
    let site = Site::new("");
    site.start().finish();
    let good = fs::read(site.checkpoint()).expect("is there");
    let mut newer = good.clone();
    newer[8] = 99;
    let other_format = format!("has the format 99, and this build reads {}", good[8]);
    let cases: [(&[u8], &str); 4] = [
        (b"{\"kind\":\"request\"}", "is no file of linktracer"),
        (&good[..good.len() - 3], "is cut off or damaged"),
        (&newer, &other_format),
        (b"", "is no file of linktracer"),
    ];
    for (content, reason) in cases {
        fs::write(site.checkpoint(), content).expect("is ours");
        let daemon = site.start();
        let log = daemon.finish();
        assert!(log.contains(reason) && log.contains("kept aside"), "{log}");
        let kept = site.refused();
        assert!(kept.iter().any(|path| fs::read(path).is_ok_and(|bytes| bytes == content)), "{kept:?}");
    }
    assert!(site.refused().len() >= 4);
    let known = site.refused().len();
    for journal in site.journal_files() {
        let mut of_another_build = fs::read(&journal).expect("is there");
        of_another_build[8] = 99;
        fs::write(&journal, of_another_build).expect("is ours");
    }
    let daemon = site.start();
    assert_eq!(daemon.metric("linktracer_coverage_horizon_moves_total", &[]), 0.0, "{}", daemon.log());
    let log = daemon.finish();
    assert!(log.contains("has the format 99") && log.contains("kept aside"), "{log}");
    assert!(site.refused().len() > known);
}

#[test]
fn a_full_disk_is_said_and_counted_and_tracing_goes_on() {
    let site = Site::on_small_disk("checkpoint_interval: 1s\n", 512 * 1024);
    let daemon = site.start();
    let mut load = Load::new(&site);
    load.work(50);
    site.fill_disk();
    load.work(2000);
    site::wait_for_events(&daemon, load.made());
    wait_for("the failure is counted", LIMIT, || {
        (daemon.metric("linktracer_checkpoint_failures_total", &[]) > 0.0).then_some(())
    });
    assert!(daemon.log().contains("cannot be written"), "{}", daemon.log());
    // Killed now, it has taken records that it could keep nowhere. They are not forgotten silently.
    daemon.signal(Signal::KILL);
    drop(daemon);
    site.empty_disk();
    let daemon = site.start();
    let before = load.made().clone();
    load.work(50);
    let discarded = |probe: &str| {
        daemon.metric("linktracer_received_records_total", &[("probe", probe), ("outcome", "discarded")])
    };
    assert!(discarded("exposure") > 0.0, "{}", daemon.log());
    // What had been shown may be more than what was kept, so the counts have begun at 0.
    site::wait_for_events(&daemon, &load.made().since(&before));
    site::assert_accounts_balance(&daemon);
    daemon.finish();
}
