//! Which clicks a report covers.

use super::*;

const UNLINKED: [&str; 2] = ["exposure_click orphan", "triple broken"];

#[test]
fn cover_clicks_in_the_window_before_them() {
    check_reports([click(T), report(T)], &[&UNLINKED[..], &["click_report reported"]].concat());
    check_reports(
        [click(T), report(T + REPORT_WINDOW)],
        &[&UNLINKED[..], &["click_report reported"]].concat(),
    );
    check_reports(
        [click(T), report(T + REPORT_WINDOW + 1)],
        &[&UNLINKED[..], &["click_report unreported"]].concat(),
    );
    check_reports([report(T - 1), click(T)], &[&UNLINKED[..], &["click_report unreported"]].concat());
}

#[test]
fn cover_clicks_of_their_own_process_only() {
    let other_process = Event { pid: 8, ..report(T) };
    check_reports([click(T), other_process], &[&UNLINKED[..], &["click_report unreported"]].concat());
    let other_node = on("node-b", report(T));
    check_reports([click(T), other_node], &[&UNLINKED[..], &["click_report unreported"]].concat());
}

#[test]
fn cover_clicks_without_ids_and_no_duplicates() {
    check_reports(
        [event(Kind::Click, T, "", ""), report(T)],
        &["exposure_click missing_id", "triple broken", "click_report reported"],
    );
    check_reports(
        [click(T), click(T), report(T)],
        &[&UNLINKED[..], &["click duplicate", "click_report reported"]].concat(),
    );
}

#[test]
fn are_asked_for_only_of_services_that_configure_one() {
    check([click(T), report(T)], &UNLINKED);
    let only = |service: &str| {
        let reports = Reports::Services(BTreeSet::from([service.into()]));
        Join::new(JoinConfig { reports, ..config() })
    };
    check_join(only("web"), [click(T)], &[&UNLINKED[..], &["click_report unreported"]].concat());
    check_join(only("app"), [click(T)], &UNLINKED);
}
